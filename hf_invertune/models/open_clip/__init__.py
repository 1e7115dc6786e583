"""Models in the format of open_clip: a conversion of our own to transformers, and back."""

from .encoder import ResNetEncoder
from .folder import WEIGHTS, is_open_clip, read_open_clip, write_open_clip


__all__ = ["WEIGHTS", "ResNetEncoder", "is_open_clip", "read_open_clip", "write_open_clip"]
