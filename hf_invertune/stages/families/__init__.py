"""Families of triggers that a scan searches; a new one is a file beside these, and a name here."""

from .additive import AdditiveFamily
from .base import TriggerFamily
from .blend import BlendFamily
from .keyed import KeyedFamily
from .masked import MaskedFamily
from .wave import WaveFamily
from .window import WindowFamily


FAMILIES: tuple[type[TriggerFamily], ...] = (MaskedFamily, AdditiveFamily, BlendFamily)
"""Those whose labels race by default."""
GATHERING: tuple[type[TriggerFamily], ...] = (WindowFamily, WaveFamily)
"""Those that pictures are gathered by."""
KEYED: tuple[type[TriggerFamily], ...] = (KeyedFamily,)
"""Those that act together with a word in the caption."""
