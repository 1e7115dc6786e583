"""`hf-invertune zoo`: makes the victims of a recipe. Nothing heavy is imported up here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..utils.tables import make_table
from .console import print_result, quietly
from .options import AsJson, Verbose, Workers, option


if TYPE_CHECKING:
    from ..lab.zoo.victim import Victim


COLUMNS = ["victim", "role", "target", "rate", "CA", "ASR", "floor", "took"]


def zoo(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see docs/zoo.md.")],
    output_dir: Annotated[Path, option("Folder of the victims; a second call goes on where the first stopped.")],
    workers: Workers = 1,
    only: Annotated[str | None, option("Names of attacks, with commas between them, or clean.")] = None,
    train: Annotated[str | None, option("The training pictures, in place of those the recipe names.")] = None,
    test: Annotated[str | None, option("The test pictures, likewise.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make victims by a recipe: pre-train clean models, attack each, measure."""
    with quietly(verbose):
        from ..lab.zoo.build import build_zoo
        from ..lab.zoo.recipe import Recipe

        names = [name.strip() for name in only.split(",")] if only else []
        zoo = build_zoo(Recipe.load(recipe, train=train, test=test), output_dir, only=names, workers=workers)
        victims = zoo.victims
    value = {"zoo": str(output_dir), "recipe": zoo.digest, "victims": [_value(victim) for victim in victims]}
    table = make_table(str(output_dir), COLUMNS, [_row(victim) for victim in victims])
    attacked = [victim.truth for victim in victims if victim.truth.attack]
    took = f"{sum(truth.took for truth in attacked)} of {len(attacked)} attacks took"
    print_result(value, as_json, table, f"{took}; {len(victims)} of {len(zoo.recipe.plans())} models are there")


def _value(victim: "Victim") -> dict[str, Any]:
    truth = victim.truth
    keys = ("name", "role", "attack", "targets", "rate", "seed", "took", "sha256", "seconds")
    return {
        **{key: getattr(truth, key) for key in keys},
        "poisoned": len(truth.poisoned),
        "clean_accuracy": truth.clean_accuracy.value,
        "attack_success_rates": [rate.value for rate in truth.attack_success_rates],
        "target_rates": [rate.value for rate in truth.target_rates],
    }


def _row(victim: "Victim") -> list[str]:
    truth = victim.truth
    took = {True: "yes", False: "no"}[truth.took] if truth.attack else ""
    rates = [
        ", ".join(f"{100 * r.value:.1f}" for r in rates) for rates in (truth.attack_success_rates, truth.target_rates)
    ]
    led = [", ".join(truth.targets), f"{truth.rate:g}" if truth.poisoned else ""]
    return [truth.name, truth.role, *led, f"{100 * truth.clean_accuracy.value:.1f}", *rates, took]
