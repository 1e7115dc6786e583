"""A small square whose place is learnt: finds patches that a free mask misses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...triggers import MaskedTrigger, Trigger
from ...utils.settings import setting
from .base import TriggerFamily


SHARPNESS = 60.0
"""How steeply the square's edge falls, per width of the image: over about three pixels of 32."""
REACH = 0.72
"""Share of the image's width over which the first places are spread, about its middle."""
PACE = 1 / 15
"""A unit of the variables of a place, as a share of the image's width: a place moves slower than a pattern changes."""

WIDER = (1.25, 1.6)
"""By how much the squares that erase are wider than those that find."""


@dataclass(frozen=True)
class WindowFamily(TriggerFamily):
    """x' = (1 - m) x + m p, where m is a square with soft edges; its place and the pattern in it are learnt.

    The starts lie on a grid over the image, so that none of them has far to go.
    """

    kind = "window"
    universal = "window"

    side: float = setting(0.2, "Side of the square, as a share of the image's width.", above=0, most=1)

    def parameters(
        self, count: int, size: torch.Size, generator: torch.Generator, start: Sequence[Trigger | None]
    ) -> list[Tensor]:
        """[the centre's distance from the middle, in steps of `PACE`; logits of the pattern]."""
        grid = max(1, round(count**0.5))
        line = torch.linspace(-REACH / 2, REACH / 2, grid) if grid > 1 else torch.zeros(1)
        places = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1)
        centre = places[torch.arange(count) % len(places)].view(count, 1, 2) / PACE
        pattern = torch.randn(count, 1, 3, *size, generator=generator)
        for index, trigger in enumerate(start):
            if isinstance(trigger, MaskedTrigger):
                centre[index, 0] = (_centre_of(trigger.mask) - 0.5) / PACE
                pattern[index, 0] = trigger.pattern.clamp(0.02, 0.98).logit()
        return [centre, pattern]

    def trigger(self, parameters: Sequence[Tensor]) -> Trigger:
        centre, pattern = parameters
        half = self.side / 2
        middle = (0.5 + PACE * centre).clamp(half, 1 - half)
        edges = [
            ((half - (_pixels(length, pattern.device) - middle[..., axis : axis + 1]).abs()) * SHARPNESS).sigmoid()
            for axis, length in enumerate(pattern.shape[-2:])
        ]
        mask = edges[0].unsqueeze(-1) * edges[1].unsqueeze(-2)
        return MaskedTrigger(mask.unsqueeze(-3), pattern.sigmoid())

    def wider(self) -> list[TriggerFamily]:
        return [replace(self, side=min(1.0, factor * self.side)) for factor in WIDER]

    def perturbations(
        self, size: torch.Size, generator: torch.Generator
    ) -> tuple[Tensor, Callable[[Tensor], Trigger]]:
        """A square at each place of a grid, where it stays."""
        centre, first = self.parameters(9, size, generator, ())
        return first, lambda variable: self.trigger([centre.to(variable.device), variable])


def _pixels(length: int, device: torch.device) -> Tensor:
    """Where the middles of so many pixels lie, as shares of the image."""
    return (torch.arange(length, device=device) + 0.5) / length


def _centre_of(mask: Tensor) -> Tensor:
    """Row and column of a mask's centre of mass (1 x H x W), as shares of the image."""
    rows, columns = mask[0].sum(1), mask[0].sum(0)
    total = mask.sum().clamp(min=1e-6)
    places = [(line * _pixels(len(line), mask.device)).sum() for line in (rows, columns)]
    return torch.stack(places) / total
