"""A picture blended over the whole image: finds blended pictures that are no faint pattern."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...triggers import BlendTrigger, Trigger
from ...utils.settings import setting
from .base import TriggerFamily


STRONGER = 2.0
"""By how much the pictures that erase are more opaque than those that find."""


@dataclass(frozen=True)
class BlendFamily(TriggerFamily):
    """x' = (1 - opacity) x + opacity p; the picture p is learnt, at full resolution.

    All labels are reached at the same opacity, so what tells them apart is how surely: the cross-entropy.
    """

    kind = "blend"
    universal = "blended picture"
    refined = False

    opacity: float = setting(0.12, "Opacity of the picture.", above=0, most=1)

    def parameters(
        self, count: int, size: torch.Size, generator: torch.Generator, start: Sequence[Trigger | None]
    ) -> list[Tensor]:
        """[logits of the picture]."""
        picture = 0.5 * torch.randn(count, 1, 3, *size, generator=generator)
        for index, trigger in enumerate(start):
            if isinstance(trigger, BlendTrigger):
                picture[index, 0] = trigger.pattern.clamp(0.02, 0.98).logit()
        return [picture]

    def trigger(self, parameters: Sequence[Tensor]) -> Trigger:
        return BlendTrigger(parameters[0].sigmoid(), self.opacity)

    def wider(self) -> list[TriggerFamily]:
        return [replace(self, opacity=min(1.0, STRONGER * self.opacity))]

    def perturbations(
        self, size: torch.Size, generator: torch.Generator
    ) -> tuple[Tensor, Callable[[Tensor], Trigger]]:
        """One picture over the whole image."""
        return self.parameters(1, size, generator, ())[0], lambda variable: self.trigger([variable])
