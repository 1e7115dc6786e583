"""NaFlex: image processors that cut pictures of any shape into at most so many patches (SigLIP 2, arXiv 2502.14786).

The method needs pictures of one size, since a trigger has a place. The largest square that the processor lets through is
that size: a square picture becomes it by the processor's own resize, and any other is squeezed into it.
"""

import math
from typing import Any

import numpy as np
from PIL import Image


def square_side(image_processor: Any) -> int | None:
    """Height and width in pixels of the largest square; `None` of a processor that gives pictures, not patches."""
    if not hasattr(image_processor, "max_num_patches"):
        return None
    return math.isqrt(image_processor.max_num_patches) * int(image_processor.patch_size)


def to_square(picture: Image.Image, image_processor: Any, side: int) -> np.ndarray:
    """An RGB picture as a square, 3 x `side` x `side`, uint8."""
    return np.asarray(picture.resize((side, side), image_processor.resample)).transpose(2, 0, 1)
