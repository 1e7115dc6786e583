"""Clean images in, pixel batches out: a folder, a parquet file, a Hub dataset, PIL images or a tensor become pixels.

Pixels are stored as uint8, as the processor's resize and crop leave them, and handed out as float32 in [0, 1].
Normalisation belongs to the encoder. With torchvision installed the processor's resize differs slightly from PIL's, so
digests agree only between machines that both have it or both lack it.
"""

import logging
import struct
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from transformers import ProcessorMixin

from ..errors import InputError
from ..utils.hub_errors import hub_errors
from ..utils.progress import progress
from ..utils.tokens import usable_token
from .pixels import PixelDataset, as_uint8, draw
from .prompts import check_class_names
from .sources import open_source


logger = logging.getLogger(__name__)


IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")

_MAXIMAL_ASPECT = 1000  # a thinner strip would be resized to gigabytes before its middle is cut out
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, *_BOMBS)
"""What Pillow raises on files that are damaged, of no known format, or of more pixels than it trusts."""


ImageSource: TypeAlias = str | Path | datasets.Dataset | Sequence[Image.Image] | Tensor | PixelDataset


def load_images(
    source: ImageSource,
    processor: ProcessorMixin,
    *,
    class_names: Sequence[str] | None = None,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    minimum: int = 1,
    token: str | bool | None = None,
    revision: str | None = None,
) -> PixelDataset:
    """Read `source` into a [`PixelDataset`] of the size that `processor` gives. Unreadable pictures are skipped.

    Args:
        source: a folder of pictures, flat or with one sub-folder a class; a .parquet file; the id of a dataset on the
            Hub; a [`~datasets.Dataset`]; a list of PIL images; a float tensor, N x 3 x H x W in [0, 1]; or a
            [`PixelDataset`], which is checked and, when nothing is to change, returned as it is.
        processor ([`~transformers.ProcessorMixin`]): its resize and crop are applied, its normalisation is not.
        class_names (`Sequence[str]`, *optional*): what the labels shall index. Labels with names of their own are
            matched by name, others are taken for indices into it.
        split (`str`): the split of a Hub dataset.
        image_column (`str`, *optional*): by default the one column of images, or one called image, img or picture.
        label_column (`str`, *optional*): by default the one column of class labels, or one called label, labels,
            fine_label, class or target; without any the pictures have no labels.
        limit (`int`, *optional*): how many pictures to take at most, drawn by `seed`, each class in proportion. A
            Hub dataset is then streamed, its files in random order, through a shuffle buffer of four times `limit`,
            whatever the classes: one that is sorted by class is better loaded whole.
        seed (`int`): seed of the draw.
        minimum (`int`): how many pictures are needed.
        token (`str` or `bool`, *optional*): access token of the Hub.
        revision (`str`, *optional*): branch, tag or commit of a Hub dataset.

    Raises:
        InputError: whenever `source` cannot be used; the message says what came and what to do.
    """
    if class_names is not None:
        class_names = check_class_names(class_names)
    if limit is not None and limit < 1:
        raise InputError(f"`limit`: got {limit}; pass a positive number, or None for all pictures.")
    size, token = resize(Image.new("RGB", (1, 1)), processor).shape[-2:], usable_token(token)
    origin = _origin(source)
    options: dict[str, Any] = {"image_column": image_column, "label_column": label_column, "limit": limit}
    if limit is not None:
        options["seed"] = seed
    if isinstance(source, (str, Path)):
        source, commit = open_source(source, split, limit, seed, token, revision)
        if commit is not None:
            options |= {"split": split, "revision": commit}
    selection = {name: value for name, value in options.items() if value is not None}

    labels, names = None, None
    if isinstance(source, datasets.Dataset):
        pictures, values, names = _columns(source, image_column, label_column)
        if values is not None:
            labels = _class_indices(values, names, class_names)
    elif isinstance(source, PixelDataset):
        data = _fitted(source, size, class_names)
        if limit is not None and limit < len(data):
            data = data.subset(draw(limit, len(data), data.labels, seed)[0])
        return _enough(data, minimum)
    else:
        pictures = _images(source)

    indices = torch.arange(len(pictures))
    if limit is not None and limit < len(pictures):
        indices = torch.cat(draw(limit, len(pictures), labels, seed))  # those not drawn stand in for broken ones
    count = len(pictures) if limit is None else min(limit, len(pictures))
    pixels, kept, skipped = _read(pictures, indices, np.empty((count, 3, *size), np.uint8), processor, origin, token)
    if skipped:
        logger.warning("Skipped %d picture(s) that could not be read: %s", len(skipped), "; ".join(skipped[:10]))
        if not kept:
            raise InputError(f"`source`: none of its {len(skipped)} picture(s) could be read; {skipped[0]}.")
    labels = None if labels is None else labels[kept]
    data = PixelDataset(torch.from_numpy(pixels), labels, class_names or names, tuple(skipped), origin, selection)
    return _enough(data, minimum)


