"""Draw the plots of docs/arena.md from the result files of the arenas.

    python benchmarks/arena_plots.py

Writes docs/arena-<zoo>-{ca-asr,rebound,cost}.png for each zoo whose arena was run, and docs/defences.png, all defences at a glance.
The metadata of each picture hold the SHA-256 of the files that it shows.
"""

import hashlib
from pathlib import Path
from statistics import fmean

import matplotlib
from arena_tables import ROOT, arena_files
from matplotlib.figure import Figure
from PIL import Image
from results_file import RESULTS
from summary_tables import OURS, runs_by_defence

from hf_invertune.lab.arena.compare import figures
from hf_invertune.lab.arena.plots import charts
from hf_invertune.lab.arena.rows import read_rows
from hf_invertune.report.plots import ACCENT, INK, PLAIN, STYLE, Chart
from hf_invertune.utils.files import write_bytes


PLACES = {"CleanCLIP": (-8, -9, "right"), "PAR": (8, -3, "left"), "Neural Cleanse unlearning": (0, 10, "center")}
"""Where the names of defences that lie close together stand: points to the right and up, and which end is there."""
GLANCE = ROOT / "docs" / "defences.png"
PICTURES = ("ca-asr", "rebound", "cost")


def pictures(zoo: str) -> dict[str, Path]:
    return {name: ROOT / "docs" / f"arena-{zoo}-{name}.png" for name in PICTURES}


def glance() -> Chart:
    """One dot a defence: what it leaves of the attack, and what it takes from the model; the origin is where to be."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4))
        axes = figure.subplots()
        axes.grid()
        for title, rows in runs_by_defence().items():
            if title.endswith("November"):
                continue
            ours, flat = title.startswith("*"), [figures(row) for row in rows]
            lost = fmean(100 * (one["ca_before"] - one["ca_after"]) for one in flat)
            left = fmean(100 * (one["asr_after"] - one["floor_after"]) for one in flat)
            axes.plot(lost, left, "o", color=ACCENT if ours else PLAIN, markersize=10 if ours else 7)
            name = f"{OURS}, {len(rows)} victims" if ours else f"{title}, {len(rows)}"
            x, y, side = PLACES.get(title, (8, 4, "left"))
            beside = {"xytext": (x, y), "textcoords": "offset points", "ha": side, "fontsize": 9}
            axes.annotate(name, (lost, left), weight="bold" if ours else "normal", **beside)
        axes.set_xlim(-1, 44)
        axes.set_ylim(-4, 108)
        axes.annotate("better", (0.5, -1), xytext=(4.5, 7), color=INK, arrowprops={"arrowstyle": "->", "color": INK})
        axes.set_xlabel("clean accuracy lost, points")
        axes.set_ylabel("attack success left beyond the floor, points")
        return Chart(figure, "Each defence by the clean accuracy that it costs and the attack success that it leaves.")


def sources() -> str:
    """The digest of all result files that [`glance`] shows."""
    paths = [*sorted(RESULTS.glob("arena_*.jsonl")), *sorted(RESULTS.glob("present_*.jsonl"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def stale() -> list[Path]:
    """The pictures that show something else than the result files."""
    old = []
    for zoo, path in arena_files().items():
        for picture in pictures(zoo).values():
            shown = Image.open(picture).info.get("Source") if picture.is_file() else None
            old += [picture] * (shown != digest(path))
    shown = Image.open(GLANCE).info.get("Source") if GLANCE.is_file() else None
    return old + [GLANCE] * (shown != sources())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    for zoo, path in arena_files().items():
        drawn = charts(read_rows([path]))
        for name, picture in pictures(zoo).items():
            write_bytes(picture, drawn[name].png(digest(path)))
    write_bytes(GLANCE, glance().png(sources()))
