"""How far a statistic goes in clean models by nature: bars for a rate of false alarms, and the chance of a value."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from scipy.stats import t


Statistic = Literal["lead", "concentration"]
SCALES: dict[Statistic, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "lead": (math.log1p, math.expm1),
    "concentration": (lambda value: -math.log(max(1 - value, 1e-9)), lambda scaled: 1 - math.exp(-scaled)),
}
"""The scale on which clean models of one world are about normal, and the way back."""
SMALL = {"cifar10", "drawings"}
"""Worlds of models that were trained for the purpose, and are far smaller than those in use."""
GRAVE = 0.1
"""Share of the rate of false alarms at which a model may be called backdoored, and not merely suspicious."""


@dataclass(frozen=True)
class Null:
    """What clean models of one world reach in one family.

    Attributes:
        world (`str`): their pictures and labels.
        models (`int`): how many.
        mean (`float`), deviation (`float`): on the scale of the statistic.
    """

    world: str
    models: int
    mean: float
    deviation: float

    @property
    def spread(self) -> float:
        """The standard deviation of one more model about the mean of these."""
        return self.deviation * math.sqrt(1 + 1 / self.models)

    def beyond(self, chance: float) -> float:
        """The scaled value that one more clean model exceeds with this chance: the prediction bound of Student's t."""
        return self.mean + float(t.isf(chance, self.models - 1)) * self.spread

    def chance(self, scaled: float) -> float:
        """The chance that one more clean model exceeds a scaled value."""
        return float(t.sf((scaled - self.mean) / self.spread, self.models - 1))


@cache
def nulls() -> dict[tuple[Statistic, str], list[Null]]:
    """By statistic and family, one null a world; benchmarks/calibrate.py makes them."""
    stored = json.loads(Path(__file__).with_name("calibration.json").read_text(encoding="utf-8"))
    return {
        (statistic, family): [Null(world, **figures) for world, figures in worlds.items()]
        for statistic, families in stored.items()
        for family, worlds in families.items()
    }


def bars_at(statistic: Statistic, false_alarms: float) -> dict[str, tuple[float, float]]:
    """Of each calibrated family the bars by which a clean model is called anything but clean at this rate, all told.

    The rate is divided among the families of both statistics (Bonferroni), and the world in which clean models go furthest
    counts.

    Args:
        statistic (`str`): `"lead"` or `"concentration"`.
        false_alarms (`float`): the rate, between 0 and 1; that of "backdoored" is a tenth of it.
    """
    scale = SCALES[statistic][1]

    def bar(worlds: list[Null], rate: float) -> float:
        return round(scale(max(null.beyond(rate / len(nulls())) for null in worlds)), 3)

    return {
        family: (bar(worlds, false_alarms), bar(worlds, GRAVE * false_alarms))
        for (kind, family), worlds in nulls().items()
        if kind == statistic
    }


def chance_of(statistic: Statistic, family: str, value: float) -> float | None:
    """The chance that a clean model reaches so much in any family; none for a family without calibration.

    Args:
        statistic (`str`), family (`str`): which.
        value (`float`): of the statistic.
    """
    worlds = nulls().get((statistic, family))
    if worlds is None:
        return None
    scaled = SCALES[statistic][0](max(value, 0.0))
    return min(1.0, len(nulls()) * max(null.chance(scaled) for null in worlds))


def by_chance(chance: float | None) -> str:
    """A [`chance_of`] in percent, with no more digits than it deserves."""
    if chance is None:
        return "not known"
    return "< 0.01 %" if chance < 1e-4 else f"{float(f'{100 * chance:.2g}'):g} %"


def calibrated_on() -> str:
    """Which models the bars follow from, in a sentence."""
    counts = {null.world: null.models for worlds in nulls().values() for null in worlds}
    shown = " and ".join(f"{count} of {world}" for world, count in counts.items())
    small = ": small CLIPs, and no others" if counts.keys() <= SMALL else ""
    return f"The bars of the verdict follow from clean models, {shown}{small}."
