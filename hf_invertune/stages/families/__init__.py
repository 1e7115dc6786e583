"""Families of triggers that a scan searches; a new one is a file beside these, and a name here."""

from .additive import AdditiveFamily
from .base import TriggerFamily
from .masked import MaskedFamily


FAMILIES: tuple[type[TriggerFamily], ...] = (MaskedFamily, AdditiveFamily)
"""Those that a scan searches by default."""
