"""`hf-invertune report`: what can be done with a saved audit report. Nothing heavy is imported up here."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ExitCode
from ..utils.tables import make_table
from .console import print_result, quietly
from .options import EXIT_CODES, AsJson, Revision, Subfolder, TextModel, Token, Variant, Verbose, option


ANSWERS = {True: "holds", False: "does not hold", None: "cannot be checked"}

app = typer.Typer(help="Check a saved audit report.", no_args_is_help=True, rich_markup_mode="rich")


@app.command(epilog=EXIT_CODES)
def verify(
    folder: Annotated[Path, typer.Argument(metavar="AUDIT_DIR", help="A folder with report.json, e.g. OUT/audit.")],
    model: Annotated[
        str | None, option("The model audited or the one handed back: a folder or a Hub id.", "--model")
    ] = None,
    text_model: TextModel = None,
    revision: Revision = None,
    subfolder: Subfolder = None,
    variant: Variant = None,
    token: Token = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compute again all that can be computed from a report, and say what holds."""
    with quietly(verbose):
        from ..models.loading import load_model
        from ..report.verify import verify_report

        where: dict[str, Any] = {"revision": revision, "subfolder": subfolder, "variant": variant, "token": token}
        loaded = None if model is None else load_model(model, text_model=text_model, device="cpu", **where)
        claims = verify_report(folder, loaded)
    holds = all(claim.holds is not False for claim in claims)
    value = {"holds": holds, "claims": [vars(claim) for claim in claims]}
    rows = [[claim.name, ANSWERS[claim.holds], claim.detail] for claim in claims]
    counts = [f"{sum(c.holds is answer for c in claims)} {text}" for answer, text in ANSWERS.items()]
    print_result(value, as_json, make_table(str(folder), ["claim", "", "detail"], rows), ", ".join(counts))
    raise typer.Exit(ExitCode.OK if holds else ExitCode.DOES_NOT_HOLD)
