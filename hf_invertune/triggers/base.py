"""What all triggers are: modules that change pixels in [0, 1] into pixels in [0, 1].

The attack's trigger, an inverted one, a saved one and the one an evaluation uses are all a [`Trigger`], so that any can
stand where another does. Tensors may carry leading dimensions: a trigger with a mask of shape K x 1 x 1 x H x W turns
pixels of shape 1 x N x 3 x H x W into K x N x 3 x H x W, which is how many labels are inverted in one batch.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from ..errors import InputError
from ..utils.tensor_file import TensorFile


class Trigger(TensorFile):
    """Base of all triggers: a kind says how it changes pixels, and what a report may say and show of it."""

    @abstractmethod
    def stamp(self, pixels: Tensor) -> Tensor:
        """The formula of the trigger, before the clamp to [0, 1]."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Stamp the trigger on `pixels` (... x 3 x H x W in [0, 1]); the result has the same range."""
        self.check_fits(pixels)
        return self.stamp(pixels).clamp(0, 1)

    def check_fits(self, pixels: Tensor) -> None:
        """Refuse images (... x 3 x H x W) of a size for which this trigger is not made.

        Raises:
            InputError: with the size that came and the size that fits.
        """
        (height, width), (own_height, own_width) = pixels.shape[-2:], next(self.buffers()).shape[-2:]
        if (height, width) != (own_height, own_width):
            raise InputError(
                f"`trigger`: it fits images of {own_height}x{own_width} pixels, and these have {height}x{width}."
            )

    def split(self) -> list[Self]:
        """The single triggers of a batch whose tensors lead with L x 1, detached and on the CPU."""
        batch = {name: tensor.detach().cpu() for name, tensor in self.named_buffers()}
        count = len(next(iter(batch.values())))
        return [
            type(self)(**{n: tensor[i, 0].clone() for n, tensor in batch.items()}, **self.parts())
            for i in range(count)
        ]

    def coverage(self) -> Tensor:
        """How much of its room each trigger uses, in [0, 1]: a scalar, or L of a batch whose tensors lead with L x 1."""
        first = next(self.buffers())
        return torch.ones(first.shape[:1] if first.ndim > 3 else ())

    def outline(self) -> Self:
        """A trigger of this kind that may be published: at most the place and the size of this one, nothing of its look."""
        return self._with({name: torch.zeros_like(tensor) for name, tensor in self.named_buffers()})

    def panels(self, withheld: bool = False) -> dict[str, Tensor]:
        """What a page shows of the trigger: caption -> picture, 3 or 1 x H x W in [0, 1].

        Args:
            withheld (`bool`): whether this is an [`outline`]; then only what that holds is shown.
        """
        if withheld:
            return {}
        size = next(self.buffers()).shape[-2:]
        return {"on a grid": self(grid_picture(size[0], size[1]))}

    def describe(self, coverage: float) -> str:
        """The trigger in a few words, for a sentence: "a pattern that covers 2.3% of the image".

        Args:
            coverage (`float`): what [`coverage`] was before the pixels were withheld.
        """
        return f"a trigger of the kind {self.kind}"

    def faults(self) -> Iterator[str]:
        """What in a single trigger cannot come from a search: values that are not finite, or out of range."""
        if not all(t.dtype == torch.float32 and t.numel() and t.isfinite().all() for t in self.buffers()):
            yield "its tensors are empty, or not finite float32 numbers"

    def _grey(self) -> Self:
        """This trigger with a pattern of nothing but grey."""
        return self._with({name: torch.full_like(tensor, 0.5) for name, tensor in self.named_buffers()})

    def _with(self, tensors: dict[str, Tensor]) -> Self:
        return type(self)(**tensors, **self.parts())


def grid_picture(height: int, width: int) -> Tensor:
    """A 3 x H x W picture of thin light lines on grey, on which any change of pixels shows."""
    spacing = max(2, min(height, width) // 8)
    lines = (torch.arange(height) % spacing == 0).view(-1, 1) | (torch.arange(width) % spacing == 0)
    return (0.35 + 0.4 * lines.float()).expand(3, height, width).clone()


def in_unit_range(tensor: Tensor) -> bool:
    """Whether all values are in [0, 1], and there are any."""
    return bool(tensor.numel() and tensor.min() >= 0 and tensor.max() <= 1)
