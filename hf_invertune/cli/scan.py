"""`hf-invertune scan`: is there a backdoor, and where does it lead?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ExitCode
from ..utils.output_folder import claim, write_whole
from .console import as_source, make_table, print_result, quietly, verdict_line
from .options import AsJson, Overwrite, Reference, Source, Verbose, option, profile_of


def scan(
    source: Source,
    output_dir: Annotated[Path | None, option("Folder for the report, which goes to audit/ in it.")] = None,
    reference: Reference = None,
    dry_run: Annotated[bool, option("Say what the scan would cost, and stop.", "--dry-run")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Say whether a model is backdoored, and towards which label."""
    with quietly(verbose):
        from ..report.report import AuditReport
        from ..stages.verdict import CALIBRATION

        config = source.settings()
        if output_dir and not dry_run:
            claim(output_dir, overwrite, source.model)
        trusted = None if dry_run else profile_of(reference, source, config)
        remover, data = source.load(config.seed)
        given: dict[str, Any] = {"config": config, "templates": source.prompts}
        typer.echo(remover.estimate(data, **given).describe(), err=True)
        if dry_run:
            raise typer.Exit
        result = remover.scan(data, reference=trusted, **given)
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
        "source": as_source(remover.source),
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
    origin = [str(remover.source.origin)] * bool(str(remover.source.origin))
    print_result(value, as_json, *tables, CALIBRATION, *origin, verdict_line(result.verdict, result.target_name))
    raise typer.Exit(ExitCode.of(result.verdict))
