"""`hf-invertune report`: what can be done with a saved audit report. Nothing heavy is imported up here."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import make_table, print_result, quietly


DOES_NOT_HOLD = 6
EXIT_CODES = """[bold]Exit codes[/bold]

[bold]  0[/bold]  all that can be checked holds
[bold]  2[/bold]  wrong input
[bold]  6[/bold]  a claim does not hold
[bold]  7[/bold]  the Hub did not do what it was asked
"""
ANSWERS = {True: "holds", False: "does not hold", None: "cannot be checked"}

app = typer.Typer(help="Check a saved audit report.", no_args_is_help=True, rich_markup_mode="rich")


def _option(help: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, show_default=False, **settings)


@app.command(epilog=EXIT_CODES)
def verify(
    folder: Annotated[Path, typer.Argument(metavar="AUDIT_DIR", help="A folder with report.json, e.g. OUT/audit.")],
    model: Annotated[
        str | None, _option("The model audited or the one handed back: a folder or a Hub id.", "--model")
    ] = None,
    revision: Annotated[str | None, _option("Branch, tag or commit of a model on the Hub.")] = None,
    token: Annotated[str | None, _option("Access token of the Hub.", envvar="HF_TOKEN")] = None,
    as_json: Annotated[bool, _option("Print one JSON object instead of a table.", "--json")] = False,
    verbose: Annotated[bool, _option("Let the libraries talk, on stderr.", "--verbose", "-v")] = False,
) -> None:
    """Compute again all that can be computed from a report, and say what holds."""
    with quietly(verbose):
        from ..models.loading import load_clip
        from ..report.verify import verify_report

        loaded = None if model is None else load_clip(model, revision=revision, token=token, device="cpu")
        claims = verify_report(folder, loaded)
    holds = all(claim.holds is not False for claim in claims)
    value = {"holds": holds, "claims": [vars(claim) for claim in claims]}
    rows = [[claim.name, ANSWERS[claim.holds], claim.detail] for claim in claims]
    counts = [f"{sum(c.holds is answer for c in claims)} {text}" for answer, text in ANSWERS.items()]
    print_result(value, as_json, make_table(str(folder), ["claim", "", "detail"], rows), ", ".join(counts))
    raise typer.Exit(0 if holds else DOES_NOT_HOLD)
