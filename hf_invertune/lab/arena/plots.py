"""The arena's pictures, in the style of the report's charts."""

from collections.abc import Sequence
from math import ceil, nan
from statistics import mean, median

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.plots import ACCENT, ALERT, INK, PLAIN, ROW, STYLE, WIDTH, Chart
from .compare import DID_NOT_TAKE, defence_names, defence_title, figures, rebound_rates
from .rows import Row


COLUMNS = 4


def charts(rows: Sequence[Row]) -> dict[str, Chart]:
    """By file name, those pictures for which there is something to show."""
    shown = {}
    if any(row.attack and row.status != DID_NOT_TAKE for row in rows):
        shown["ca-asr"] = accuracy_against_attack(rows)
    if any(row.rebound for row in rows):
        shown["rebound"] = rebound_curves(rows)
    if any(row.cost and row.defence != "none" for row in rows):
        shown["cost"] = costs(rows)
    return shown


def accuracy_against_attack(rows: Sequence[Row]) -> Chart:
    """CA against ASR: a panel a defence, a point a run, and in grey where the victims stood before.

    A defence that failed has left them there.
    """
    scored = [row for row in rows if row.attack and row.status != DID_NOT_TAKE]
    names = [name for name in defence_names(scored) if name != "none"] or defence_names(scored)
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(names)
        for axes, name in zip(panels, names, strict=True):
            values = [figures(row) for row in scored if row.defence == name]
            for side, colour, marker in (("before", PLAIN, "o"), ("after", ALERT, "D")):
                points = [(100 * value[f"asr_{side}"], 100 * value[f"ca_{side}"]) for value in values]
                axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=3.5, alpha=0.7, label=side)
            axes.set_xlim(-4, 104)
        figure.supxlabel("ASR, %", fontsize=9)
        figure.supylabel("CA, %", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
        shown = ", ".join(map(defence_title, names))
        return Chart(figure, f"Clean accuracy against attack success rate, one point a run, of {shown}.")


def rebound_curves(rows: Sequence[Row]) -> Chart:
    """ASR along benign fine-tuning: a panel a defence, a line a run, and their mean."""
    followed = [row for row in rows if row.rebound]
    names = defence_names(followed)
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(names)
        for axes, name in zip(panels, names, strict=True):
            runs = [row for row in followed if row.defence == name]
            curves = [[100 * rate.value for rate in rebound_rates(row)] for row in runs]
            steps = [point.step for point in runs[0].rebound or []]
            for curve in curves:
                axes.plot(steps, curve, color=PLAIN, linewidth=0.8, alpha=0.7, label="a victim")
            middle = [mean(values) for values in zip(*curves, strict=True)]
            axes.plot(steps, middle, color=ALERT, linewidth=1.8, label="mean")
            axes.set_ylim(-4, 104)
        figure.supxlabel("steps of benign contrastive training after the defence", fontsize=9)
        figure.supylabel("ASR, %", fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles[-2:], labels[-2:], loc="outside upper left", ncols=2)
        shown = ", ".join(map(defence_title, names))
        return Chart(figure, f"Attack success rate along benign fine-tuning after {shown}.")


def costs(rows: Sequence[Row]) -> Chart:
    """Pictures through the encoder, seconds (the median) and memory of each defence, on average."""
    names = [name for name in defence_names(row for row in rows if row.cost) if name != "none"]
    spent = {name: [row.cost for row in rows if row.cost and row.defence == name] for name in names}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 * WIDTH, 0.9 + 1.6 * ROW * len(names)))
        pictures, seconds, memory = figure.subplots(1, 3, sharey=True)
        for key, colour, offset in (("forward", PLAIN, -0.2), ("backward", ACCENT, 0.2)):
            values = [mean(getattr(cost, key) for cost in spent[name]) for name in names]
            pictures.barh([row + offset for row in range(len(names))], values, 0.36, color=colour, label=key)
        seconds.barh(
            range(len(names)), [median(cost.seconds for cost in spent[name]) for name in names], 0.6, color=ACCENT
        )
        peaks = [[cost.peak_memory / 2**20 for cost in spent[name] if cost.peak_memory is not None] for name in names]
        memory.barh(range(len(names)), [mean(known or [nan]) for known in peaks], 0.6, color=ACCENT)
        pictures.set_yticks(range(len(names)), list(map(defence_title, names)))
        pictures.set_ylim(len(names) - 0.4, -0.6)
        for axes, label in (
            (pictures, "pictures through the encoder"),
            (seconds, "seconds (median)"),
            (memory, "peak memory, MiB"),
        ):
            axes.set_xlabel(label)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.locator_params(axis="x", nbins=5)
        figure.legend(*pictures.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        return Chart(
            figure, f"What a run costs with {', '.join(map(defence_title, names))}; the numbers are in the table."
        )


def _panels(names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each defence, all to one scale."""
    columns = min(COLUMNS, len(names))
    lines = ceil(len(names) / columns)
    figure = Figure(figsize=(max(WIDTH, columns * WIDTH / 2), 0.7 + 1.9 * lines))
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    for axes in grid[len(names) :]:
        axes.remove()
    for index, (axes, name) in enumerate(zip(grid, names, strict=False)):
        axes.tick_params(labelbottom=index + columns >= len(names))  # a last panel has no neighbour beneath it
        axes.set_title(defence_title(name), fontsize=9, color=INK)
        axes.grid()
    return figure, grid[: len(names)]
