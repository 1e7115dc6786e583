"""Fill the tables of the README and the docs, between their markers, from the result files.

python benchmarks/tables.py
"""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from arena_summary import arena_summary
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
from results_file import RESULTS, percent, result, source


ROOT = Path(__file__).parent.parent


def in_percent(rate: dict) -> float:
    return 100 * rate["hits"] / rate["count"]


def demo() -> str:
    facts = result("demo_seeds")
    lines = [
        "| model | seed | verdict | target | ASR before | ASR after | CA before | CA after | weights |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in facts["runs"]:
        rates = [percent(run[key]) for key in ("asr_before", "asr_after", "ca_before", "ca_after")]
        weights = "bit-identical" if run["identical"] else run["outcome"]
        target = run["target"] or "none"
        lines.append(
            f"| {run['victim']} | {run['seed']} | {run['verdict']} | {target} | {' | '.join(rates)} | {weights} |"
        )
    return "\n".join([*lines, "", source(facts, "demo_seeds")])


def cifar10() -> str:
    facts = result("cifar10")
    before = facts["before"]
    asr, ca = before["attack_success_rate"]["value"], before["clean_accuracy"]["value"]
    lines = [
        "| seed | verdict | target | ASR before | ASR after | floor | CA before | CA after | outcome |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in facts["runs"]:
        after = run["after"]
        lines.append(
            f"| {run['seed']} | {run['verdict']} | {run['target']} | {percent(asr)} | "
            f"{percent(after['attack_success_rate']['value'])} | {percent(after['target_rate']['value'])} | "
            f"{percent(ca)} | {percent(after['clean_accuracy']['value'])} | {run['outcome']} |"
        )
    return "\n".join([*lines, "", source(facts, "cifar10")])


def victims() -> str:
    facts = result("demo_victims")
    lines = ["| model | CA | ASR | read as the target without a trigger | seconds to train |", "|---|---|---|---|---|"]
    for name, figures in facts["models"].items():
        rates = [percent(figures[key]) for key in ("clean_accuracy", "attack_success_rate", "target_rate")]
        lines.append(f"| {name} | {' | '.join(rates)} | {figures['seconds']:.0f} |")
    together = f"Both, side by side: {facts['wall_seconds']:.0f} s."
    return "\n".join([*lines, "", together, "", source(facts, "demo_victims")])


def timings() -> str:
    facts = result("timings")
    lines = ["| command | wall seconds, each run |", "|---|---|"]
    for command, runs in facts["wall_seconds"].items():
        lines.append(f"| `hf-invertune {command}` | {', '.join(f'{run:.1f}' for run in runs)} |")
    return "\n".join([*lines, "", source(facts, "timings")])


def mask_shapes() -> str:
    facts = result("mask_shapes")
    lines = ["| what is stamped on the pictures | ASR |", "|---|---|"]
    lines += [f"| {what} | {percent(rate)} |" for what, rate in facts["attack_success_rate"].items()]
    return "\n".join([*lines, "", source(facts, "mask_shapes")])


ZOOS = {"drawings": "Drawings", "cifar10": "CIFAR-10", "tiny-imagenet": "100 classes of Tiny ImageNet"}
"""The recipes in benchmarks/zoos whose arenas have a place in the documents."""


def arena_files() -> dict[str, Path]:
    """The arenas that were run, by zoo."""
    paths = {zoo: RESULTS / f"arena_{zoo}.jsonl" for zoo in ZOOS}
    return {zoo: path for zoo, path in paths.items() if path.is_file()}


def arena_commands(zoo: str) -> tuple[str, str, str]:
    """What makes a zoo, searches the learning rates on it, and lets the defences meet it."""
    files = " --train train.parquet --test val.parquet" if zoo == "tiny-imagenet" else ""  # the others' are on the Hub
    return (
        f"hf-invertune zoo benchmarks/zoos/{zoo}.yaml --output-dir zoo/{zoo}{files}",
        f"python benchmarks/search_learning_rates.py zoo/{zoo}",
        f"hf-invertune arena zoo/{zoo} --output benchmarks/results/arena_{zoo}.jsonl "
        f"--learning-rates benchmarks/results/learning_rates_{zoo}.json",
    )


def planned_victims(zoo: str) -> list[str]:
    """The victims that a table of that zoo shows when all have been met."""
    from hf_invertune.lab.zoo.recipe import Recipe

    plans = Recipe.load(ROOT / "benchmarks" / "zoos" / f"{zoo}.yaml").plans()
    return [plan.name for plan in plans if plan.role == "table"]


def arena_command(zoo: str, rows: list, planned: list[str], met: list[str]) -> str:
    """What made these rows."""
    _, _, command = arena_commands(zoo)
    command += " --rebound" * any(row.rebound for row in rows)
    for name in ("seed", "images", "test_images"):
        values = sorted({getattr(row, name) for row in rows})
        command += f" --{name.replace('seed', 'seeds').replace('_', '-')} {','.join(map(str, values))}"
    return command if met == planned else f"{command} --victims {','.join(met)}"


def arena(*wanted: str) -> str:
    """These tables of every arena, and for those that were not run how to run them."""
    files, parts = arena_files(), []
    for zoo, title in ZOOS.items():
        if zoo not in files:
            commands = "\n".join(arena_commands(zoo)) + " --rebound"
            parts.append(f"**{title}**: not run. To run it:\n\n```bash\n{commands}\n```")
            continue
        from hf_invertune.lab.arena import compare
        from hf_invertune.lab.arena.rows import read_rows

        rows = read_rows([files[zoo]])
        names = compare.defence_names(rows)
        grids = [getattr(compare, name)(rows, names) for name in wanted]
        parts += [f"**{title}: {grid.title.partition(': ')[2]}**\n\n{grid.markdown()}" for grid in grids if grid.rows]
        dates = sorted({row.created[:10] for row in rows})
        places = sorted({f"{row.machine['cores']} {row.machine['processor']} cores" for row in rows})
        versions = sorted({f"torch {row.versions['torch']}" for row in rows})
        planned = planned_victims(zoo)
        met = [name for name in planned if name in {row.victim for row in rows}]
        if met != planned:
            kinds = [dict.fromkeys(name.rpartition("-")[0] for name in names) for names in (planned, met)]
            rest = ", ".join(kind for kind in kinds[0] if kind not in kinds[1]) or "none"
            parts.append(
                f"{len(met)} of {len(planned)} models have met the defences so far; attacks without one: {rest}."
            )
        parts.append(
            f"`{arena_command(zoo, rows, planned, met)}`, {' to '.join(sorted({dates[0], dates[-1]}))}, "
            f"{', '.join(places + versions)}, {len(rows)} runs: "
            f"[{files[zoo].name}](../benchmarks/results/{files[zoo].name})."
        )
    return "\n\n".join(parts)


def headline() -> str:
    return arena("attack_table", "clean_table")


def arena_details() -> str:
    return arena("summary_table", "cost_table")


def learning_rates() -> str:
    """What each rate of the grid did to the validation victims, on average; the one that the arena runs with is bold."""
    parts = []
    for zoo, title in ZOOS.items():
        name = f"learning_rates_{zoo}"
        if not (RESULTS / f"{name}.json").is_file():
            continue
        facts = result(name)
        searches = facts["searches"].values()
        rates = sorted({trial["learning_rate"] for search in searches for trial in search["trials"]})
        lines = [
            f"**{title}**",
            "",
            f"| rival | {' | '.join(f'{rate:g}' for rate in rates)} |",
            "|---" * (len(rates) + 1) + "|",
        ]
        for search in searches:
            cells = []
            for rate in rates:
                trials = [trial for trial in search["trials"] if trial["learning_rate"] == rate]
                cell = "not finite" if any(trial["unusable"] for trial in trials) else mean_effect(trials)
                cells.append(f"**{cell}**" if rate == search["learning_rate"] else cell)
            lines.append(f"| {search['defence']} | {' | '.join(cells)} |")
        parts.append("\n".join([*lines, "", source(facts, name)]))
    return "\n\n".join(parts)


def mean_effect(trials: list[dict]) -> str:
    """ASR, of several triggers the strongest, and change of CA, averaged over the victims, in per cent."""
    asr = fmean(max(map(in_percent, trial["attack_success_rates"])) for trial in trials)
    change = fmean(in_percent(trial["accuracy_after"]) - in_percent(trial["accuracy_before"]) for trial in trials)
    return f"{asr:.1f} / {change:+.1f}".replace("-", "−")


def zoos() -> str:
    """The victims of every zoo, one line an attack, and for those that were not made how to make them."""
    parts = []
    for zoo, title in {**ZOOS, "drawings-quick": "Drawings, the quick check"}.items():
        name = f"zoo_{zoo.replace('-', '_')}"
        if not (RESULTS / f"{name}.json").is_file():
            parts.append(f"**{title}**: not run. To run it:\n\n```bash\n{arena_commands(zoo)[0]}\n```")
            continue
        facts = result(name)
        shown = [victim for victim in facts["victims"] if victim["role"] == "table"]
        lines = [
            f"**{title}**",
            "",
            "| attack | rate | victims | took | CA | ASR | floor |",
            "|---|---|---|---|---|---|---|",
        ]
        took = {}
        named: dict[str, list[dict]] = {}
        for victim in shown:
            named.setdefault(victim["name"].rpartition("-")[0] if victim["attack"] else "", []).append(victim)
        for attack, own in sorted(named.items(), key=lambda item: (not item[0], item[0])):
            rate = f"{own[0]['rate']:g}" if own[0]["poisoned"] else ""
            if attack:
                took[attack] = [v["took"] for v in own]
            cells = [
                attack or "none",
                rate,
                str(len(own)),
                str(sum(took[attack])) if attack else "",
                span([v["clean_accuracy"] for v in own]),
            ]
            cells += [span([r for v in own for r in v[key]]) for key in ("attack_success_rates", "target_rates")]
            lines.append(f"| {' | '.join(cells)} |")
        victims, attacks = [one for own in took.values() for one in own], took.values()
        share = (
            f"{sum(victims)} of {len(victims)} victims took; of {len(attacks)} attacks {sum(map(all, attacks))} on all of "
            f"their victims and {sum(map(any, attacks))} on one at least."
        )
        if len(facts["victims"]) < facts["planned"]:
            share += f" {len(facts['victims'])} of {facts['planned']} models are made so far."
        if "wall_seconds" in facts:
            share += f" Made in one go in {facts['wall_seconds'] / 60:.1f} minutes."
        parts.append("\n".join([*lines, "", share, "", source(facts, name)]))
    return "\n\n".join(parts)


def span(rates: list[dict]) -> str:
    """The lowest and the highest of some rates, in per cent."""
    values = sorted(rate["hits"] / rate["count"] for rate in rates)
    return " to ".join(dict.fromkeys((percent(values[0]), percent(values[-1])))) if values else ""


def exit_codes() -> str:
    """How the command line ends."""
    from hf_invertune.errors import ExitCode

    rows = [f"| {int(code)} | {code.meaning} |" for code in ExitCode]
    return "\n".join(["| code | what it says |", "|---|---|", *rows])


def rules() -> str:
    """What findings are reported under."""
    from hf_invertune.answers.rules import RULES

    lines = ["| id | name | meaning | evidence | what to do | exit code |", "|---|---|---|---|---|---|"]
    for rule in RULES:
        cells = [rule.id, rule.name, rule.meaning, rule.evidence, rule.remedy, ", ".join(map(str, rule.exit_codes))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def structure() -> str:
    """The package before it was laid out in rooms, and now."""
    facts = result("structure")
    before, now = facts["before"], facts["now"]
    rows = {
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
    lines = [f"| | before ({before['commit']}) | now |", "|---|---|---|"]
    for title, key in rows.items():
        if key == "lines_of_the_lab":  # it was no room of its own
            lines.append(f"| {title} | in no place of its own | {now[key]:,} |")
        elif key in now:
            old, new = (f"{len(v) if isinstance(v, list) else v:,}" for v in (before[key], now[key]))
            lines.append(f"| {title} | {old} | {new} |")
    return "\n".join([*lines, "", source(facts, "structure")])


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
    lines = [
        "| class | embeddings | image tower alone changed | saved, loaded equal | pushed, pulled equal | adapter | card |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in facts["families"]:
        held = [row[key] for key in ("only_the_image_tower_changed", "saved_and_loaded_equal", "pulled_equal")]
        gaps = [max(row["embeddings"], row["merged_embeddings"]), row["adapter"], row["cards_run"]]
        first, *others = (f"{gap:.0e}" if gap else "0" for gap in gaps)
        cells = [row["class"], first, *("yes" if one else "**no**" for one in held)]
        lines.append(f"| {' | '.join([*cells, *others])} |")
    return "\n".join([*lines, "", source(facts, "model_families")])


def settings() -> str:
    """Every setting of a removal, from the fields that declare them."""
    from hf_invertune.stages.configs import RemovalConfig

    rows = [
        f"| `{name}` | {default} | {allowed} | {help} |" for name, default, allowed, help in described(RemovalConfig())
    ]
    return "\n".join(["| setting | default | range | what it is |", "|---|---|---|---|", *rows])


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
    "docs/results.md": {"arena": headline, "victims": victims, "demo": demo, "cifar10": cifar10, "timings": timings},
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
