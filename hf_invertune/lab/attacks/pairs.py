"""Captioned and labelled pictures from wherever pictures come from, in memory."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import ProcessorMixin

from ...data.columns import caption_column_of
from ...data.loading import load_images
from ...data.prompts import TEMPLATES, prompts
from ...data.sources import open_source
from ...errors import InputError
from ..contrastive import CaptionedPixels
from .poisoning import texts_of


def load_pairs(
    source: str | Path,
    processor: ProcessorMixin,
    *,
    class_names: Sequence[str] | None = None,
    split: str = "train",
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    token: str | bool | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> tuple[CaptionedPixels, tuple[str, ...]]:
    """Pictures with captions and labels, and the names of the labels; without captions `templates` make them in turn.

    Captions of one class that templates made are positives of one another.

    Args:
        source (`str` or `Path`): a folder, a table of pictures or the id of a dataset on the Hub.
        caption_column (`str`, *optional*): by default one called caption, text, sentence or txt.
        processor, class_names, split, image_column, label_column, limit, seed, token: see [`load_images`].
        templates (`Sequence[str]`): make captions of class names.

    Raises:
        InputError: pictures without labels or class names, or some that cannot be read or have no caption beside captions.
    """
    rows = open_source(source, split, image_column=image_column, limit=limit, seed=seed, token=token).rows
    if limit is not None and limit < len(rows):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        rows = rows.select(order[:limit].sort().values.tolist())
    column = caption_column_of(rows.features, caption_column)
    data = load_images(
        rows, processor, class_names=class_names, image_column=image_column, label_column=label_column, token=token
    )
    if data.labels is None or data.class_names is None or (data.labels < 0).any():
        raise InputError(
            "`label_column`: an attack is measured on pictures that all have labels; name the column, and the classes."
        )
    if column is None:
        labels = data.labels.tolist()
        captions = [prompts(data.class_names[k], templates)[i % len(templates)] for i, k in enumerate(labels)]
        return CaptionedPixels(data.pixels, captions, data.labels.clone(), data.labels), data.class_names
    if data.skipped:
        raise InputError(f"`source`: {len(data.skipped)} captioned picture(s) cannot be read: {data.skipped[0]}.")
    return CaptionedPixels(data.pixels, texts_of(rows, column), labels=data.labels), data.class_names
