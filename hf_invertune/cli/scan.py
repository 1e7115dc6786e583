"""`hf-invertune scan`: is there a backdoor, and where does it lead?"""

from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..utils.files import write_bytes
from ..utils.output_folder import claim, claim_file, write_whole
from .console import quietly
from .options import AsJson, Overwrite, Reference, Source, Verbose, option, profile_of


if TYPE_CHECKING:
    from ..answers.answer import Answer
    from ..stages.configs import RemovalConfig
    from ..stages.reference import Profile


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    SARIF = "sarif"
    JUNIT = "junit"
    MARKDOWN = "markdown"


class FailOn(StrEnum):
    """The mildest finding that has an exit code of its own."""

    BACKDOORED = "backdoored"
    INCONCLUSIVE = "inconclusive"
    NEVER = "never"


def scan(
    source: Source,
    ctx: typer.Context,
    output_dir: Annotated[Path | None, option("Folder for the report, which goes to audit/ in it.")] = None,
    reference: Reference = None,
    format: Annotated[Format, typer.Option(help="How the answer is written; see docs/formats.md.")] = Format.TABLE,
    output: Annotated[Path | None, option("File for the answer, instead of stdout.")] = None,
    baseline: Annotated[
        Path | None,
        option("Accepted findings, a .toml or .json file; see docs/formats.md.", exists=True, dir_okay=False),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="The mildest finding that does not end with 0.")
    ] = FailOn.INCONCLUSIVE,
    dry_run: Annotated[bool, option("Say what the scan would cost, and stop.", "--dry-run")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, option("Print the answer alone, and errors.", "--quiet", "-q")] = False,
    verbose: Verbose = False,
) -> None:
    """Say whether a model is backdoored, and towards which label."""
    with quietly(verbose, quiet):
        from ..answers.answer import Answer
        from ..answers.baseline import Baseline
        from ..answers.formats import render
        from ..answers.gate import exit_code

        if ctx.obj.path is not None and not quiet:
            typer.echo(f"options from {ctx.obj.path}", err=True)
        config = source.settings(base=ctx.obj.settings)
        accepted = Baseline() if baseline is None else Baseline.load(baseline)
        if output is not None:
            claim_file(output)
        if output_dir is not None and not dry_run:
            claim(output_dir, overwrite, source.model)
        trusted = None if dry_run else profile_of(reference, source, config)
        form = Format.JSON if as_json else format
        failure = None
        try:
            answer = accepted.mark(_scan(source, config, trusted, output_dir, dry_run, quiet), date.today())
        except typer.Exit:
            raise
        except Exception as error:
            failure, answer = error, Answer.failed(source.model, error)
        for line in accepted.expired([answer], date.today()):
            typer.echo(line, err=True)
        text = render([answer], form.value)
    if output is not None:
        write_bytes(output, text.encode())
    elif failure is None or form is not Format.TABLE:
        typer.echo(text, nl=False)
    if failure is not None:
        raise failure
    raise typer.Exit(exit_code([answer], fail_on.value))


def _scan(
    source: Source,
    config: "RemovalConfig",
    trusted: "Profile | None",
    output_dir: Path | None,
    dry_run: bool,
    quiet: bool,
) -> "Answer":
    """Scan one model, held against a trusted one where there is its profile, and write the report."""
    from ..answers.answer import Answer
    from ..report.report import AuditReport

    remover, data = source.load(config.seed)
    given: dict[str, Any] = {"config": config, "templates": source.prompts}
    if dry_run or not quiet:
        typer.echo(remover.estimate(data, **given).describe(), err=True)
    if dry_run:
        raise typer.Exit
    result = remover.scan(data, reference=trusted, **given)
    if output_dir is None:
        return Answer.of(source.model, remover.source, result)
    write_whole(output_dir / "audit", AuditReport("scanned", result, config=config).save)
    return Answer.of(source.model, remover.source, result, str(output_dir / "audit"))
