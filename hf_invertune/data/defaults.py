"""What a scan looks at when nothing is given: a vocabulary that comes along, and pictures from the Hub."""

import functools
from collections.abc import Sequence
from pathlib import Path

from transformers import ProcessorMixin

from ..errors import HubError, InputError
from .loading import load_images
from .names import read_class_names, read_templates
from .pixels import PixelDataset


DATASET = "detection-datasets/coco"
REVISION = "cf0b22332314a937e9dc8a1957b21725430bb41d"
SPLIT = "val"
"""COCO 2017's validation pictures (https://cocodataset.org/#termsofuse): everyday scenes in no order, as parquet."""
LIMIT = 256

_VOCABULARY = Path(__file__).parent / "vocabulary"


@functools.cache
def default_vocabulary() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """ImageNet-1k's 1,000 names, in its order, and CLIP's seven templates for them; see vocabulary/README.md."""
    return read_class_names(str(_VOCABULARY / "imagenet_classes.txt")), read_templates(_VOCABULARY / "templates.txt")


def default_images(
    processor: ProcessorMixin,
    *,
    class_names: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    token: str | bool | None = None,
) -> PixelDataset:
    """Pictures without labels, streamed from one commit of one dataset on the Hub.

    Args:
        processor ([`~transformers.ProcessorMixin`]): as in [`load_images`].
        class_names (`Sequence[str]`, *optional*): the labels to look at.
        limit (`int`, *optional*): how many; 256 when not given.
        seed (`int`): seed of the draw.
        token (`str` or `bool`, *optional*): access token of the Hub.

    Raises:
        InputError: when they cannot be had.
    """
    try:
        return load_images(
            DATASET,
            processor,
            class_names=class_names,
            split=SPLIT,
            revision=REVISION,
            limit=limit or LIMIT,
            seed=seed,
            token=token,
        )
    except (InputError, HubError) as error:
        raise InputError(
            f"`images`: none were given, and those of {DATASET} on the Hub cannot be had ({error}). Pass a folder of a few "
            "hundred clean pictures, or what else holds some."
        ) from error
