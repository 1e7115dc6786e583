"""One picture in whatever form it is stored becomes pixels, or an [`UnreadableError`] that says why not."""

import warnings
from contextlib import nullcontext
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import ProcessorMixin

from ..errors import HubError, InputError
from ..utils.hub_errors import hub_errors
from .naflex import square_side, to_square


_MAXIMAL_ASPECT = 1000  # a thinner strip would be resized to gigabytes before its middle is cut out


class UnreadableError(Exception):
    """A picture that cannot be read: damaged, of no known format, or of more pixels than Pillow trusts."""


def read_picture(
    picture: Any, processor: ProcessorMixin, tokens: dict[str, str | bool | None] | None = None
) -> np.ndarray:
    """A picture, 3 x H x W in uint8, after the processor's resize and crop; of an animated one the first frame.

    Args:
        picture: a PIL image, or `bytes` and `path` as a [`~datasets.Dataset`] stores them.
        processor ([`~transformers.ProcessorMixin`]): gives the size.
        tokens (`dict`, *optional*): access tokens by dataset, for a streamed picture, which is fetched here.

    Raises:
        UnreadableError: whatever a decoder has against it.
        InputError, HubError: when it is to be fetched and cannot be.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if picture is None:
                raise ValueError("the row is empty")
            if isinstance(picture, dict):
                path, token = picture["path"] or "", next(iter((tokens or {}).values()), None)
                away = hub_errors(path, argument="source", kind="dataset", token=token)
                with away if "://" in path else nullcontext():
                    picture = datasets.Image().decode_example(picture, tokens)
            return resize(rgb(picture), processor)
    except (InputError, HubError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError("of no known picture format") from error
    except Exception as error:  # decoders raise anything at all on damaged files
        raise UnreadableError(str(error) or type(error).__name__) from error


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
    side = square_side(processor.image_processor)
    if side is not None:
        return to_square(picture, processor.image_processor, side)
    output = processor.image_processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.rint(output["pixel_values"][0]).clip(0, 255).astype(np.uint8)
