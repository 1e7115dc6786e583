"""Fill the tables of the README and the docs, between their markers, from the result files.

python benchmarks/tables.py
"""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from arena_tables import ROOT, arena_details, headline, learning_rates, zoos
from development_tables import (
    calibration,
    detection,
    label_counts,
    other_families,
    public_models,
    removals,
    text_keys,
    trusted,
)
from performance_tables import budgets, cost_line, killed, loops, processes
from results_file import RESULTS, percent, result, sourced
from summary_tables import arena_summary, present

from hf_invertune.utils.markdown import markdown_table


def demo() -> str:
    facts = result("demo_seeds")
    columns = ["model", "seed", "verdict", "target", "ASR before", "ASR after", "CA before", "CA after", "weights"]
    rows = []
    for run in facts["runs"]:
        rates = [percent(run[key]) for key in ("asr_before", "asr_after", "ca_before", "ca_after")]
        weights = "bit-identical" if run["identical"] else run["outcome"]
        rows.append([run["victim"], run["seed"], run["verdict"], run["target"] or "none", *rates, weights])
    return sourced(markdown_table(columns, rows), "demo_seeds")


def cifar10() -> str:
    facts = result("cifar10")
    before = facts["before"]
    asr, ca = before["attack_success_rate"]["value"], before["clean_accuracy"]["value"]
    columns = ["seed", "verdict", "target", "ASR before", "ASR after", "floor", "CA before", "CA after", "outcome"]
    rows = []
    for run in facts["runs"]:
        after = {name: percent(rate["value"]) for name, rate in run["after"].items() if rate}
        rates = [
            percent(asr),
            after["attack_success_rate"],
            after["target_rate"],
            percent(ca),
            after["clean_accuracy"],
        ]
        rows.append([run["seed"], run["verdict"], run["target"], *rates, run["outcome"]])
    return sourced(markdown_table(columns, rows), "cifar10")


def victims() -> str:
    facts = result("demo_victims")
    columns = ["model", "CA", "ASR", "read as the target without a trigger", "seconds to train"]
    rows = []
    for name, figures in facts["models"].items():
        rates = [percent(figures[key]) for key in ("clean_accuracy", "attack_success_rate", "target_rate")]
        rows.append([name, *rates, f"{figures['seconds']:.0f}"])
    together = f"Both, side by side: {facts['wall_seconds']:.0f} s."
    return sourced(f"{markdown_table(columns, rows)}\n\n{together}", "demo_victims")


def timings() -> str:
    facts = result("timings")
    named = {"import": "`import hf_invertune`, after torch and transformers"}
    rows = [
        [named.get(command, f"`hf-invertune {command}`"), ", ".join(f"{run:.2g}" for run in runs)]
        for command, runs in facts["wall_seconds"].items()
    ]
    return sourced(markdown_table(["command", "wall seconds, each run"], rows), "timings")


def mask_shapes() -> str:
    facts = result("mask_shapes")
    rows = [[what, percent(rate)] for what, rate in facts["attack_success_rate"].items()]
    return sourced(markdown_table(["what is stamped on the pictures", "ASR"], rows), "mask_shapes")


def exit_codes() -> str:
    """How the command line ends."""
    from hf_invertune.errors import ExitCode

    return markdown_table(["code", "what it says"], [[int(code), code.meaning] for code in ExitCode])


def rules() -> str:
    """What findings are reported under."""
    from hf_invertune.answers.rules import RULES

    rows = [
        [rule.id, rule.name, rule.meaning, rule.evidence, rule.remedy, ", ".join(map(str, rule.exit_codes))]
        for rule in RULES
    ]
    return markdown_table(["id", "name", "meaning", "evidence", "what to do", "exit code"], rows)


def structure() -> str:
    """The package before it was laid out in rooms, and now."""
    facts = result("structure")
    before, now = facts["before"], facts["now"]
    titles = {
        "files": "files",
        "rooms: folders and single files at the top": "rooms",
        "arrows: pairs of rooms of which one imports from the other": "arrows_between_rooms",
        "arrows that run up, in the order of rooms that leaves the fewest": "arrows_up",
        "circles of files": "circles",
        "files over 400 lines": "files_over_400_lines",
        "lines of the longest file": "longest_file",
        "lines of the package": "lines",
        "lines of the method: `stages/`, loss and loop of the tuning": "lines_of_the_method",
        "lines of the lab": "lines_of_the_lab",
    }
    rows = []
    for title, key in titles.items():
        if key == "lines_of_the_lab":  # it was no room of its own
            rows.append([title, "in no place of its own", f"{now[key]:,}"])
        elif key in now:
            rows.append([title, *(f"{len(v) if isinstance(v, list) else v:,}" for v in (before[key], now[key]))])
    return sourced(markdown_table(["", f"before ({before['commit']})", "now"], rows), "structure")


