"""Markdown: tables, and what is foreign put into it."""

import re
from collections.abc import Iterable, Sequence


def plain(text: object) -> str:
    """`text` on one line, with what Markdown and HTML would read as markup escaped."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(str(text).split()))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose cells are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
