"""Tables of zoos and arenas: victims, defences on them, the rivals' learning rates, and the one table of the README."""

from pathlib import Path
from statistics import fmean

from results_file import RESULTS, percent, result, rows_of, sourced

from hf_invertune.lab.arena import compare
from hf_invertune.lab.zoo.recipe import Recipe
from hf_invertune.utils.markdown import markdown_table


ROOT = Path(__file__).parent.parent
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
        rows = rows_of(files[zoo])
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
        rows = []
        for search in searches:
            cells = []
            for rate in rates:
                trials = [trial for trial in search["trials"] if trial["learning_rate"] == rate]
                cell = "not finite" if any(trial["unusable"] for trial in trials) else mean_effect(trials)
                cells.append(f"**{cell}**" if rate == search["learning_rate"] else cell)
            rows.append([search["defence"], *cells])
        table = markdown_table(["rival", *(f"{rate:g}" for rate in rates)], rows)
        parts.append(sourced(f"**{title}**\n\n{table}", name))
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
        rows, took = [], {}
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
            rows.append(cells)
        victims, attacks = [one for own in took.values() for one in own], took.values()
        share = (
            f"{sum(victims)} of {len(victims)} victims took; of {len(attacks)} attacks {sum(map(all, attacks))} on all of "
            f"their victims and {sum(map(any, attacks))} on one at least."
        )
        if len(facts["victims"]) < facts["planned"]:
            share += f" {len(facts['victims'])} of {facts['planned']} models are made so far."
        if "wall_seconds" in facts:
            share += f" Made in one go in {facts['wall_seconds'] / 60:.1f} minutes."
        table = markdown_table(["attack", "rate", "victims", "took", "CA", "ASR", "floor"], rows)
        parts.append(sourced(f"**{title}**\n\n{table}\n\n{share}", name))
    return "\n\n".join(parts)


def span(rates: list[dict]) -> str:
    """The lowest and the highest of some rates, in per cent."""
    values = sorted(rate["hits"] / rate["count"] for rate in rates)
    return " to ".join(dict.fromkeys((percent(values[0]), percent(values[-1])))) if values else ""


def in_percent(rate: dict) -> float:
    return 100 * rate["hits"] / rate["count"]
