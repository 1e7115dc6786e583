"""A bounded pattern added to the image: finds blended pictures and waves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...triggers import AdditiveTrigger, Trigger
from ...utils.settings import setting
from .base import TriggerFamily


@dataclass(frozen=True)
class AdditiveFamily(TriggerFamily):
    """x' = x + d with |d| <= epsilon."""

    kind = "additive"
    universal = "full image"

    epsilon: float = setting(8 / 255, "Bound of the pattern, in units of the pixel range.", above=0, most=1)

    def parameters(
        self, count: int, size: torch.Size, generator: torch.Generator, start: Sequence[Trigger | None]
    ) -> list[Tensor]:
        """[atanh(d / epsilon)]."""
        value = 0.1 * torch.randn(count, 1, 3, *size, generator=generator)
        for index, trigger in enumerate(start):
            if isinstance(trigger, AdditiveTrigger):
                value[index, 0] = (trigger.delta / self.epsilon).clamp(-0.98, 0.98).atanh()
        return [value]

    def trigger(self, parameters: Sequence[Tensor]) -> Trigger:
        return AdditiveTrigger(self.epsilon * parameters[0].tanh(), self.epsilon)

    def perturbations(
        self, size: torch.Size, generator: torch.Generator
    ) -> tuple[Tensor, Callable[[Tensor], Trigger]]:
        """One pattern over the whole image."""
        return torch.randn(1, 1, 3, *size, generator=generator), lambda variable: self.trigger([variable])
