"""Families of triggers that a scan searches; a new one is a file beside these, and a name here."""

from .additive import AdditiveFamily
from .base import TriggerFamily
from .masked import MaskedFamily
from .window import WindowFamily


FAMILIES: tuple[type[TriggerFamily], ...] = (MaskedFamily, AdditiveFamily)
"""Those whose labels race by default."""
GATHERING: tuple[type[TriggerFamily], ...] = (WindowFamily,)
"""Those that pictures are gathered by."""
