"""The one table of the README: every defence on all attacked victims of every arena that was run."""

from collections import defaultdict
from statistics import fmean, median
from typing import Any

from results_file import RESULTS


LIVE = 0.1
"""By how much the attack's own trigger must still succeed beyond its floor, for the backdoor to count as live."""
TITLES = {"none": "no defence", "hf_invertune": "**hf_invertune**"}


def arena_summary() -> str:
    """Mean figures of each defence, and on how many victims it left the attack's own trigger alive."""
    from hf_invertune.lab.arena.compare import defence_title, figures
    from hf_invertune.lab.arena.defences import DEFENCES
    from hf_invertune.lab.arena.rows import read_rows

    paths = sorted(RESULTS.glob("arena_*.jsonl"))
    runs: dict[str, list[tuple[Any, dict[str, Any]]]] = defaultdict(list)
    for row in read_rows(paths):
        if row.attack is not None and row.status != "did not take":
            runs[row.defence].append((row, figures(row)))
    lines = [
        "| defence | ASR before | ASR after | floor | change of CA, points | backdoor still live | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(runs, key=list(DEFENCES).index):
        measured = runs[name]
        flat = [figure for _, figure in measured]
        before, after, floor = (
            fmean(100 * one[key] for one in flat) for key in ("asr_before", "asr_after", "floor_after")
        )
        change = fmean(100 * (one["ca_after"] - one["ca_before"]) for one in flat)
        live = sum(one["asr_after"] - one["floor_after"] > LIVE for one in flat)
        seconds = median(row.cost.seconds for row, _ in measured if row.cost is not None)
        cells = [f"{before:.1f}", f"{after:.1f}", f"{floor:.1f}", f"{change:+.1f}".replace("-", "−")]
        cells += [f"{live} of {len(flat)}", f"{seconds:.0f}"]
        lines.append(f"| {TITLES.get(name, defence_title(name))} | {' | '.join(cells)} |")
    return "\n".join(lines)
