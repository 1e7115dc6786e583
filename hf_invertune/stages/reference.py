"""A trusted model as a yardstick: some labels and places are easy to reach by nature, in every model alike."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from ..errors import InputError
from ..utils.files import json_digest, write_json
from ..utils.storage import from_plain, to_plain
from .configs import Bars, ScanConfig
from .inputs import Inputs


QUIET, SUSPICIOUS = 0.7, 0.5
"""Bars of a concentration beside a reference's, for what is left to 1: of clean models of one world none left less than .77
of what another left, by any family; see docs/method.md."""


@dataclass(frozen=True)
class Profile:
    """What a scan of a trusted model found: how easy the labels are by nature.

    Attributes:
        version (`str`): of hf_invertune.
        inputs ([`Inputs`]): the trusted model and the images.
        verdict (`str`): what the scan concluded.
        class_names (`list[str]`), templates (`list[str]`), config ([`ScanConfig`]): what was looked at, and how.
        scores (`dict[str, dict[int, float]]`): of each family that raced, of each label, see [`Evidence`].
        concentrations (`dict[str, float]`): of each family that gathered, the highest.
    """

    version: str
    inputs: Inputs
    verdict: str
    class_names: list[str]
    templates: list[str]
    config: ScanConfig
    scores: dict[str, dict[int, float]]
    concentrations: dict[str, float]

    def save(self, path: str | Path) -> None:
        """Write one JSON file, with a digest of all that it holds."""
        value = to_plain(self)
        write_json(Path(path), {"sha256": json_digest(value), **value})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: when it is no such file, or a damaged one.
        """
        path = Path(path)
        try:
            value = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"`reference`: {path} cannot be read ({error}); name a profile.") from error
        if not isinstance(value, dict) or value.pop("sha256", None) != json_digest(value):
            raise InputError(
                f"`reference`: {path} is no profile, or a damaged one; make it with `hf-invertune profile`."
            )
        return from_plain(cls, value, path, "reference")

    def check(self, inputs: Inputs, class_names: Sequence[str], templates: Sequence[str], config: ScanConfig) -> None:
        """Refuse to be the yardstick of a scan that looks at something else.

        Raises:
            InputError: other names, templates or settings than those of the profile, or the model that it was made of.
        """
        if self.inputs.model.sha256 == inputs.model.sha256:
            raise InputError(
                f"`reference`: {self.inputs.model.name} has the very weights of the model that is scanned; name another."
            )
        differing = {
            "class names": list(class_names) != self.class_names,
            "templates": list(templates) != self.templates,
            "settings of the scan": _decisive(config) != _decisive(self.config),
        }
        others = [name for name, differs in differing.items() if differs]
        if others:
            raise InputError(
                f"`reference`: its {' and '.join(others)} are not those here; make it with `hf-invertune profile` and the "
                "same names, templates and settings."
            )

    def barred(self, config: ScanConfig) -> ScanConfig:
        """`config` with the bars of concentrations moved to beyond what the reference reaches by nature."""
        bars = dict(config.gathering.bars)
        for family, reached in self.concentrations.items():
            bars[family] = Bars(1 - QUIET * (1 - reached), 1 - SUSPICIOUS * (1 - reached))
        return replace(config, gathering=replace(config.gathering, bars=bars))


def relative(scores: Mapping[int, float], reference: Mapping[int, float]) -> dict[int, float]:
    """The scores with what is natural about them taken off: divided by the reference's, about the reference's mean.

    Args:
        scores (`Mapping[int, float]`): of each label.
        reference (`Mapping[int, float]`): likewise, of the trusted model; a label that it lacks counts as its mean.
    """
    if not reference:
        return dict(scores)
    level = exp(fmean(map(log, reference.values())))
    return {label: score * level / reference.get(label, level) for label, score in scores.items()}


def _decisive(config: ScanConfig) -> dict[str, Any]:
    """The settings that scores and concentrations depend on: all but the bars."""
    value = config.plain()
    return {name: item for name, item in value.items() if name != "bars"} | {
        "gathering": {name: item for name, item in value["gathering"].items() if name != "bars"}
    }
