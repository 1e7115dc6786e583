"""Draw the plots of docs/arena.md from the result files of the arenas.

    python benchmarks/arena_plots.py

Writes docs/arena-<zoo>-{ca-asr,rebound,cost}.png for each zoo whose arena was run.
"""

from tables import ROOT, arena_files

from hf_invertune.arena.plots import charts
from hf_invertune.arena.rows import read_rows
from hf_invertune.storage import write_bytes


if __name__ == "__main__":
    for zoo, path in arena_files().items():
        for name, chart in charts(read_rows([path])).items():
            write_bytes(ROOT / "docs" / f"arena-{zoo}-{name}.png", chart.png())
