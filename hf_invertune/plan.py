"""What the activation tuning works on: inverted triggers and critical neurons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .encoder import DualEncoder
from .inversion import FAMILIES, InversionConfig, InvertedTrigger, TriggerInverter
from .localization import CriticalNeurons, LocalizationConfig, NeuronLocalizer
from .storage import Saved


WORKING = 1.0
"""Cross-entropy in nats below which an inverted trigger counts as working: p(target) > 0.37 on most images."""


@dataclass
class TuningPlan(Saved):
    """Inverted triggers and the neurons that react to them.

    Attributes:
        target (`int`): the backdoor's label.
        inverted (`list[InvertedTrigger]`): triggers that reach it; re-inversions are added while the tuning runs.
        critical (`CriticalNeurons`): where they act.
    """

    target: int
    inverted: list[InvertedTrigger]
    critical: CriticalNeurons

    def stamp(self, pixels: Tensor, step: int) -> Tensor:
        """Give each image of the batch (N x 3 x H x W) one of the triggers in turn, another one at each `step`."""
        stamped = torch.empty_like(pixels)
        for index, inverted in enumerate(self.inverted):
            rows = (torch.arange(len(pixels)) + step) % len(self.inverted) == index
            stamped[rows] = inverted.trigger.to(pixels.device)(pixels[rows])
        return stamped


def make_plan(
    encoder: DualEncoder,
    head: Tensor,
    class_names: Sequence[str],
    pixels: Tensor,
    target: int,
    found: list[InvertedTrigger],
    inversion: InversionConfig,
    localization: LocalizationConfig,
) -> TuningPlan:
    """Refine the triggers that a scan `found` with the full loss (new ones where it found none), then localise.

    A family that cannot reach the target at all is left out.
    """
    inverted = []
    for family in FAMILIES:
        start = [candidate.trigger for candidate in found if candidate.trigger.kind == family][:1] or None
        inverter = TriggerInverter(encoder, head, class_names, replace(inversion, family=family))
        inverted += inverter.invert(pixels, [target], start=start)
    inverted.sort(key=lambda found: found.cross_entropy)
    inverted = [found for found in inverted if found.cross_entropy < WORKING] or inverted[:1]
    critical = NeuronLocalizer(encoder, localization).localize(pixels, [found.trigger for found in inverted])
    return TuningPlan(target, inverted, critical)
