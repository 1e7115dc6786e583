"""Patches: at one place, or at a place that is another one for every image."""

from typing import Self

import torch
from torch import Tensor

from ..errors import InputError
from .base import Trigger


class PatchTrigger(Trigger):
    """A patch pasted at a fixed place (BadNets, arXiv 1708.06733).

    Args:
        patch (`torch.Tensor`): 3 x h x w in [0, 1].
        top (`int`): row of the patch's first row.
        left (`int`): column of the patch's first column.
    """

    kind = "patch"
    tensors = {"patch": 3}
    scalars = {"top": int, "left": int}
    patch: Tensor

    def __init__(self, patch: Tensor, top: int, left: int):
        super().__init__()
        self.register_buffer("patch", patch)
        self.top, self.left = top, left

    def outline(self) -> Self:
        return self._grey()

    def panels(self, withheld: bool = False) -> dict[str, Tensor]:
        return {} if withheld else {"patch": self.patch}

    def check_fits(self, pixels: Tensor) -> None:
        height, width = pixels.shape[-2:]
        bottom, right = self._end
        if self.top < 0 or self.left < 0 or bottom > height or right > width:
            raise InputError(
                f"`trigger`: the patch covers rows {self.top}-{bottom} and columns {self.left}-{right}, outside "
                f"images of {height}x{width} pixels."
            )

    def stamp(self, pixels: Tensor) -> Tensor:
        bottom, right = self._end
        stamped = pixels.clone()
        stamped[..., self.top : bottom, self.left : right] = self.patch
        return stamped

    @property
    def _end(self) -> tuple[int, int]:
        """The row and the column after the patch's last ones."""
        return self.top + self.patch.shape[-2], self.left + self.patch.shape[-1]


class ScatteredPatchTrigger(Trigger):
    """A patch pasted at a place that is another one for every image (BadNet with a random place, CleanCLIP's code).

    The place follows from the seed and the image's own pixels, so that it does not depend on how images are batched.

    Args:
        patch (`torch.Tensor`): 3 x h x w in [0, 1].
        seed (`int`): decides which place an image gets.
    """

    kind = "scattered-patch"
    tensors = {"patch": 3}
    scalars = {"seed": int}
    patch: Tensor

    def __init__(self, patch: Tensor, seed: int):
        super().__init__()
        self.register_buffer("patch", patch)
        self.seed = seed

    def outline(self) -> Self:
        return self._grey()

    def panels(self, withheld: bool = False) -> dict[str, Tensor]:
        return {} if withheld else {"patch": self.patch}

    def check_fits(self, pixels: Tensor) -> None:
        (height, width), (own_height, own_width) = pixels.shape[-2:], self.patch.shape[-2:]
        if own_height > height or own_width > width:
            raise InputError(
                f"`trigger`: the patch of {own_height}x{own_width} pixels is larger than images of {height}x{width}."
            )

    def places(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column (N each) of the patch's first pixel on each of N x 3 x H x W pixels."""
        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.randint(1 << 20, pixels.shape[1:], generator=generator).to(pixels.device)
        content = (pixels.detach() * 255).round().long()
        rows, columns = (size - own + 1 for size, own in zip(pixels.shape[-2:], self.patch.shape[-2:], strict=True))
        # a prime comes first: even pixels would make an even sum, and leave out every other place
        place = (content * weights).flatten(1).sum(1) % 1_000_003 % (rows * columns)
        return place // columns, place % columns

    def stamp(self, pixels: Tensor) -> Tensor:
        flat = pixels.reshape(-1, *pixels.shape[-3:])
        stamped = flat.clone()
        for picture, top, left in zip(stamped, *(place.tolist() for place in self.places(flat)), strict=True):
            picture[:, top : top + self.patch.shape[-2], left : left + self.patch.shape[-1]] = self.patch
        return stamped.view(pixels.shape)


def checkerboard(size: int, low: Tensor | float = 0.0, high: Tensor | float = 1.0) -> Tensor:
    """A 3 x size x size checkerboard of one-pixel squares, the classical BadNets patch."""
    rows = torch.arange(size)
    squares = ((rows.view(-1, 1) + rows.view(1, -1)) % 2).float()
    return (low + (high - low) * squares).expand(3, size, size).clone()
