"""Models in the format of open_clip: a conversion of our own to transformers, and back."""

from .config import CONFIG
from .encoder import ResNetEncoder
from .folder import WEIGHTS, read_open_clip, write_open_clip


__all__ = ["CONFIG", "WEIGHTS", "ResNetEncoder", "read_open_clip", "write_open_clip"]
