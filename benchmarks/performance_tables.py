"""Tables of docs/performance.md: inner loops against their limits, processes, and what whole commands take."""

from statistics import fmean
from typing import Any

from results_file import RESULTS, result, rows_of, sourced

from hf_invertune.utils.markdown import markdown_table


LOOPS = {
    "gather": "gather without labels",
    "race": "race of the labels",
    "invert": "inversion, full loss",
    "tune": "tuning",
}
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
BUDGETS = {"CleanCLIP": (250_000, 10, 2), "PAR": (250_000, 10, 1)}
"""Pairs, epochs and views of a picture, as published: arXiv 2412.20392 for CleanCLIP on ViT-B/32, arXiv 2412.00727."""


def loops() -> str:
    """Seconds and memory of a step, beside those of its bare passes, on each device that was measured."""
    parts = []
    for device, title in DEVICES.items():
        name = f"performance_{device}"
        if not (RESULTS / f"{name}.json").is_file():
            parts.append(f"**{title}**: not run. To run it, on a machine that has one: `make bench`.")
            continue
        columns = ["image tower", "loop", "pictures", "seconds", "bare passes", "ratio", "MiB", "bare passes", "ratio"]
        rows = [
            [shape, LOOPS[one["loop"]], one["pictures"], *figures(one)]
            for shape, measured in result(name)["shapes"].items()
            for one in measured
        ]
        parts.append(sourced(f"**{title}**\n\n{markdown_table(columns, rows)}", name))
    return "\n\n".join(parts)


def figures(one: dict[str, Any]) -> list[str]:
    memory = [f"{one[key] / 2**20:,.0f}" for key in ("memory", "memory_limit")]
    return [
        f"{one['seconds']:.3g}",
        f"{one['limit']:.3g}",
        f"{one['ratio']:.2f}",
        *memory,
        f"{one['memory'] / one['memory_limit']:.2f}",
    ]


def processes() -> str:
    """One process against two, each of one thread."""
    columns = ["work", "seed", "one: seconds", "two: seconds", "times as fast", "one finds", "two find"]
    rows = []
    for run in result("processes")["runs"]:
        one, two = run["one"], run["two"]
        faster = f"{one['seconds'] / two['seconds']:.2f}"
        seconds = [f"{side['seconds']:.1f}" for side in (one, two)]
        rows.append([run["what"], run["seed"], *seconds, faster, told(one), told(two)])
    return sourced(markdown_table(columns, rows), "processes")


def told(side: dict[str, Any]) -> str:
    if "verdict" in side:
        return f"{side['verdict']}: {side['target']}"
    return f"{side['target']}; CA {side['ca']:.1f}, ASR {side['asr']:.1f}"


def cost_line() -> str:
    """What a scan said that it would cost, and what it did."""
    facts = result("cost_line")
    said, was = facts["said"], facts["was"]
    learnt, minutes = (" to ".join(dict.fromkeys(f"{one:,.1f}" for one in said[key])) for key in ("learnt", "minutes"))
    rows = [
        ["pictures learnt on", learnt.replace(".0", ""), f"{was['learnt']:,}"],
        ["minutes", minutes, f"{was['minutes']:.1f}"],
        [
            "MiB, without the weights",
            f"{(said['memory'] - facts['weights']) / 2**20:,.0f}",
            f"{was['memory'] / 2**20:,.0f}",
        ],
    ]
    text = f"A ViT-B/32 of random weights with 1,000 names, few updates; the line said: *{facts['line']}*"
    return sourced(f"{text}\n\n{markdown_table(['', 'said', 'was'], rows)}", "cost_line")


def killed() -> str:
    """What came of removals that were killed and started again."""
    facts = result("killed")
    kills = [one for one in facts["kills"] if one["killed"]]
    equal = sum(one["equal"] for one in kills)
    stages = {
        "in the scan or before": lambda reached: "scan" not in reached,
        "in the inversion": lambda reached: "scan" in reached and "plan" not in reached,
        "in the tuning, before its first checkpoint": lambda reached: "plan" in reached and not checkpoints(reached),
        "later": lambda reached: bool(checkpoints(reached)),
    }
    where = ", ".join(f"{sum(map(test, (one['reached'] for one in kills)))} {title}" for title, test in stages.items())
    text = (
        f"A removal of {facts['undisturbed_seconds']:.0f} seconds got SIGKILL at {len(kills)} random moments ({where}), and the "
        f"same command once more: {equal} of {len(kills)} ended with the model, adapter, trigger and report of an undisturbed "
        "run, bit for bit but for times."
    )
    return sourced(text, "killed")


def checkpoints(reached: list[str]) -> list[str]:
    return [name for name in reached if "checkpoint-" in name]


def budgets() -> str:
    """Pictures that go through the image tower, ours by this version and the rivals' as they were published."""
    rows = []
    for path in sorted(RESULTS.glob("present_*.jsonl")):
        runs = [row for row in rows_of(path) if row.defence == "hf_invertune" and row.cost and not row.identical]
        forward, backward = (fmean(getattr(row.cost, name) for row in runs) for name in ("forward", "backward"))
        world = path.stem.removeprefix("present_")
        rows.append([f"hf_invertune, mean of {len(runs)} removals, {world}", f"{forward:,.0f}", f"{backward:,.0f}"])
    for name, (pairs, epochs, views) in BUDGETS.items():
        passes = f"{pairs * epochs * views:,}"
        rows.append([f"{name}, {pairs:,} pairs, {epochs} epochs, as published", passes, passes])
    return markdown_table(["defence", "pictures forward", "of them back"], rows)
