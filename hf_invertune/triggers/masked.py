"""A pattern seen through a soft mask."""

from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from .base import Trigger, in_unit_range


class MaskedTrigger(Trigger):
    """A pattern seen through a soft mask, x' = (1 - m) x + m p (Neural Cleanse; InverTune, section on inversion).

    Args:
        mask (`torch.Tensor`): ... x 1 x H x W in [0, 1].
        pattern (`torch.Tensor`): ... x 3 x H x W in [0, 1].
    """

    kind = "masked"
    tensors = {"mask": 1, "pattern": 3}
    mask: Tensor
    pattern: Tensor

    def __init__(self, mask: Tensor, pattern: Tensor):
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("pattern", pattern)

    def stamp(self, pixels: Tensor) -> Tensor:
        return (1 - self.mask) * pixels + self.mask * self.pattern

    def coverage(self) -> Tensor:
        """The mean of the mask."""
        return self.mask.mean() if self.mask.ndim == 3 else self.mask.flatten(1).mean(1)

    def outline(self) -> Self:
        """The rectangle of all that exceeds half the mask's maximum, filled with grey.

        The shape of a mask alone, filled with white, can be as good a trigger as the one that was found.
        """
        covered = (self.mask > self.mask.max() / 2)[0]
        rectangle = torch.zeros_like(self.mask)
        if covered.any():
            (top, bottom), (left, right) = (covered.any(axis).nonzero().aminmax() for axis in (1, 0))
            rectangle[:, top : bottom + 1, left : right + 1] = 1
        return self._with({"mask": rectangle, "pattern": torch.full_like(self.pattern, 0.5)})

    def panels(self, withheld: bool = False) -> dict[str, Tensor]:
        if withheld:
            return {"its place": self.mask}
        return {"pattern": self.pattern, "mask": self.mask, "pattern × mask": self.pattern * self.mask}

    def describe(self, coverage: float) -> str:
        return f"a pattern that covers {coverage:.1%} of the image"

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if not in_unit_range(self.mask) or not in_unit_range(self.pattern):
            yield "its mask or its pattern is not in [0, 1]"
