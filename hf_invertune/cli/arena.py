"""`hf-invertune arena` and `hf-invertune compare`: defences against victims. Nothing heavy is imported up here."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, nearest
from ..utils.files import write_bytes
from ..utils.output_folder import claim
from ..utils.tables import make_table
from .console import print_result, quietly
from .options import AsJson, Verbose, Workers, option


def arena(
    zoo: Annotated[Path, typer.Argument(metavar="ZOO", help="A folder that `hf-invertune zoo` made.")],
    output: Annotated[Path, option("A .jsonl file; what is in it is not done again.")],
    defences: Annotated[str | None, option("'a,b'; all when not given.")] = None,
    victims: Annotated[
        str | None, option("Names of folders in the zoo, 'a,b'; all that are not for validation.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="'0,1,2': seeds of the cleaning pictures and of the defences.")] = "0",
    learning_rates: Annotated[
        Path | None,
        option(
            "A .json file whose `learning_rates` has one for each defence; else they are searched on the zoo's "
            "validation victims, and kept in its folder.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Cleaning pictures of a run.")] = 500,
    test_images: Annotated[int, typer.Option(help="Pictures that everything is measured on.")] = 2_000,
    rebound: Annotated[
        bool, option("Also follow each defended model along 300 steps of benign fine-tuning.", "--rebound")
    ] = False,
    retry_failed: Annotated[bool, option("Do runs that failed once more.", "--retry-failed")] = False,
    workers: Workers = 1,
    share: Annotated[str, typer.Option(help="'i/n': the i-th of n parts of the work.")] = "1/1",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Let defences meet the victims of a zoo: one JSON line a run. Run again to go on, or twice at once to be faster."""
    part = re.fullmatch(r"(\d+)/(\d+)", share)
    if part is None:
        raise InputError(f"`share`: got {share!r}; pass i/n, such as 1/2.")
    chosen_seeds = _seeds(seeds)
    with quietly(verbose):
        from ..lab.arena.benchmark import benchmark
        from ..lab.arena.defences import DEFENCES
        from ..lab.arena.rebound import ReboundConfig
        from ..lab.arena.run import ArenaSettings
        from ..lab.zoo.build import Zoo

        names = list(DEFENCES) if defences is None else _names(defences.split(","), "defences", list(DEFENCES))
        there = Zoo.open(zoo)
        revisions = {name: defence.revision for name, defence in DEFENCES.items()}
        rates = {} if learning_rates is None else _learning_rates(learning_rates, there.world.name, revisions)
        settings = ArenaSettings(images, test_images, ReboundConfig() if rebound else None, retry_failed)
        rows = benchmark(
            {name: DEFENCES[name] for name in names},
            there,
            output,
            seeds=chosen_seeds,
            victims=None if victims is None else [name.strip() for name in victims.split(",")],
            learning_rates={name: rate for name, rate in rates.items() if name in names},
            settings=settings,
            share=(int(part[1]), int(part[2])),
            workers=workers,
        ).rows
    _show(rows, as_json, {"runs": len(rows), "output": str(output)}, f"runs: {output}")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Files that `hf-invertune arena` wrote.")],
    output_dir: Annotated[Path | None, option("Folder for table.md, runs.csv and the pictures.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Turn the runs of arenas into tables, CSV and plots."""
    with quietly(verbose):
        from ..lab.arena.compare import as_csv, markdown
        from ..lab.arena.plots import charts
        from ..lab.arena.rows import read_rows

        if output_dir is not None:
            claim(output_dir, replace=True)
        rows = read_rows(runs)
        if output_dir is not None:
            write_bytes(output_dir / "table.md", markdown(rows).encode())
            write_bytes(output_dir / "runs.csv", as_csv(rows).encode())
            for name, chart in charts(rows).items():
                write_bytes(output_dir / f"{name}.png", chart.png())
    _show(rows, as_json, {"runs": len(rows)}, *([f"tables and plots: {output_dir}"] * (output_dir is not None)))


def _show(rows: Sequence[Any], as_json: bool, value: dict[str, Any], *lines: str) -> None:
    """The tables of rows on stdout, or one JSON object that holds them."""
    from ..lab.arena.compare import tables

    grids = tables(rows)
    value["tables"] = {grid.title: [dict(zip(grid.columns, row, strict=True)) for row in grid.rows] for grid in grids}
    print_result(value, as_json, *(make_table(grid.title, grid.columns, grid.rows) for grid in grids), *lines)


def _names(given: Sequence[str], argument: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in given]
    for name in names:
        if name not in known:
            raise InputError(f"`{argument}`: {name!r} is none of the {len(known)}; {nearest(name, known)}.")
    return names


def _seeds(given: str) -> list[int]:
    try:
        return [int(seed) for seed in given.split(",")]
    except ValueError as error:
        raise InputError(f"`seeds`: got {given!r}; pass whole numbers, such as 0,1,2.") from error


def _learning_rates(path: Path, world: str, revisions: Mapping[str, int]) -> dict[str, float]:
    """What the file says, made sure that it was searched on this world and with these revisions, if it tells."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        searched, of = value.get("world", world), dict(value.get("revisions", {}))
        rates = {str(name): float(rate) for name, rate in value["learning_rates"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'`learning_rates`: {path} cannot be used ({error!r}); it must hold {{"learning_rates": {{NAME: RATE}}}}.'
        ) from error
    if searched != world:
        raise InputError(f"`learning_rates`: {path} was searched on {searched}, and the zoo is of {world}.")
    for name in _names(list(rates), "learning_rates", list(revisions)):
        if of.get(name, revisions[name]) != revisions[name]:
            raise InputError(
                f"`learning_rates`: {path} was searched with revision {of[name]} of {name}, which is at "
                f"{revisions[name]} now; search anew."
            )
    return rates
