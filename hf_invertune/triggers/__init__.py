"""Triggers, one file a kind."""

from .additive import AdditiveTrigger
from .base import Trigger
from .blend import BlendTrigger
from .masked import MaskedTrigger
from .patch import PatchTrigger, ScatteredPatchTrigger, checkerboard
from .sample_specific import SampleSpecificTrigger
from .warp import WarpTrigger
from .wave import WaveTrigger


__all__ = [
    "AdditiveTrigger",
    "BlendTrigger",
    "MaskedTrigger",
    "PatchTrigger",
    "SampleSpecificTrigger",
    "ScatteredPatchTrigger",
    "Trigger",
    "WarpTrigger",
    "WaveTrigger",
    "checkerboard",
]
