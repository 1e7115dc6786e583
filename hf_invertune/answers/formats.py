"""Answers about any number of models, as text in each of the formats."""

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from ..errors import InputError, nearest
from ..utils.files import finite
from .answer import Answer
from .junit import to_junit
from .markdown import to_markdown
from .sarif import to_sarif
from .table import to_table


def to_json(answers: Sequence[Answer]) -> str:
    """One object, whose `answers` has one for each model; `null` for what is no finite number."""
    value = {
        "tool": "hf-invertune",
        "version": version("hf_invertune"),
        "answers": [answer.plain() for answer in answers],
    }
    return _dump(value, indent=2) + "\n"


def to_jsonl(answers: Sequence[Answer]) -> str:
    """One object a line and a model."""
    return "".join(_dump(answer.plain()) + "\n" for answer in answers)


def _dump(value: Any, indent: int | None = None) -> str:
    return json.dumps(finite(value), indent=indent, allow_nan=False)


FORMATS: dict[str, Callable[[Sequence[Answer]], str]] = {
    "table": to_table,
    "json": to_json,
    "jsonl": to_jsonl,
    "sarif": to_sarif,
    "junit": to_junit,
    "markdown": to_markdown,
}


def render(answers: Sequence[Answer], format: str) -> str:
    """The text that says these answers, in a format of [`FORMATS`]; it ends with a line break.

    Raises:
        InputError: no such format.
    """
    if format not in FORMATS:
        raise InputError(f"`format`: got {format!r}; {nearest(format, FORMATS)}.")
    text = FORMATS[format](answers)
    return text.encode(errors="backslashreplace").decode()  # names of files may be no Unicode
