"""All defences at a glance: what each takes from the model, and what it leaves of the attack."""

import hashlib
from dataclasses import dataclass
from statistics import fmean, mode
from typing import Any

import matplotlib
import summary_tables
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from summary_tables import NOW, OURS, WORLDS, runs_by_defence

from hf_invertune.lab.arena.compare import figures
from hf_invertune.report.plots import ACCENT, INK, PLAIN, STYLE, Chart


SPOTS = [(9, 0, "left"), (-9, 0, "right"), (0, 12, "center"), (0, -12, "center")]
SPOTS += [(x, y, side) for y in (12, -12, 24, -24, 36, 48) for x, side in ((9, "left"), (-9, "right"), (0, "center"))]
"""Where the name of a dot may stand, the best first: points to the right and up of it, and which end is there."""
NEAR = 12
"""Points from a dot up to which its name needs no line to it."""


@dataclass(frozen=True)
class Dot:
    """One defence in one world.

    Attributes:
        title (`str`): what the tables call it.
        victims (`int`): how many it met whose attack took.
        change (`float`): of clean accuracy, in points, the mean over the victims.
        left (`float`): ASR after it, in percent, the mean over the victims.
    """

    title: str
    victims: int
    change: float
    left: float

    @property
    def name(self) -> str:
        return OURS if self.title == NOW else self.title

    @property
    def look(self) -> dict[str, Any]:
        """Ours is blue, and large; an earlier version of ours is hollow."""
        if self.title in (NOW, OURS):
            return {"color": ACCENT, "markersize": 11}
        ours = {"color": ACCENT, "markerfacecolor": "white"} if self.title.startswith(OURS) else {"color": PLAIN}
        return {**ours, "markersize": 7}


def dots(world: str) -> list[Dot]:
    """Those of the result files of one world."""
    made = []
    for title, rows in runs_by_defence(world).items():
        flat = [figures(row) for row in rows]
        change = fmean(100 * (one["ca_after"] - one["ca_before"]) for one in flat)
        made.append(Dot(title, len(rows), change, fmean(100 * one["asr_after"] for one in flat)))
    return made


def glance() -> Chart:
    """A panel a world, a dot a defence; the corner at the bottom right is where to be."""
    panels = {title: found for world, title in WORLDS.items() if (found := dots(world))}
    told = []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(panels), 4.1))
        grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (title, found) in zip(grid, panels.items(), strict=True):
            axes.set_title(f"{title}, {most(found)} attacked models", fontsize=10)
            axes.grid()
            for dot in found:
                axes.plot(dot.change, dot.left, "o", **dot.look)
                told.append(f"{title}, {dot.name}, {dot.victims} models: {dot.change:+.1f} points, {dot.left:.1f} %")
        grid[0].set_xlim(1.15 * min(-10, *(dot.change for found in panels.values() for dot in found)), 2.5)
        grid[0].set_ylim(-12, 107)
        grid[0].set_ylabel("attack success after it, %")
        figure.supxlabel("change of clean accuracy, points", fontsize=9, color=INK)
        FigureCanvasAgg(figure).draw()  # from here on it is known where everything stands
        for axes, found in zip(grid, panels.values(), strict=True):
            _name(axes, found)
        return Chart(figure, f"Change of clean accuracy and attack success after each defence. {'; '.join(told)}.")


def most(found: list[Dot]) -> int:
    """How many models most defences met."""
    return mode(dot.victims for dot in found)


def _name(axes: Axes, found: list[Dot]) -> None:
    """Put names beside the dots, over no other dot and no other name, those of ours first; and tell where it is better.

    A name that finds no such place stands at the first one.
    """
    arrow = {"arrowstyle": "->", "color": INK}
    better = axes.annotate("better", (0.985, 0.015), (0.76, 0.035), "axes fraction", arrowprops=arrow)
    taken = [better.get_window_extent()]
    for dot in found:
        x, y = axes.transData.transform((dot.change, dot.left))
        taken.append(Bbox.from_extents(x - 8, y - 8, x + 8, y + 8))
    for dot in sorted(found, key=lambda dot: not dot.title.startswith((NOW, OURS))):
        name = dot.name if dot.victims == most(found) else f"{dot.name}\non {dot.victims} models"
        weight = "bold" if dot.title in (NOW, OURS) else "normal"
        for right, up, side in [*SPOTS, SPOTS[0]]:
            where: dict[str, Any] = {"xytext": (right, up), "textcoords": "offset points", "ha": side, "va": "center"}
            text = axes.annotate(name, (dot.change, dot.left), weight=weight, **where)
            text.set_in_layout(False)
            box = text.get_window_extent()
            if not box.count_overlaps(taken) and axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1:
                break
            text.remove()
        else:
            axes.add_artist(text)
        taken.append(box)
        if abs(up) > NEAR:
            line = {"arrowstyle": "-", "color": PLAIN, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
            end = (right, up - 6 if up > 0 else up + 6)
            axes.annotate("", (dot.change, dot.left), end, textcoords="offset points", arrowprops=line)


def sources() -> str:
    """The digest of all result files that [`glance`] shows."""
    paths = [path for kind in ("arena", "present") for path in sorted(summary_tables.RESULTS.glob(f"{kind}_*.jsonl"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
