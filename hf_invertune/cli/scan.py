"""`hf-invertune scan`: is there a backdoor, and where does it lead? Of one model, or of many."""

import sys
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..utils.files import write_bytes
from ..utils.output_folder import claim, claim_file, write_whole
from .console import quietly
from .fleet import Fleet, make_scanner
from .options import AsJson, Given, Overwrite, Reference, Verbose, option, profile_of


if TYPE_CHECKING:
    from ..answers.answer import Answer
    from ..fleet.models import ModelSpec
    from ..fleet.scanner import Scanner


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
    source: Given,
    ctx: typer.Context,
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
    reference: Reference = None,
    retry_failed: Annotated[
        bool, option("Scan models once more that could not be scanned.", "--retry-failed")
    ] = False,
    no_cache: Annotated[bool, option("Neither look for a scan that is kept nor keep this one.", "--no-cache")] = False,
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
    form, stdout = Format.JSON if as_json else format, sys.stdout
    with quietly(verbose, quiet):
        from ..answers.baseline import Baseline
        from ..answers.formats import render
        from ..answers.gate import exit_code
        from ..utils.sharing import this_process

        if ctx.obj.path is not None and not quiet:
            typer.echo(f"options from {ctx.obj.path}", err=True)
        config = source.settings(base=ctx.obj.settings)
        accepted = Baseline() if baseline is None else Baseline.load(baseline)
        if output is not None:
            claim_file(output)
        main = this_process().is_main_process
        if output_dir is not None and not several and not dry_run and main:
            claim(output_dir, overwrite, (model or [])[0])
        trusted = None if dry_run else profile_of(reference, source, config)
        scanner = make_scanner(source, config, trusted, no_cache)
        failure: Exception | None = None
        if several:
            fleet = Fleet(source, scanner, tuple(model or ()), models, search)
            if dry_run:
                raise fleet.foresee()
            as_it_ends = form is Format.JSONL and output is None

            def tell(answer: "Answer") -> None:
                typer.echo(render([accepted.mark(answer, date.today())], form.value), nl=False, file=stdout)

            answers = fleet.scan(output_dir, retry_failed, tell if as_it_ends else None)
        else:
            as_it_ends = False
            one = Single(source, scanner, (model or [])[0], output_dir, quiet)
            if dry_run:
                raise one.foresee()
            answer, failure = one.scan()
            answers = [answer]
        if not main:  # whose answers are those of all
            raise typer.Exit
        answers = [accepted.mark(answer, date.today()) for answer in answers]
        for line in accepted.expired(answers, date.today()):
            typer.echo(line, err=True)
        text = render(answers, form.value)
    if output is not None:
        write_bytes(output, text.encode())
    elif not as_it_ends and (failure is None or form is not Format.TABLE):
        typer.echo(text, nl=False)
    if failure is not None:
        raise failure
    raise typer.Exit(exit_code(answers, fail_on.value))


@dataclass
class Single:
    """One model, and how it is scanned.

    Attributes:
        given ([`Given`]): the options.
        scanner ([`Scanner`]): what scans by them.
        model (`str`): the model.
        output_dir (`Path`, *optional*): folder of the report.
        quiet (`bool`): say nothing of what it will cost.
    """

    given: Given
    scanner: "Scanner"
    model: str
    output_dir: Path | None
    quiet: bool

    def foresee(self) -> typer.Exit:
        """Say what the scan would cost, on stderr."""
        typer.echo(self.scanner.estimate(self.scanner.open(self._spec)).describe(), err=True)
        return typer.Exit()

    def scan(self) -> "tuple[Answer, Exception | None]":
        """The answer, and what went wrong where there is no verdict."""
        from ..answers.answer import Answer
        from ..report.report import AuditReport
        from ..utils.sharing import gathered, this_process

        main = this_process().is_main_process
        try:
            subject = self.scanner.open(self._spec)
            known = self.scanner.kept(subject)
            result = None if any(gathered(known is None)) else known
            if result is None:
                if not self.quiet and main:
                    typer.echo(self.scanner.estimate(subject).describe(), err=True)
                result = self.scanner.scan(subject)
            if self.output_dir is None or not main:
                return Answer.of(self.model, subject.source, result), None
            write_whole(self.output_dir / "audit", AuditReport("scanned", result, config=self.scanner.config).save)
            return Answer.of(self.model, subject.source, result, str(self.output_dir / "audit")), None
        except Exception as error:
            return Answer.failed(self.model, error), error

    @property
    def _spec(self) -> "ModelSpec":
        from ..fleet.models import ModelSpec

        return ModelSpec(
            self.model, self.given.revision, self.given.subfolder, self.given.variant, self.given.text_model
        )