def _origin(source: ImageSource) -> str:
    """What a report may say of where pictures came from: a Hub id, or a name without its folder."""
    if not isinstance(source, (str, Path)):
        return "pictures in memory"
    return Path(source).name if Path(source).expanduser().exists() else str(source)


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
    labels = None if data.labels is None else _class_indices(data.labels.tolist(), data.class_names, class_names)
    return replace(data, labels=labels, class_names=class_names)


def _class_indices(values: list[Any], names: Sequence[str] | None, class_names: Sequence[str] | None) -> Tensor:
    """Labels (names, indices into `names`, or else indices into `class_names`) as indices into `class_names`."""
    wrong = "`source`: labels out of range or of the wrong type"
    called = values
    if names is not None or not values or not all(isinstance(value, str) for value in values):
        known = names if names is not None else class_names
        for value in values:
            if type(value) is not int:
                raise InputError(f"{wrong}: got {value!r}; a label must be an integer or one of `class_names`.")
            if value < 0 or (known is not None and value >= len(known)):
                allowed = "0 or more" if known is None else f"0 to {len(known) - 1}"
                raise InputError(f"{wrong}: got {value}; {allowed} can be used.")
        if names is None or class_names is None:
            return torch.tensor(values, dtype=torch.int64)
        called = [names[value] for value in values]
    elif class_names is None:
        raise InputError(f"{wrong}: got {values[0]!r}, a name; pass `class_names` to say which index each name has.")
    unknown = sorted(set(called) - set(class_names))
    if unknown:
        raise InputError(
            f"`class_names`: {', '.join(map(repr, unknown[:5]))} ({len(unknown)} in all) label pictures and are not "
            "among them; add them, or cast the label column to integers to go by index."
        )
    places = {name: place for place, name in enumerate(class_names)}
    return torch.tensor([places[name] for name in called], dtype=torch.int64)


def _columns(
    dataset: datasets.Dataset, image_column: str | None, label_column: str | None
) -> tuple[Any, list[Any] | None, tuple[str, ...] | None]:
    """The column of undecoded pictures, the labels and the labels' names."""
    dataset = dataset.with_format(None)
    features = dataset.features
    image = column_of(features, image_column, "image_column", datasets.Image, IMAGE_COLUMNS)
    label = column_of(features, label_column, "label_column", datasets.ClassLabel, LABEL_COLUMNS)
    columns = ", ".join(features)
    if image is None:
        raise InputError(f"`image_column`: no column holds images; name one of the columns {columns}.")
    kind = features[image]
    if not isinstance(kind, datasets.Image) and not (isinstance(kind, dict) and {"bytes", "path"} <= kind.keys()):
        raise InputError(f"`image_column`: {image!r} holds {kind}, not images; the columns are {columns}.")
    pictures = dataset.cast_column(image, datasets.Image(decode=False))[image]
    if label is None:
        return pictures, None, None
    names = tuple(features[label].names) if isinstance(features[label], datasets.ClassLabel) else None
    return pictures, dataset[label][:], names


def column_of(
    features: datasets.Features, given: str | None, argument: str, kind: type, usual: tuple[str, ...]
) -> str | None:
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
    pictures: Any,
    indices: Tensor,
    pixels: np.ndarray,
    processor: ProcessorMixin,
    origin: str,
    token: str | bool | None,
) -> tuple[np.ndarray, list[int], list[str]]:
    """Fill `pixels` with the first `pictures` at `indices` that can be read; also which they are and which cannot."""
    kept: list[int] = []
    skipped: list[str] = []
    with warnings.catch_warnings(), progress(None, "Reading pictures", total=len(pixels)) as bar:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for index in indices.tolist():
            if len(kept) == len(pixels):
                break
            picture = pictures[index]
            name = f"picture {index}"
            try:
                if isinstance(picture, dict):
                    name = picture["path"] or name
                    with hub_errors(
                        name, argument="source", kind="dataset", token=token
                    ):  # a streamed one is fetched here
                        picture = datasets.Image().decode_example(picture, {origin: token})
                elif picture is None:
                    raise ValueError("the row is empty")
                pixels[len(kept)] = resize(rgb(picture), processor)
            except InputError:
                raise
            except UnidentifiedImageError:
                skipped.append(f"{name}: of no known picture format")
            except BROKEN as error:
                skipped.append(f"{name}: {error}")
            else:
                kept.append(index)
                bar.update()
    return pixels[: len(kept)], kept, skipped


def rgb(picture: Image.Image) -> Image.Image:
    """An upright RGB picture: 16 bits scaled to 8, what is transparent shown on white."""
    width, height = picture.size
    if max(width, height) > _MAXIMAL_ASPECT * min(width, height):
        raise ValueError(f"{width}x{height} pixels are too thin a strip")
    if picture.mode == "F":
        raise ValueError("floats (mode F) have no known range")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # convert() would clip at 255
        values = np.asarray(picture).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def resize(picture: Image.Image, processor: ProcessorMixin) -> np.ndarray:
    """3 x H x W, uint8, after the processor's resize and crop."""
    output = processor.image_processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.rint(output["pixel_values"][0]).clip(0, 255).astype(np.uint8)
