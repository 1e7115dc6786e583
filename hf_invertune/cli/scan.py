"""`hf-invertune scan`: is there a backdoor, and where does it lead? Of one model, or of many."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ExitCode, InputError
from ..utils.output_folder import claim, write_whole
from .console import as_source, make_table, print_result, quietly, verdict_line
from .fleet import Fleet, make_scanner
from .options import AsJson, Given, Overwrite, Verbose, option


def scan(
    source: Given,
    model: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="CLIP models: folders, Hub ids or their pages."),
    ] = None,
    models: Annotated[
        Path | None,
        option("A file of more models: names, one a line, or .yaml or .jsonl.", exists=True, dir_okay=False),
    ] = None,
    search: Annotated[str | None, option("More models, which the Hub finds by 'author=org, filter=clip'.")] = None,
    output_dir: Annotated[
        Path | None,
        option("Folder for the report, which goes to audit/ in it; of several models for answers, reports and page."),
    ] = None,
    retry_failed: Annotated[
        bool, option("Scan models once more that could not be scanned.", "--retry-failed")
    ] = False,
    no_cache: Annotated[bool, option("Neither look for a scan that is kept nor keep this one.", "--no-cache")] = False,
    dry_run: Annotated[bool, option("Say what the scan would cost, and stop.", "--dry-run")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Say whether a model is backdoored, and towards which label; of several models, which of them are.

    A scan of several models that was killed goes on when the same command runs again. Several processes, such as those of
    `accelerate launch`, share the models of one output folder.
    """
    several = models is not None or search is not None or len(model or []) > 1
    if not (model or several):
        raise InputError("`model`: got none; name at least one, or pass `models` or `search`.")
    if several and overwrite:
        raise InputError(
            "`overwrite`: a scan of several models goes on from what is in its folder; name another one to begin anew."
        )
    config = source.settings()
    if several:
        fleet = Fleet(source, config, tuple(model or ()), models, search, no_cache)
        stdout = sys.stdout
        with quietly(verbose):
            raise fleet.foresee() if dry_run else fleet.scan(output_dir, retry_failed, as_json, stdout)
    with quietly(verbose):
        from ..fleet.models import ModelSpec
        from ..report.report import AuditReport
        from ..stages.verdict import CALIBRATION

        (name,) = model or []
        if output_dir and not dry_run:
            claim(output_dir, overwrite, name)
        scanner = make_scanner(source, config, no_cache)
        subject = scanner.open(ModelSpec(name, source.revision, source.subfolder, source.variant))
        result = None if dry_run else scanner.kept(subject)
        if result is None:
            typer.echo(scanner.estimate(subject).describe(), err=True)
            if dry_run:
                raise typer.Exit
            result = scanner.scan(subject)
        if output_dir:
            write_whole(output_dir / "audit", AuditReport("scanned", result, config=config).save)
    families = [
        {"family": e.family, "label": result.class_names[e.label], "lead": e.lead, "verdict": result.judged(e)}
        for e in result.evidence
    ]
    places = [
        {"family": p.family, "label": result.class_names[p.label], "share": p.share, "concentration": p.concentration}
        | {"verdict": result.judged(p)}
        for p in result.gatherings
    ]
    value = {
        "source": as_source(subject.source),
        "verdict": result.verdict,
        "target": result.target_name,
        "gatherings": places,
        "families": families,
        "class_names": len(result.class_names),
        "images": result.images,
        "calibration": CALIBRATION,
        "seconds": result.seconds,
        "report": str(output_dir / "audit") if output_dir else None,
    }
    gathered, raced = (
        [[cell if isinstance(cell, str) else f"{cell:.2f}" for cell in row.values()] for row in rows]
        for rows in (places, families)
    )
    tables = [make_table("The label easiest to reach", ["trigger", "label", "lead", "verdict"], raced)]
    if places:
        heads = ["trigger", "label", "share", "concentration", "verdict"]
        tables.insert(0, make_table("Where triggers gather pictures", heads, gathered))
    origin = [str(subject.source.origin)] * bool(str(subject.source.origin))
    print_result(value, as_json, *tables, CALIBRATION, *origin, verdict_line(result.verdict, result.target_name))
    raise typer.Exit(ExitCode.of(result.verdict))
