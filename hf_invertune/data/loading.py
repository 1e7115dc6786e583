"""Clean images in, pixel batches out: a folder, a parquet file, a Hub dataset, PIL images or a tensor become pixels.

Pixels are stored as uint8, as the processor's resize and crop leave them, and handed out as float32 in [0, 1].
Normalisation belongs to the encoder. With torchvision installed the processor's resize differs slightly from PIL's, so
digests agree only between machines that both have it or both lack it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from ..errors import InputError
from ..utils.progress import progress
from ..utils.tokens import usable_token
from .columns import TEXTS, class_indices, image_column_of, labels_of
from .pictures import UnreadableError, read_picture, resize
from .pixels import PixelDataset, as_uint8, draw
from .prompts import check_class_names
from .sources import Opened, open_source, printable, reading


logger = logging.getLogger(__name__)


ImageSource: TypeAlias = str | Path | datasets.Dataset | Sequence[Image.Image] | Tensor | PixelDataset


def load_images(
    source: ImageSource,
    processor: ProcessorMixin,
    *,
    class_names: Sequence[str] | None = None,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
    folder_classes: bool | None = None,
    limit: int | None = None,
    seed: int = 0,
    minimum: int = 1,
    token: str | bool | None = None,
    revision: str | None = None,
) -> PixelDataset:
    """Read `source` into a [`PixelDataset`] of the size that `processor` gives. Unreadable pictures are skipped.

    Args:
        source: what holds the pictures:

            - a folder of them, flat or in sub-folders, with or without a metadata.csv, .jsonl or .parquet whose column
              `file_name` says which; linked folders count;
            - a folder that `save_to_disk` wrote, or one of .parquet, .arrow or .tar (WebDataset) files;
            - a .parquet, .arrow, .tar, .csv, .json or .jsonl file, with pictures, their bytes or their paths, which
              start from its folder;
            - the id of a dataset on the Hub, `name:config` where it has several;
            - a [`~datasets.Dataset`]; a list of PIL images; a float tensor, N x 3 x H x W in [0, 1];
            - a [`PixelDataset`], which is checked and, when nothing is to change, returned as it is.
        processor ([`~transformers.ProcessorMixin`]): its resize and crop are applied, its normalisation is not.
        class_names (`Sequence[str]`, *optional*): what the labels shall index. Labels with names of their own are
            matched by name, others are taken for indices into it.
        split (`str`): the split of a dataset of the Hub, of a saved one, or of a folder of tables.
        image_column (`str`, *optional*): by default the one column of images, or one called image, img, picture,
            file_name or the like.
        label_column (`str`, *optional*): by default the one column of class labels, or one called label, labels,
            fine_label, class, target or cls; without any the pictures have no labels. What has the label -1 or none has
            no label.
        folder_classes (`bool`, *optional*): whether the sub-folders that all pictures lie in are classes. By default
            they are presumed to be, unless `class_names` lacks one of them, and [`BackdoorRemover`] asks the model.
        limit (`int`, *optional*): how many pictures to take at most, drawn by `seed`, each class in proportion. A
            Hub dataset is then streamed, its files in random order, through a shuffle buffer of four times `limit`,
            whatever the classes: one that is sorted by class is better loaded whole.
        seed (`int`): seed of the draw.
        minimum (`int`): how many pictures are needed.
        token (`str` or `bool`, *optional*): access token of the Hub.
        revision (`str`, *optional*): branch, tag or commit of a Hub dataset.

    Raises:
        InputError: whenever `source` cannot be used; the message says what came and what to do.
        HubError: what the Hub has done.
    """
    if class_names is not None:
        class_names = check_class_names(class_names)
    if limit is not None and limit < 1:
        raise InputError(f"`limit`: got {limit}; pass a positive number, or None for all pictures.")
    size, token = resize(Image.new("RGB", (1, 1)), processor).shape[-2:], usable_token(token)
    if isinstance(source, PixelDataset):
        data = _fitted(source, size, class_names)
        if limit is not None and limit < len(data):
            data = data.subset(draw(limit, len(data), data.labels, seed)[0])
        return _enough(data, minimum)
    options = {
        "image_column": image_column,
        "label_column": label_column,
        "folder_classes": folder_classes,
        "limit": limit,
        "seed": None if limit is None else seed,
    }
    selection = {name: value for name, value in options.items() if value is not None}

    labels, names, presumed, tokens, origin = None, class_names, False, {}, "pictures in memory"
    if isinstance(source, (str, Path, datasets.Dataset)):
        if isinstance(source, datasets.Dataset):
            opened = Opened(source, origin)
        else:
            opened = open_source(
                source, split, image_column=image_column, limit=limit, seed=seed, token=token, revision=revision
            )
        origin, tokens = opened.name, {opened.name: token}
        selection |= opened.selection
        with reading(origin):
            rows = opened.rows.with_format(None)
            column = image_column_of(rows.features, image_column)
            if "revision" in opened.selection and rows.features[column] in TEXTS:
                raise InputError(
                    f"`image_column`: {column!r} holds paths, which lead nowhere on the Hub; name another."
                )
            pictures = rows.cast_column(column, datasets.Image(decode=False))[column]
            if not (opened.presumed and _just_folders(rows.features["label"].names, class_names, folder_classes)):
                labels, names = labels_of(rows, label_column, class_names)
                presumed = opened.presumed and folder_classes is None and class_names is None
    else:
        pictures = _images(source)

    indices = torch.arange(len(pictures))
    if limit is not None and limit < len(pictures):
        indices = torch.cat(draw(limit, len(pictures), labels, seed))  # those not drawn stand in for broken ones
    count = len(pictures) if limit is None else min(limit, len(pictures))
    pixels, kept, skipped = _read(pictures, indices, np.empty((count, 3, *size), np.uint8), processor, tokens)
    if skipped:
        logger.warning("Skipped %d picture(s) that could not be read: %s", len(skipped), "; ".join(skipped[:10]))
        if not kept:
            raise InputError(f"`source`: none of its {len(skipped)} picture(s) could be read; {skipped[0]}.")
    labels = None if labels is None else labels[kept]
    data = PixelDataset(torch.from_numpy(pixels), labels, names, tuple(skipped), origin, selection, presumed)
    return _enough(data, minimum)


def _just_folders(folders: Sequence[str], class_names: Sequence[str] | None, wanted: bool | None) -> bool:
    """Whether sub-folders are no classes: when the user says so, or names classes that these are not among."""
    others = [] if class_names is None else sorted(set(folders) - set(class_names))
    if wanted is None and others:
        logger.info("The sub-folder %r is none of the class names: sub-folders are no labels here.", others[0])
    return bool(others) if wanted is None else not wanted


def _enough(data: PixelDataset, minimum: int) -> PixelDataset:
    if len(data) < max(minimum, 1):
        raise InputError(
            f"`source`: {len(data)} picture(s) came and at least {max(minimum, 1)} are needed; pass more."
        )
    return data


def _fitted(data: PixelDataset, size: tuple[int, ...], class_names: tuple[str, ...] | None) -> PixelDataset:
    if data.pixels.shape[-2:] != size:
        raise InputError(
            f"`source`: its pixels are {data.pixels.shape[-2]}x{data.pixels.shape[-1]} and the processor gives "
            f"{size[0]}x{size[1]}; load the pictures with this processor."
        )
    if class_names is None or class_names == data.class_names:
        return data
    if data.presumed and data.class_names is not None and _just_folders(data.class_names, class_names, None):
        return replace(data, labels=None, class_names=class_names, presumed=False)
    labels = None if data.labels is None else class_indices(data.labels.tolist(), data.class_names, class_names)
    return replace(data, labels=labels, class_names=class_names, presumed=False)


def _images(source: Any) -> list[Image.Image]:
    if isinstance(source, Tensor):
        if source.ndim != 4 or source.shape[1] != 3 or not source.is_floating_point():
            shape = tuple(source.shape)
            raise InputError(f"`source`: got a {source.dtype} tensor of shape {shape}; pass floats of N x 3 x H x W.")
        if not ((source >= 0) & (source <= 1)).all():
            raise InputError("`source`: the tensor holds values outside [0, 1]; pass pixels that are not normalised.")
        pixels = as_uint8(source.detach().cpu().float())
        return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]
    if isinstance(source, (list, tuple)):
        for place, item in enumerate(source):
            if not isinstance(item, Image.Image):
                raise InputError(f"`source`: item {place} is a {type(item).__name__}; pass a list of PIL images.")
        return list(source)
    raise InputError(
        f"`source`: got a {type(source).__name__}; pass a folder, a .parquet file, a Hub dataset id, a "
        "datasets.Dataset (one split), a list of PIL images, a tensor or a PixelDataset."
    )


def _read(
    pictures: Any, indices: Tensor, pixels: np.ndarray, processor: ProcessorMixin, tokens: dict[str, str | bool | None]
) -> tuple[np.ndarray, list[int], list[str]]:
    """Fill `pixels` with the first `pictures` at `indices` that can be read; also which they are and which cannot."""
    kept: list[int] = []
    skipped: list[str] = []
    with progress(None, "Reading pictures", total=len(pixels)) as bar:
        for index in indices.tolist():
            if len(kept) == len(pixels):
                break
            picture = pictures[index]
            try:
                pixels[len(kept)] = read_picture(picture, processor, tokens)
            except UnreadableError as error:
                name = picture["path"] if isinstance(picture, dict) else None
                skipped.append(printable(f"{name or f'picture {index}'}: {error}"))
            else:
                kept.append(index)
                bar.update()
    return pixels[: len(kept)], kept, skipped
