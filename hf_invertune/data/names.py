"""Class names and templates as a command line gives them: in words or as a file. Nothing heavy is imported up here."""

import codecs
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..utils.files import given_path
from .prompts import check_class_names, check_templates


SUFFIXES = (".csv", ".json", ".txt")
HEADS = frozenset(("class", "class_name", "class_names", "classes", "label", "labels", "name", "names"))
"""What the head of a column of names may be, in any case."""


def read_class_names(given: str) -> tuple[str, ...]:
    """The class names that a command line gives: 'a,b,c', or a file, in UTF-8 or with a byte order mark in UTF-16.

    A .txt file holds one name a line. A .csv file holds one name a row, or an index and a name; a head is left out. A .json
    file holds a list of names, a mapping of indices to names, or one called `id2label` as in a model's config.json.

    Raises:
        InputError: a file that cannot be read, or names that [`check_class_names`] refuses.
    """
    path = given_path(given)
    form = path.suffix.lower()
    if form not in SUFFIXES:
        return check_class_names([name.strip() for name in given.split(",")])
    text = _text(path, "class_names")
    if form == ".txt":
        return check_class_names([name.strip() for name in text.splitlines() if name.strip()])
    try:
        value = json.loads(text) if form == ".json" else _rows(text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"`class_names`: {given} is no {form[1:]} file ({error}).") from error
    if isinstance(value, dict):
        value = _in_order(value.get("id2label", value), given)
    if not isinstance(value, list):
        raise InputError(f"`class_names`: {given} holds a {type(value).__name__}; it must be a list of names.")
    return check_class_names(value)


def read_templates(path: Path) -> tuple[str, ...]:
    """The prompt templates in a text file, one a line.

    Raises:
        InputError: a file that cannot be read, or templates that [`check_templates`] refuses.
    """
    return check_templates([line.strip() for line in _text(path, "templates").splitlines() if line.strip()])


def _text(path: Path, argument: str) -> str:
    try:
        data = path.read_bytes()
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except OSError as error:
        raise InputError(f"`{argument}`: {path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"`{argument}`: {path} is no text in UTF-8 ({error}).") from error


def _rows(text: str) -> list[str] | dict[str, str]:
    """Names, or a mapping of indices to names."""
    rows = [
        [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline="")) if any(map(str.strip, row))
    ]
    if rows and HEADS & {cell.lower() for cell in rows[0]}:
        rows = rows[1:]
    widths = {len(row) for row in rows}
    if len(rows) > 1 and widths == {2}:
        if len({index for index, _ in rows}) < len(rows):
            raise ValueError("an index stands there twice")
        return dict(rows)
    if len(rows) > 1 and widths != {1}:
        raise ValueError("a row holds one name, or an index and a name")
    return [cell for row in rows for cell in row]


def _in_order(names: Any, given: str) -> Sequence[Any]:
    """The names of a mapping from the indices 0, 1, 2, ..."""
    order = [str(index) for index in range(len(names))] if isinstance(names, Mapping) else []
    if not order or set(names) != set(order):
        raise InputError(
            f"`class_names`: {given} maps other keys than 0, 1, 2, ... to names; pass a list or such a map."
        )
    return [names[index] for index in order]
