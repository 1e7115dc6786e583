"""Write what the truths of a zoo say to benchmarks/results/zoo_<recipe>.json.

    python benchmarks/zoo_results.py benchmarks/zoos/drawings.yaml zoo/
    python benchmarks/zoo_results.py benchmarks/zoos/drawings-quick.yaml zoo/ --workers 2

The zoo must be of that recipe; victims that are not there yet are counted. With `--workers`, for a zoo that so many
workers made in one go, the file also tells how long they took.
"""

import argparse
from datetime import datetime
from pathlib import Path

from results_file import write_result

from hf_invertune.errors import InputError
from hf_invertune.lab.zoo.build import Zoo
from hf_invertune.lab.zoo.recipe import Recipe
from hf_invertune.lab.zoo.victim import TOOK, Victim


def figures(victim: Victim) -> dict:
    truth = victim.truth
    keys = (
        "name",
        "role",
        "attack",
        "targets",
        "rate",
        "seed",
        "took",
        "parameters",
        "sha256",
        "data",
        "seconds",
        "base",
    )
    rates = {"attack_success_rates": truth.attack_success_rates, "target_rates": truth.target_rates}
    return {
        **{key: getattr(truth, key) for key in keys},
        "poisoned": len(truth.poisoned),
        "clean_accuracy": vars(truth.clean_accuracy),
        **{name: [vars(rate) for rate in values] for name, values in rates.items()},
    }


def made(victims: list[Victim]) -> dict:
    """The machine, the versions and the dates that the truths tell."""
    if not victims:
        raise InputError("`zoo`: it holds no finished victim.")
    first, dates = victims[0].truth, sorted({victim.truth.created[:10] for victim in victims})
    for victim in victims:
        if (victim.truth.machine, victim.truth.versions) != (first.machine, first.versions):
            raise InputError(f"`zoo`: {first.name} and {victim.truth.name} come from other machines or versions.")
    return {
        "date": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
        "machine": first.machine,
        "python": first.versions["python"],
        "versions": first.versions,
    }


def sources(ours: Recipe, zoo: Zoo) -> str:
    """The options of the command that named other pictures than the recipe, without the folder that they were in."""
    given = []
    for option, name in (("--train", "train"), ("--test", "test_source")):
        source: str | None = getattr(zoo.world, name, None)
        if source is not None and source != getattr(ours.world, name, None):
            given.append(f" {option} {Path(source).name if Path(source).expanduser().exists() else source}")
    return "".join(given)


def elapsed(folder: Path, victims: list[Victim]) -> float:
    """Seconds from the beginning of a zoo, when its recipe is written, to the end of its last victim."""
    end = max(datetime.fromisoformat(victim.truth.created) for victim in victims)
    return round(end.timestamp() - (folder / "recipe.json").stat().st_mtime, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--workers", type=int, help="how many made the zoo in one go")
    options = parser.parse_args()
    zoo = Zoo.open(options.zoo)
    recipe = Recipe.load(options.recipe)
    if recipe.digest() != zoo.digest:
        raise InputError(f"`zoo`: {options.zoo} was not made from {options.recipe}.")
    name = f"zoo_{options.recipe.stem.replace('-', '_')}"
    victims = [figures(victim) for victim in zoo.victims]
    facts = {
        **made(zoo.victims),
        "recipe": zoo.digest,
        "bar": TOOK,
        "planned": len(zoo.recipe.plans()),
        "victims": victims,
    }
    command = f"hf-invertune zoo benchmarks/zoos/{options.recipe.name} --output-dir zoo/{sources(recipe, zoo)}"
    if options.workers:
        facts["wall_seconds"] = elapsed(options.zoo, zoo.victims)
        command += f" --workers {options.workers}"
    write_result(name, command, facts)


if __name__ == "__main__":
    main()
