"""Which column of a table holds what, and labels of any kind as indices."""

import math
from collections.abc import Sequence
from typing import Any

import datasets
import torch
from torch import Tensor

from ..errors import InputError


IMAGE_COLUMNS = ("image", "img", "picture", "file_name", "filename", "filepath", "image_path", "path", "file")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "cls")
CAPTION_COLUMNS = ("caption", "text", "sentence", "txt")

TEXTS = [datasets.Value(kind) for kind in ("string", "large_string", "string_view")]
BYTES = [datasets.Value(kind) for kind in ("binary", "large_binary")]

UNLABELLED = -1
"""The label of a picture that has none."""


def column_of(
    features: datasets.Features, given: str | None, argument: str, kind: type, usual: tuple[str, ...]
) -> str | None:
    """The column that is `given`, or the one of that `kind`, or the first that has a `usual` name; none without any.

    Raises:
        InputError: when the given one is not there, or several would do.
    """
    if given is not None:
        if given not in features:
            raise InputError(f"`{argument}`: there is no column {given!r}; the columns are {', '.join(features)}.")
        return given
    fitting = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(fitting) == 1:
        return fitting[0]
    named = [name for name in usual if name in (fitting or features)]
    if fitting and not named:
        raise InputError(f"`{argument}`: the columns {', '.join(fitting)} would all do; name one.")
    return named[0] if named else None


def image_column_of(features: datasets.Features, given: str | None) -> str:
    """The column of pictures: images, their bytes or their paths.

    Raises:
        InputError: when there is none, or another kind of column is given.
    """
    column = column_of(features, given, "image_column", datasets.Image, IMAGE_COLUMNS)
    columns = ", ".join(features)
    if column is None:
        raise InputError(f"`image_column`: no column holds images; name one of the columns {columns}.")
    kind = features[column]
    if not (
        isinstance(kind, datasets.Image)
        or kind in (*TEXTS, *BYTES)
        or (isinstance(kind, dict) and {"bytes", "path"} <= kind.keys())
    ):
        raise InputError(f"`image_column`: {column!r} holds {kind}, not images; the columns are {columns}.")
    return column


def caption_column_of(features: datasets.Features, given: str | None) -> str | None:
    """The column of captions: the one that is named, or one called as usual; none where there is none.

    Raises:
        InputError: when the column is not there, or holds something else than one text a picture.
    """
    if given is not None and given not in features:
        raise InputError(f"`caption_column`: there is no column {given!r}; the columns are {', '.join(features)}.")
    column = given or next((name for name in CAPTION_COLUMNS if name in features), None)
    if column is not None and features[column] not in TEXTS:
        raise InputError(f"`caption_column`: {column!r} holds {features[column]}; it must hold one text a picture.")
    return column


def labels_of(
    dataset: datasets.Dataset, label_column: str | None, class_names: Sequence[str] | None
) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """The labels of a table as indices, and the names that they index: `class_names`, or else the table's own.

    Raises:
        InputError: as [`class_indices`], and a column that is not there.
    """
    column = column_of(dataset.features, label_column, "label_column", datasets.ClassLabel, LABEL_COLUMNS)
    own, kind = None, dataset.features.get(column)
    if isinstance(kind, datasets.ClassLabel):
        own = tuple(kind.names)
    values = None if column is None else dataset[column][:]
    if values is not None and kind in TEXTS and class_names is None:
        class_names = sorted({value for value in values if value})
    labels = None if values is None else class_indices(values, own, class_names)
    return labels, tuple(class_names) if class_names is not None else own


def class_indices(values: Sequence[Any], names: Sequence[str] | None, class_names: Sequence[str] | None) -> Tensor:
    """Labels as indices into `class_names`, N in int64; [`UNLABELLED`] for what is missing, which -1 says too.

    Args:
        values (`Sequence`): names, indices into `names`, or else indices into `class_names`.
        names (`Sequence[str]`, *optional*): what indices stand for in the source.
        class_names (`Sequence[str]`, *optional*): what they shall stand for; `names` when not given.

    Raises:
        InputError: a label out of range, of the wrong type, or that none of `class_names` is.
    """
    known = class_names if names is None else names
    places = {name: place for place, name in enumerate(class_names or names or ())}
    labels, unknown = [], set()
    for value in values:
        if isinstance(value, float) and value.is_integer():  # of a column of integers with gaps
            value = int(value)
        if value in (None, "", UNLABELLED) or (isinstance(value, float) and math.isnan(value)):
            labels.append(UNLABELLED)
            continue
        if type(value) is int:
            _check_index(value, known)
            if names is None or class_names is None:
                labels.append(value)
                continue
            value = names[value]
        elif not isinstance(value, str):
            raise InputError(
                f"`source`: labels out of range or of the wrong type: got {value!r}; a label must be an integer or one "
                "of `class_names`."
            )
        if value not in places:
            unknown.add(value)
        labels.append(places.get(value, UNLABELLED))
    if unknown:
        raise InputError(
            f"`class_names`: {', '.join(map(repr, sorted(unknown)[:5]))} ({len(unknown)} in all) label pictures and are "
            "not among them; add them, or cast the label column to integers to go by index."
        )
    return torch.tensor(labels, dtype=torch.int64)


def _check_index(value: int, known: Sequence[str] | None) -> None:
    most = 2**63 - 1 if known is None else len(known) - 1
    if not 0 <= value <= most:
        allowed = "0 or more" if known is None else f"0 to {most}"
        raise InputError(
            f"`source`: labels out of range or of the wrong type: got {value}; {allowed} can be used, and -1 for none."
        )
