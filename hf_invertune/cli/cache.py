"""`hf-invertune cache`: the scans that are kept. Nothing heavy is imported up here."""

from typing import Annotated

import typer

from ..errors import InputError
from .console import make_table, print_result, quietly
from .options import EXIT_CODES, AsJson, Verbose, option


app = typer.Typer(
    help="Look at the scans that are kept, and remove them.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command("ls", epilog=EXIT_CODES)
def list_entries(as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the scans that are kept."""
    with quietly(verbose):
        from ..fleet.cache import SHOWN, ScanCache

        cache = ScanCache()
        entries = cache.entries()
    rows = []
    for entry in entries:
        outcome = entry.outcome
        said = "damaged" if outcome is None else "cannot be judged" if outcome.scan is None else outcome.scan.verdict
        row = {"key": entry.key, "model": outcome and outcome.model, "verdict": str(said)}
        rows.append({**row, "created": outcome and outcome.created, "bytes": entry.size})
    shown = [[str(row["key"])[:SHOWN], *(str(cell or "") for cell in list(row.values())[1:])] for row in rows]
    table = make_table(str(cache.folder), ["key", "model", "verdict", "created", "bytes"], shown)
    value = {"folder": str(cache.folder), "entries": rows}
    print_result(value, as_json, table, f"{len(rows)} scans, {sum(entry.size for entry in entries):,} bytes")


@app.command("rm", epilog=EXIT_CODES)
def remove_entries(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY...", help="The beginnings of keys that `cache ls` shows.")
    ] = None,
    everything: Annotated[bool, option("All of them.", "--all")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Remove scans that are kept."""
    if bool(keys) == everything:
        raise InputError("`keys`: pass the beginnings of keys, or `everything`.")
    with quietly(verbose):
        from ..fleet.cache import ScanCache

        cache = ScanCache()
        gone = cache.clear() if everything else cache.remove(keys or [])
    print_result({"removed": gone}, as_json, f"{len(gone)} removed")
