"""Pictures in memory, as the processor's resize and crop leave them; normalisation belongs to the encoder."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(eq=False)
class PixelDataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Pictures in memory, ready for triggers and the encoder.

    Args:
        pixels (`torch.Tensor`): N x 3 x H x W, uint8.
        labels (`torch.Tensor`, *optional*): N, int64 indices into `class_names`; -1 for a picture without a label. When
            none has one, there are none.
        class_names (`tuple[str, ...]`, *optional*): the names that the labels stand for, where they are known.
        skipped (`tuple[str, ...]`): the pictures that could not be read, each with the reason.
        source (`str`): where they came from: the name of a folder or file, or a Hub id.
        selection (`dict`): how they were chosen from it: config, split, columns, limit, seed, revision, where they
            matter.
        presumed (`bool`): whether the labels are names of sub-folders for which nobody has vouched.

    Raises:
        InputError: pixels or labels of another shape or type.
    """

    pixels: Tensor = field(repr=False)
    labels: Tensor | None = field(default=None, repr=False)
    class_names: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()
    source: str = "pictures in memory"
    selection: dict[str, Any] = field(default_factory=dict)
    presumed: bool = False

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1] != 3:
            raise InputError(
                f"`pixels`: got {self.pixels.dtype} of shape {tuple(self.pixels.shape)}; pass uint8 of N x 3 x H x W."
            )
        if self.labels is not None and (
            self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]
        ):
            raise InputError(
                f"`labels`: got {self.labels.dtype} of shape {tuple(self.labels.shape)} for {len(self)} pictures; "
                "pass one int64 index a picture."
            )
        if self.labels is not None and (self.labels < 0).all():
            self.labels = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`pixels`, 3 x H x W float32 in [0, 1], and `label` where there are labels."""
        item = {"pixels": as_float(self.pixels[index])}
        return item if self.labels is None else {**item, "label": self.labels[index]}

    def subset(self, indices: Sequence[int] | Tensor) -> "PixelDataset":
        """The pictures at `indices`, in that order."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, pixels=self.pixels[indices], labels=labels)

    def split(self, fraction: float, seed: int = 0) -> tuple["PixelDataset", "PixelDataset"]:
        """Two disjoint parts, the first with `fraction` of the pictures; each class falls apart in that proportion.

        Raises:
            InputError: when one part would be empty.
        """
        count = round(fraction * len(self))
        if not 0 < count < len(self):
            raise InputError(f"`fraction`: {fraction} of {len(self)} pictures leaves one part empty.")
        first, second = draw(count, len(self), self.labels, seed)
        return self.subset(first), self.subset(second)

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the shape and the bytes of the pixels: which pictures a result was made with."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().data)
        return digest.hexdigest()


def draw(count: int, number: int, labels: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """`count` of `number` indices, drawn with each class in proportion, and the others; both ascending."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(number, generator=generator)
    if labels is not None:
        classes, places = labels.unique(return_inverse=True)
        rank = torch.randperm(len(classes), generator=generator)
        order = order[rank[places[order]].argsort(stable=True)]
    # every (number / count)-th of the shuffled indices, which lie class by class
    drawn = (torch.arange(number + 1) * count // number).diff() == 1
    return order[drawn].sort().values, order[~drawn].sort().values


def as_float(pixels: Tensor) -> Tensor:
    """Pixels as float in [0, 1], whichever of float and uint8 came."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def as_uint8(pixels: Tensor) -> Tensor:
    """Pixels as uint8, whichever of float in [0, 1] and uint8 came."""
    return pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)
