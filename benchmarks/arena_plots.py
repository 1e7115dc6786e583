"""Draw the plots of docs/arena.md from the result files of the arenas.

    python benchmarks/arena_plots.py

Writes docs/arena-<zoo>-{ca-asr,rebound,cost}.png for each zoo whose arena was run, and docs/defences.png, all defences at a glance.
The metadata of each picture hold the SHA-256 of the files that it shows.
"""

import hashlib
from pathlib import Path

from arena_tables import ROOT, arena_files
from glance import glance, sources
from PIL import Image

from hf_invertune.lab.arena.plots import charts
from hf_invertune.lab.arena.rows import read_rows
from hf_invertune.utils.files import write_bytes


GLANCE = ROOT / "docs" / "defences.png"
PICTURES = ("ca-asr", "rebound", "cost")


def pictures(zoo: str) -> dict[str, Path]:
    return {name: ROOT / "docs" / f"arena-{zoo}-{name}.png" for name in PICTURES}


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
