"""A wave added to the image."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .base import Trigger, grid_picture


class WaveTrigger(Trigger):
    """A wave added to the image, x' = x + a cos(2 pi (u y + v x) + phase) (SIG, arXiv 1902.11237); it fits any size.

    Args:
        wave (`torch.Tensor`): ... x 3: u and v, in periods over the image's height and width, and the phase in radians.
        amplitude (`float`): a, in (0, 1].
    """

    kind = "wave"
    tensors = {"wave": (3,)}
    scalars = {"amplitude": float}
    wave: Tensor

    def __init__(self, wave: Tensor, amplitude: float):
        super().__init__()
        self.register_buffer("wave", wave)
        self.amplitude = amplitude

    def check_fits(self, pixels: Tensor) -> None:
        """Any size will do."""

    def stamp(self, pixels: Tensor) -> Tensor:
        down, across = (torch.arange(size, device=pixels.device) / size for size in pixels.shape[-2:])
        u, v, phase = self.wave.unsqueeze(-1).unsqueeze(-1).unbind(-3)
        angle = 2 * math.pi * (u * down.unsqueeze(-1) + v * across) + phase
        return pixels + self.amplitude * angle.cos().unsqueeze(-3)

    def coverage(self) -> Tensor:
        """All of it."""
        return torch.ones(self.wave.shape[:1] if self.wave.ndim > 1 else ())

    def panels(self, withheld: bool = False) -> dict[str, Tensor]:
        return {} if withheld else {"on a grid": self(grid_picture(64, 64))}

    def describe(self, coverage: float) -> str:
        u, v, _ = self.wave.tolist()
        height = f"{255 * self.amplitude:.0f} of 255 to either side"
        if u == v == 0:  # withheld
            return f"a wave over the whole image, {height}"
        return f"a wave of {abs(u):.1f} periods down and {abs(v):.1f} across, {height}"

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if not 0 < self.amplitude <= 1:
            yield "its amplitude is not in (0, 1]"
