"""Tables of plain text for a terminal."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of plain cells, without a head when no column has a name."""
    table = Table(*columns, title=Text(title), title_justify="left", box=box.SIMPLE, show_header=any(columns))
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def as_text(*shown: Table | str) -> str:
    """Tables as wide as the terminal, and lines that are not broken."""
    console = Console(file=io.StringIO())
    with console.capture() as capture:
        for item in shown:
            console.print(Text(item) if isinstance(item, str) else item, soft_wrap=isinstance(item, str))
    return capture.get()
