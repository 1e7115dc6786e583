"""Tables that hold all defences against each other in one line each, and ours, as it is now, victim by victim."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import fmean, median

from results_file import RESULTS, rows_of

from hf_invertune.lab.arena.compare import defence_title, figures
from hf_invertune.lab.arena.defences import DEFENCES
from hf_invertune.lab.arena.rows import Row
from hf_invertune.stages.verdict import Verdict
from hf_invertune.utils.markdown import markdown_table


OURS = "hf_invertune"
NOW = f"**{OURS}**, this version"
LIVE = 0.1
"""By how much the attack's own trigger must still succeed beyond its floor, for the backdoor to count as live."""
WORLDS = {"drawings": "Drawings", "cifar10": "CIFAR-10"}


def present_file(world: str) -> Path:
    """The runs of this version on victims of the first seed, made anew from the recipes of the arena."""
    return RESULTS / f"present_{world}.jsonl"


def attacked(paths: Sequence[Path]) -> list[Row]:
    """The runs on victims whose attack took."""
    return [row for row in rows_of(*paths) if row.attack is not None and row.status != "did not take"]


def runs_by_defence(world: str = "*") -> dict[str, list[Row]]:
    """All runs on victims that took, by what the tables call the defence; those of this version come last.

    Args:
        world (`str`, *optional*): the only one that counts.
    """
    runs: dict[str, list[Row]] = defaultdict(list)
    for row in attacked(sorted(RESULTS.glob(f"arena_{world}.jsonl"))):
        runs[row.defence].append(row)
    present = attacked(sorted(RESULTS.glob(f"present_{world}.jsonl")))
    named = {defence_title(name): runs[name] for name in sorted(runs, key=list(DEFENCES).index)}
    if not present:
        return named
    return {dated(title, rows) if title == OURS else title: rows for title, rows in named.items()} | {NOW: present}


def dated(title: str, rows: Sequence[Row]) -> str:
    """A defence with the days on which it ran."""
    first, last = (date.fromisoformat(day(row.created for row in rows)[:10]) for day in (min, max))
    days = [f"{first.day}" if first.month == last.month else f"{first.day} {first:%B}"] if first != last else []
    return f"{title}, {' to '.join([*days, f'{last.day} {last:%B}'])}"


def arena_summary() -> str:
    """Mean figures of each defence, on how many victims it left the trigger alive, and of how many of these it assured."""
    named = runs_by_defence().items()
    columns = [
        "defence",
        "victims",
        "ASR before",
        "ASR after",
        "floor",
        "CA, points",
        "still live",
        "assured",
        "seconds",
    ]
    return markdown_table(columns, [[title, *summary(rows)] for title, rows in named])


def summary(rows: Sequence[Row]) -> list[str]:
    flat = [figures(row) for row in rows]
    before, after, floor = (
        fmean(100 * one[key] for one in flat) for key in ("asr_before", "asr_after", "floor_after")
    )
    change = fmean(100 * (one["ca_after"] - one["ca_before"]) for one in flat)
    live = [row for row in rows if is_live(row)]
    gives = any(row.verdict is not None for row in rows)
    seconds = median(row.cost.seconds for row in rows if row.cost is not None)
    cells = [str(len(rows)), f"{before:.1f}", f"{after:.1f}", f"{floor:.1f}", signed(change)]
    return [*cells, str(len(live)), str(sum(map(assures, live))) if gives else "says nothing", f"{seconds:.0f}"]


def signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def is_live(row: Row) -> bool:
    """Whether the attack's own trigger still works."""
    one = figures(row)
    return bool(one["asr_after"] - one["floor_after"] > LIVE)


def assures(row: Row) -> bool:
    """Whether the defence said that the model is clean, or cleaned."""
    return row.verdict is Verdict.CLEAN or row.details.get("outcome") == "cleaned"


def present() -> str:
    """What this version does to each victim that it has met, beside what the one of the arena's table did."""
    parts = []
    for world, title in WORLDS.items():
        if not present_file(world).is_file():
            parts.append(f"**{title}**: not run.")
            continue
        rows = rows_of(present_file(world))
        then = {row.victim: row for row in rows_of(RESULTS / f"arena_{world}.jsonl") if row.defence == OURS}
        columns = ["victim", "verdict", "target", "outcome", "ASR (floor)", "then", "CA", "PA", "rebound", "seconds"]
        cells = [line(row, then.get(row.victim)) for row in sorted(rows, key=lambda row: (not row.attack, row.victim))]
        dates = sorted({row.created[:10] for row in rows})
        took = attacked([present_file(world)])
        live = [row for row in took if is_live(row)]
        told = (
            f"{len(took)} attacked models: the trigger is live after it in {len(live)}, of which "
            f"{sum(map(assures, live))} are called clean or cleaned. {len(rows) - len(took)} models are clean, or their attack "
            f"did not take."
        )
        machine = rows[0].machine
        source = (
            f"`hf-invertune arena zoo/{world} --output benchmarks/results/{present_file(world).name} --defences {OURS} "
            f"--rebound --victims {','.join(row.victim for row in rows)}`, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, "
            f"{machine['cores']} {machine['processor']} cores, torch {rows[0].versions['torch']}: "
            f"[{present_file(world).name}](../benchmarks/results/{present_file(world).name})."
        )
        parts.append(f"**{title}**\n\n{markdown_table(columns, cells)}\n\n{told}\n\n{source}")
    return "\n\n".join(parts)


def line(row: Row, then: Row | None) -> list[str]:
    """One victim: rates in percent; of several triggers the strongest."""
    one, verdict = figures(row), row.verdict.value if row.verdict else "failed"
    told = [row.victim, verdict, row.target or "", row.details.get("outcome", "")]
    accuracy = f"{100 * one['ca_before']:.1f} → {100 * one['ca_after']:.1f}"
    seconds = f"{row.cost.seconds:.0f}" if row.cost else ""
    if row.attack is None:
        return [*told, "", "", accuracy, "", "", seconds]
    asr = f"{100 * one['asr_before']:.1f} → {100 * one['asr_after']:.1f} ({100 * one['floor_after']:.1f})"
    before = f"{100 * figures(then)['asr_after']:.1f}" if then else ""
    rebound = f"{100 * one['rebound_asr_highest']:.1f}" if row.rebound else ""
    return [*told, asr, before, accuracy, f"{100 * one['pa_after']:.1f}", rebound, seconds]
