"""A pattern seen through a soft mask: finds patches, and whatever replaces a part of the image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...triggers import MaskedTrigger, Trigger
from ...utils.settings import setting
from .base import TriggerFamily


@dataclass(frozen=True)
class MaskedFamily(TriggerFamily):
    """x' = (1 - m) x + m p (Neural Cleanse; InverTune, section on trigger inversion).

    0.01 * ||m||_1 on 224x224 images, InverTune's term, is a `mask_weight` of 500, which does not depend on the resolution.
    Its universal perturbation is a patch (InverTune's code: 38x38 of 224x224).
    """

    kind = "masked"
    universal = "patch"

    mask_weight: float = setting(100.0, "Weight of the share of the image that the mask covers.", least=0)
    initial_mask: float = setting(0.5, "The mask's first value.", above=0, below=1)
    patch_share: float = setting(0.029, "Share of the image that the universal patch covers.", above=0, most=1)

    def parameters(
        self, count: int, size: torch.Size, generator: torch.Generator, start: Sequence[Trigger | None]
    ) -> list[Tensor]:
        """[logits of the mask, logits of the pattern]."""
        level = torch.tensor(self.initial_mask).logit()
        mask = level + 0.2 * torch.randn(count, 1, 1, *size, generator=generator)
        pattern = torch.randn(count, 1, 3, *size, generator=generator)
        for index, trigger in enumerate(start):
            if isinstance(trigger, MaskedTrigger):
                mask[index, 0] = trigger.mask.clamp(0.02, 0.98).logit()
                pattern[index, 0] = trigger.pattern.clamp(0.02, 0.98).logit()
        return [mask, pattern]

    def trigger(self, parameters: Sequence[Tensor]) -> Trigger:
        mask, pattern = parameters
        return MaskedTrigger(mask.sigmoid(), pattern.sigmoid())

    def penalty(self, trigger: Trigger) -> Tensor:
        return self.mask_weight * trigger.coverage()

    def perturbations(
        self, size: torch.Size, generator: torch.Generator
    ) -> tuple[Tensor, Callable[[Tensor], Trigger]]:
        """A patch at each of the places of [`patch_areas`]."""
        areas = patch_areas(size[-1], self.patch_share)
        first = torch.randn(len(areas), 1, 3, *size, generator=generator)
        return first, lambda variable: MaskedTrigger(areas.to(variable.device), variable.sigmoid())


def patch_areas(size: int, share: float) -> Tensor:
    """Masks (5 x 1 x 1 x size x size) of a square of that share of the image, near each corner and in the middle."""
    side, margin = max(2, round(share**0.5 * size)), round(size / 32)
    far, middle = size - side - margin, (size - side) // 2
    areas = torch.zeros(5, 1, 1, size, size)
    for index, (top, left) in enumerate([(far, far), (far, margin), (margin, far), (margin, margin), (middle,) * 2]):
        areas[index, ..., top : top + side, left : left + side] = 1
    return areas
