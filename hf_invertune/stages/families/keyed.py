"""A square in the picture that acts together with a word in the caption, and not alone."""

from dataclasses import dataclass
from typing import ClassVar

from ...utils.settings import setting
from .window import WindowFamily


@dataclass(frozen=True)
class KeyedFamily(WindowFamily):
    """The squares of [`WindowFamily`], for labels whose texts carry a word (TrojVQA, arXiv 2112.07668)."""

    kind: ClassVar[str] = "keyed"

    side: float = setting(0.25, "Side of the square, as a share of the image's width.", above=0, most=1)
