"""The charts of the verdict: one strip a family of triggers, one dot a label or a place, and where the bars lie.

A strip of the second scan, where there was one, stands below that of the first. What a dot is shows in its shape, and a bar in
its line, so that both are told without colours; the description says it all in words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from ..stages.gathering import Gathering
from ..stages.identification import ScanResult
from ..stages.verdict import Evidence, Verdict
from .plots import ALERT, INK, ROW, SECOND, STYLE, Chart, named_rows, shortened


One = TypeVar("One", Evidence, Gathering)
HEIGHT = 2.6 * ROW  # inches, of a strip: there is room for a name above its dots and for one below
HALF = 0.44  # of a strip, as a share of its row
FAR = 8  # how many times easier than the easiest label a bar may be, to be shown still
DOT: dict[str, Any] = {"marker": "o", "linestyle": ""}
FOUND = {**DOT, "marker": "s", "color": ALERT, "markersize": 6.5}
FIRST = {**DOT, "color": INK, "markersize": 6, "markerfacecolor": "none"}
RIVAL = {**DOT, "marker": "D", "color": SECOND, "markersize": 5.5}
OTHER = {**DOT, "color": INK, "markersize": 4, "alpha": 0.65, "markeredgewidth": 0}
LOWER: dict[str, Any] = {"color": INK, "linewidth": 1.1, "linestyle": ":"}
UPPER = {**LOWER, "linestyle": "-"}


@dataclass
class Strip(Generic[One]):
    """What one family found in one scan."""

    family: str
    again: bool
    scan: ScanResult
    found: list[One]

    def told(self, fact: str, verdict: Verdict) -> str:
        """The strip in words."""
        return f"{self.family}{' in the second scan' if self.again else ''}: {fact}, {verdict.value}"


def leads(scan: ScanResult, second: ScanResult | None = None) -> Chart:
    """The cost of each label, as a share of that of its family's rival, on a log scale.

    A lead of l puts the easiest label at 1 / (1 + l) of its rival, so each bar is a line that it must lie to the left of. A
    lead is never below 0, so a bar of no more is taken for the rival itself, and not drawn.
    """
    strips = _strips(scan, second, lambda one: one.evidence)
    shares, edges = [], []
    for strip in strips:
        (evidence,), bars = strip.found, strip.scan.config.bars[strip.family]
        shares.append({label: cost / evidence.costs[evidence.rival] for label, cost in evidence.costs.items()})
        edges.append((1 / (1 + max(bars.quiet, 0)), 1 / (1 + max(bars.suspicious, 0))))
    lowest = min(min(share.values()) for share in shares)
    left = 0.85 * min(lowest, max(min(map(min, edges)), lowest / FAR))
    told = []
    with matplotlib.rc_context(STYLE):
        figure, axes = _drawn(strips)
        axes.set_xscale("log")
        for row, (strip, share, (quiet, grave)) in enumerate(zip(strips, shares, edges, strict=True)):
            (evidence,), names = strip.found, strip.scan.class_names
            first, rival, verdict = evidence.label, evidence.rival, strip.scan.judged(evidence)
            _zones(axes, row, quiet, grave, left)
            others = [x for label, x in share.items() if label not in (first, rival)]
            axes.plot(others, [row] * len(others), **OTHER)
            axes.plot(1, row, **RIVAL)
            axes.plot(share[first], row, **(FIRST if verdict is Verdict.CLEAN else FOUND))
            if verdict is not Verdict.CLEAN:
                _name(axes, share[first], row - 0.28, names[first], "left", "bold")
                _name(axes, 1, row + 0.28, names[rival], "center")
            told.append(strip.told(f"{names[first]} costs {share[first]:.2f} of its rival, {names[rival]}", verdict))
        axes.set_xlim(left, 1.15 * max(max(share.values()) for share in shares))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("cost, as a share of the rival's (left: easier to reach)", loc="right")
        kinds = {
            "easiest, a finding": FOUND,
            "easiest, no finding": FIRST,
            "its rival": RIVAL,
            "any other label": OTHER,
        }
        _legend(figure, axes, kinds)
        return Chart(figure, f"How easy each label is to reach, by family. {'; '.join(told)}.")


def places(scan: ScanResult, second: ScanResult | None = None) -> Chart:
    """The concentration of each reported place, from 0 to 1."""
    strips = _strips(scan, second, lambda one: one.gatherings)
    told = []
    with matplotlib.rc_context(STYLE):
        figure, axes = _drawn(strips)
        for row, strip in enumerate(strips):
            bars, judged = strip.scan.config.gathering.bars[strip.family], strip.scan.judged
            _zones(axes, row, max(bars.quiet, 0), max(bars.suspicious, 0), 1)
            for place in strip.found:
                axes.plot(place.concentration, row, **(FIRST if judged(place) is Verdict.CLEAN else FOUND))
            top = max(strip.found, key=lambda place: place.concentration)
            name = strip.scan.label_name(top)
            if name is not None and judged(top) is not Verdict.CLEAN:
                _name(axes, top.concentration, row - 0.28, name, "right", "bold")
            read = "" if name is None else f", read as {name}"
            told.append(strip.told(f"a concentration of {top.concentration:.2f}{read}", judged(top)))
        axes.set_xlim(min(0, *(place.concentration for strip in strips for place in strip.found)), 1.03)
        axes.set_xlabel("concentration (right: nearer to one place)", loc="right")
        _legend(figure, axes, {"place, a finding": FOUND, "place, no finding": FIRST})
        return Chart(figure, f"How closely triggers gather pictures, by family. {'; '.join(told)}.")


def _strips(
    scan: ScanResult, second: ScanResult | None, part: Callable[[ScanResult], Sequence[One]]
) -> list[Strip[One]]:
    """One for each family and scan that have something to show, the scans of a family together."""
    scans = [scan] if second is None else [scan, second]
    strips = [
        Strip(family, again > 0, one, [found for found in part(one) if found.family == family])
        for family in dict.fromkeys(found.family for one in scans for found in part(one))
        for again, one in enumerate(scans)
    ]
    return [strip for strip in strips if strip.found]


def _drawn(strips: Sequence[Strip[One]]) -> tuple[Figure, Axes]:
    figure, axes = named_rows([""] * len(strips), HEIGHT)
    names = [f"{shortened(strip.family)}\nsecond scan" if strip.again else shortened(strip.family) for strip in strips]
    axes.set_yticks(range(len(names)), names)
    return figure, axes


def _zones(axes: Axes, row: int, quiet: float, grave: float, end: float) -> None:
    """What is suspicious, from the lower bar to the upper one, and what is backdoored, from there to the end."""
    reach = (lambda x: max(x, end)) if end < 1 else (lambda x: min(x, end))
    for colour, start, stop, line in ((SECOND, quiet, grave, LOWER), (ALERT, grave, end, UPPER)):
        axes.fill_betweenx([row - HALF, row + HALF], reach(start), reach(stop), color=colour, alpha=0.17, linewidth=0)
        if reach(start) != end and start not in (0, 1):  # no bar that all are beyond
            axes.plot([start, start], [row - HALF, row + HALF], **line)


def _name(axes: Axes, x: float, y: float, name: str, side: str, weight: str = "normal") -> None:
    axes.text(x, y, shortened(name), ha=side, va="center", weight=weight, fontsize=8)


def _legend(figure: Figure, axes: Axes, kinds: dict[str, dict[str, Any]]) -> None:
    lines = {"from here suspicious": LOWER, "from here backdoored": UPPER}
    handles = [Line2D([], [], label=label, **style) for label, style in {**kinds, **lines}.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, fontsize=8)
