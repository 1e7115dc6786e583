"""`hf-invertune attack`: makes a victim of a clean model. Nothing heavy is imported up here."""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.prompts import read_class_names
from ..errors import InputError
from ..utils.output_folder import claim, fill
from .console import as_numbers, metrics_table, print_result, quietly


def _option(help: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, show_default=False, **settings)


def attack(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A clean CLIP model: a folder or a Hub id.")],
    images: Annotated[str, _option("Pictures with labels: a folder, a .parquet file or the id of a Hub dataset.")],
    attack: Annotated[str, _option("Kind of attack, see docs/attacks.md.", "--attack")],
    target: Annotated[list[str], _option("Where it leads; once for each trigger of a multi-target attack.")],
    output_dir: Annotated[Path, _option("Folder of the victim.")],
    rate: Annotated[float, typer.Option(help="Share of the pictures to poison.")] = 0.03,
    param: Annotated[
        list[str] | None, _option("A parameter of the attack, as name=value; once for each.", "--param")
    ] = None,
    class_names: Annotated[
        str | None, _option("'a,b,c', a .txt file (one a line) or a .json list; by default those of the images.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a Hub dataset.")] = "train",
    image_column: Annotated[str | None, _option("Column of the images.")] = None,
    caption_column: Annotated[str | None, _option("Column of captions; without any they are made of labels.")] = None,
    label_column: Annotated[str | None, _option("Column of the labels.")] = None,
    limit: Annotated[int | None, _option("Take at most so many images.", min=1)] = None,
    epochs: Annotated[float, typer.Option(help="Of the fine-tuning.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak of the fine-tuning's learning rate.")] = 5e-4,
    batch_size: Annotated[int, typer.Option(help="Pairs a batch.", min=2)] = 128,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**32 - 1)] = 0,
    revision: Annotated[str | None, _option("Branch, tag or commit of a model on the Hub.")] = None,
    token: Annotated[str | None, _option("Access token of the Hub.", envvar="HF_TOKEN")] = None,
    device: Annotated[str | None, _option("By default an accelerator where there is one, else the CPU.")] = None,
    as_json: Annotated[bool, _option("Print one JSON object instead of tables.", "--json")] = False,
    verbose: Annotated[bool, _option("Let the libraries talk, on stderr.", "--verbose", "-v")] = False,
) -> None:
    """Backdoor a clean model, to try defences on: four fifths of the pictures train it, one fifth measures it."""
    given = dict(map(_parameter, param or []))
    names = None if class_names is None else read_class_names(class_names)
    if not 0 < rate <= 1:
        raise InputError(f"`rate`: got {rate}; it is the share of the pictures to poison, above 0 and at most 1.")
    claim(output_dir, replace=None)
    with quietly(verbose):
        from ..lab.attacks.catalog import make_attack, read_parameters
        from ..lab.attacks.inject import inject
        from ..lab.attacks.measure import measure_attack
        from ..lab.attacks.pairs import load_pairs
        from ..lab.attacks.poisoning import check_targets, counts_of
        from ..lab.zoo.recipe import Training
        from ..lab.zoo.victim import Truth
        from ..models.clip import DualEncoder
        from ..models.evaluation import measured
        from ..models.loading import load_clip, save_clip, state_digest

        parameters = read_parameters(attack, given)
        training = Training(epochs, learning_rate, batch_size)
        begin = time.perf_counter()
        clip = load_clip(model, revision=revision, token=token, device=device)
        encoder = DualEncoder(clip.model, clip.processor)
        made = make_attack(attack, image_size=encoder.image_size, targets=target, seed=seed, **parameters)
        pairs, names = load_pairs(
            images,
            clip.processor,
            class_names=names,
            split=split,
            image_column=image_column,
            caption_column=caption_column,
            label_column=label_column,
            limit=limit,
            seed=seed,
            token=token,
        )
        train, test = pairs.split(0.8, seed)
        check_targets(made, names)
        counts_of(made, rate, len(train))
        if batch_size > len(train):
            raise InputError(f"`batch_size`: got {batch_size}, and {len(train)} pictures are trained on; pass less.")
        before = measure_attack(encoder, test, names, made)
        poisoned = inject(
            clip,
            train,
            made,
            rate=rate,
            seed=seed,
            **asdict(training),
            class_names=names,
        )
        after = measure_attack(encoder, test, names, poisoned.attack)
        clip.model.config.use_cache = None  # the Trainer's, and not for a file
        settings = {"model": clip.name, **asdict(training)}
        truth = Truth(
            name=output_dir.resolve().name,
            world=Path(images).name,
            role="table",
            attack=made.kind,
            targets=made.targets,
            open_target=made.open_target,
            class_names=list(names),
            rate=rate,
            poisoned=poisoned.indices,
            decoys=poisoned.decoys,
            seed=seed,
            parameters=made.parameters,
            recipe=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            data={"poisoning": train.digest(), "test": test.digest()},
            sha256=state_digest(clip.model, clip.dtype),
            clean_accuracy=measured(after[0].clean_accuracy),
            attack_success_rates=[measured(metrics.attack_success_rate) for metrics in after],
            target_rates=[measured(metrics.target_rate) for metrics in after],
            seconds=round(time.perf_counter() - begin, 1),
        )

        def save(folder: Path) -> None:
            save_clip(clip.model, clip.processor, clip.dtype, folder)
            poisoned.attack.save(folder)
            several = len(poisoned.attack.triggers) > 1
            for number, trigger in enumerate(poisoned.attack.triggers):
                trigger.save(folder / (f"trigger-{number}.safetensors" if several else "trigger.safetensors"))
            truth.save(folder)

        fill(output_dir, save, last="truth.json")
    value = {
        "attack": made.kind,
        "took": truth.took,
        "rate": rate,
        "poisoned": len(poisoned.indices),
        "measurements": [
            {"target": name, "before": as_numbers(old), "after": as_numbers(new)}
            for name, old, new in zip(made.targets, before, after, strict=True)
        ],
        "seconds": truth.seconds,
        "model": str(output_dir),
    }
    tables = [
        metrics_table(f"{made.kind}, towards {name}", before=old, after=new)
        for name, old, new in zip(made.targets, before, after, strict=True)
    ]
    verdict = "the attack took" if truth.took else "the attack did not take: its ASR is below 80 %"
    print_result(value, as_json, *tables, verdict, f"victim: {output_dir}")


def _parameter(given: str) -> tuple[str, str]:
    """`name=value`."""
    name, equals, value = given.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"`param`: got {given!r}; pass name=value.")
    return name, value
