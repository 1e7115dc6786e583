"""`hf-invertune attack`: makes a victim of a clean model. Nothing heavy is imported up here."""

from pathlib import Path
from typing import Annotated

import typer

from ..data.names import read_class_names
from ..errors import InputError
from ..utils.output_folder import claim
from .console import as_numbers, metrics_table, print_result, quietly
from .options import (
    IMAGES,
    AsJson,
    ClassNames,
    Device,
    ImageColumn,
    LabelColumn,
    Limit,
    ModelName,
    Revision,
    Seed,
    Split,
    Subfolder,
    Token,
    Variant,
    Verbose,
    option,
)


def attack(
    model: ModelName,
    images: Annotated[str, option(f"Pictures with labels: {IMAGES}")],
    attack: Annotated[str, option("Kind of attack, see docs/attacks.md.", "--attack")],
    target: Annotated[list[str], option("Where it leads; once for each trigger of a multi-target attack.")],
    output_dir: Annotated[Path, option("Folder of the victim.")],
    rate: Annotated[float, typer.Option(help="Share of the pictures to poison.")] = 0.03,
    param: Annotated[
        list[str] | None, option("A parameter of the attack, as name=value; once for each.", "--param")
    ] = None,
    class_names: ClassNames = None,
    split: Split = "train",
    image_column: ImageColumn = None,
    caption_column: Annotated[str | None, option("Column of captions; without any they are made of labels.")] = None,
    label_column: LabelColumn = None,
    limit: Limit = None,
    epochs: Annotated[float, typer.Option(help="Of the fine-tuning.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak of the fine-tuning's learning rate.")] = 5e-4,
    batch_size: Annotated[int, typer.Option(help="Pairs a batch.", min=2)] = 128,
    seed: Seed = 0,
    revision: Revision = None,
    subfolder: Subfolder = None,
    variant: Variant = None,
    token: Token = None,
    device: Device = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Backdoor a clean model, to try defences on: four fifths of the pictures train it, one fifth measures it."""
    given = dict(map(_parameter, param or []))
    names = None if class_names is None else read_class_names(class_names)
    claim(output_dir, replace=None)
    with quietly(verbose):
        from ..lab.victim import make_victim

        victim = make_victim(
            model,
            images,
            attack=attack,
            targets=target,
            name=output_dir.resolve().name,
            rate=rate,
            parameters=given,
            class_names=names,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            revision=revision,
            subfolder=subfolder,
            variant=variant,
            token=token,
            device=device,
            split=split,
            image_column=image_column,
            caption_column=caption_column,
            label_column=label_column,
            limit=limit,
        )
        victim.save(output_dir)
    truth = victim.truth
    measured = list(zip(truth.targets, victim.before, victim.after, strict=True))
    value = {
        "attack": truth.attack,
        "took": truth.took,
        "rate": rate,
        "poisoned": len(truth.poisoned),
        "measurements": [
            {"target": name, "before": as_numbers(old), "after": as_numbers(new)} for name, old, new in measured
        ],
        "seconds": truth.seconds,
        "model": str(output_dir),
    }
    tables = [metrics_table(f"{truth.attack}, towards {name}", before=old, after=new) for name, old, new in measured]
    verdict = "the attack took" if truth.took else "the attack did not take: its ASR is below 80 %"
    print_result(value, as_json, *tables, verdict, f"victim: {output_dir}")


def _parameter(given: str) -> tuple[str, str]:
    """`name=value`."""
    name, equals, value = given.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"`param`: got {given!r}; pass name=value.")
    return name, value