def redesign() -> str:
    """Whether the rebuilt tree gives the figures of the one before it, row by row."""
    before, after = (
        {row["victim"]: row for row in map(json.loads, (RESULTS / f"redesign_{when}.jsonl").read_text().splitlines())}
        for when in ("before", "after")
    )
    told = ("status", "before", "after", "verdict", "target")
    equal = [name for name, row in before.items() if all(row[key] == after[name][key] for key in told)]
    victims = ",".join(before)
    command = f"hf-invertune arena zoo/drawings-dev --defences hf_invertune --victims {victims}"
    return (
        f"The rebuilt code against the code before it: verdict, target and every count before and after the removal are "
        f"equal on {len(equal)} of {len(before)} victims for development ({', '.join(before)}): `{command}`, once at each "
        f"commit: [redesign_before.jsonl](../benchmarks/results/redesign_before.jsonl), "
        f"[redesign_after.jsonl](../benchmarks/results/redesign_after.jsonl)."
    )


def model_families() -> str:
    """What was tried on a tiny model of each family."""
    facts = result("model_families")
    columns = ["class", "embeddings", "image tower alone changed", "saved, loaded equal", "pushed, pulled equal"]
    rows = []
    for row in facts["families"]:
        held = [row[key] for key in ("only_the_image_tower_changed", "saved_and_loaded_equal", "pulled_equal")]
        gaps = [max(row["embeddings"], row["merged_embeddings"]), row["adapter"], row["cards_run"]]
        first, *others = (f"{gap:.0e}" if gap else "0" for gap in gaps)
        cells = [row["class"], first, *("yes" if one else "**no**" for one in held)]
        rows.append([*cells, *others])
    return sourced(markdown_table([*columns, "adapter", "card"], rows), "model_families")


def settings() -> str:
    """Every setting of a removal, from the fields that declare them."""
    from hf_invertune.stages.configs import RemovalConfig

    rows = [[f"`{name}`", *told] for name, *told in described(RemovalConfig())]
    return markdown_table(["setting", "default", "range", "what it is"], rows)


def described(config: Any, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Name, default, range and help of each field of settings, and of those of their parts."""
    for item in fields(config):
        name, value = f"{path}{item.name}", getattr(config, item.name)
        if is_dataclass(value):
            yield from described(value, f"{name}.")
            continue
        parts = value
        if isinstance(value, tuple):  # of families, each by its kind
            parts = {getattr(part, "kind", ""): part for part in value}
        held = isinstance(parts, dict) and all(map(is_dataclass, parts.values()))
        default = f"[{', '.join(parts)}]" if held else shown(value)
        yield name, f"`{default}`", span_of(config.ranges.get(item.name, {})), item.metadata["help"]
        for kind, part in parts.items() if held else ():
            yield from described(part, f"{name}.{kind}.")


def shown(value: Any) -> str:
    """A setting's value as YAML has it; fractions with four digits."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    return {None: "null"}.get(value, f"{value:.4g}" if isinstance(value, float) else str(value))


def span_of(bounds: dict[str, float]) -> str:
    """A setting's range in signs; a bound of 1e12 is there to keep out what is not finite."""
    signs = {"least": "≥", "above": ">", "most": "≤", "below": "<"}
    held = [f"{signs[name]} {bound:.10g}" for name, bound in bounds.items() if abs(bound) < 1e12]
    return ", ".join(held).replace("-", "−")


TABLES = {
    "README.md": {"arena_summary": arena_summary},
    "docs/command-line.md": {"exit_codes": exit_codes},
    "docs/results.md": {"present": present, "arena": headline, "victims": victims, "demo": demo, "cifar10": cifar10},
    "docs/performance.md": {
        "cost_line": cost_line,
        "budgets": budgets,
        "loops": loops,
        "processes": processes,
        "killed": killed,
        "timings": timings,
    },
    "docs/architecture.md": {"structure": structure, "redesign": redesign},
    "docs/configuration.md": {"settings": settings},
    "docs/calibration.md": {"calibration": calibration, "public_models": public_models},
    "docs/method.md": {
        "detection": detection,
        "removals": removals,
        "label_counts": label_counts,
        "text_keys": text_keys,
        "trusted": trusted,
    },
    "docs/rules.md": {"rules": rules},
    "docs/report.md": {"mask_shapes": mask_shapes},
    "docs/models.md": {"model_families": model_families, "other_families": other_families},
    "docs/zoo.md": {"zoos": zoos},
    "docs/arena.md": {"arena_details": arena_details},
    "docs/baselines.md": {"learning_rates": learning_rates},
}


def filled(document: str) -> str:
    """The text of `document` with each table between its markers."""
    text = (ROOT / document).read_text()
    for name, table in TABLES[document].items():
        begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{table()}\n{end}{rest.split(end)[1]}"
    return text


def stale() -> list[str]:
    """The documents that say something else than the result files."""
    return [document for document in TABLES if filled(document) != (ROOT / document).read_text()]


if __name__ == "__main__":
    for document in stale():
        (ROOT / document).write_text(filled(document))
