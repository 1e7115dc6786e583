"""What a user sees: tables and JSON on stdout, everything else on stderr. Nothing heavy is imported up here."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..utils.files import finite
from ..utils.tables import make_table


if TYPE_CHECKING:
    from ..models.evaluation import Metrics, Rate
    from ..models.loading import LoadedModel


@contextmanager
def quietly(verbose: bool, quiet: bool = False) -> Iterator[None]:
    """Keep stdout for the result: our summary lines go to stderr, and unless `verbose` only the errors of libraries do.

    With `quiet` our warnings do, and neither summary lines nor bars.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hf_invertune").setLevel(logging.WARNING if quiet else logging.INFO)
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # its errors reach us as exceptions
    with redirect_stdout(sys.stderr):
        yield


def verdict_line(verdict: str, target: str | None) -> str:
    return f"{verdict}{f', towards {target!r}' if target else ''}"


def as_source(model: "LoadedModel") -> dict[str, Any]:
    """Where a model came from."""
    return {"name": model.name, "revision": model.revision, **asdict(model.origin)}


def as_numbers(metrics: "Metrics") -> dict[str, Any]:
    return {
        name: rate and {"value": rate.value, "hits": rate.hits, "count": rate.count, "interval": rate.interval}
        for name, rate in vars(metrics).items()
    }


def metrics_table(title: str, **columns: "Metrics") -> Table:
    from ..models.evaluation import METRICS

    rows = [[name, *(_share(getattr(m, key)) for m in columns.values())] for key, (name, _) in METRICS.items()]
    return make_table(f"{title} (95 % intervals in brackets)", ["", *columns], [row for row in rows if any(row[1:])])


def _share(rate: "Rate | None") -> str:
    if rate is None:
        return ""
    low, high = rate.interval
    return f"{100 * rate.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] {rate.hits}/{rate.count}"


def print_result(value: dict[str, Any], as_json: bool, *shown: Table | str) -> None:
    """The result on stdout: one JSON object, or what is to be `shown`."""
    if as_json:
        typer.echo(json.dumps(finite(value), indent=2))
        return
    for item in shown:
        Console().print(Text(item) if isinstance(item, str) else item, soft_wrap=isinstance(item, str))
