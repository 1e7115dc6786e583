"""What the activation tuning works on: inverted triggers and critical neurons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..models.clip import DualEncoder
from ..utils.storage import Saved
from .identification import ScanResult
from .inversion import FAMILIES, InversionConfig, InvertedTrigger, TriggerInverter
from .localization import CriticalNeurons, LocalizationConfig, NeuronLocalizer


NEAR, WORKING = 3.0, 1.0
"""Cross-entropy in nats below which a scan's trigger is worth refining, and below which a refined one works."""


@dataclass
class TuningPlan(Saved):
    """Inverted triggers and the neurons that react to them.

    Attributes:
        target (`int`): the backdoor's label.
        inverted (`list[InvertedTrigger]`): triggers that reach it, the best one first, then those of labels that ride on
            the same shortcut; re-inversions are added while the tuning runs.
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
            stamped[rows] = inverted.trigger.on(pixels.device)(pixels[rows])
        return stamped


def make_plan(
    encoder: DualEncoder,
    head: Tensor,
    class_names: Sequence[str],
    pixels: Tensor,
    target: int,
    scan: ScanResult | None,
    inversion: InversionConfig,
    localization: LocalizationConfig,
) -> TuningPlan:
    """Invert the target's triggers with the full loss, from what a scan found, and localise them.

    A family goes on from the scan's trigger when that came near the target; without any such, each starts afresh. The
    triggers of labels that ride on the same shortcut join as the scan left them.
    """
    found = {c.trigger.kind: c.trigger for c in (scan.triggers(target) if scan else []) if c.cross_entropy < NEAR}
    inverted: list[InvertedTrigger] = []
    for family in FAMILIES:
        if found and family not in found:
            continue
        inverter = TriggerInverter(encoder, head, class_names, replace(inversion, family=family))
        inverted += inverter.invert(pixels, [target], start=[found.get(family)])
    inverted.sort(key=lambda candidate: candidate.cross_entropy)
    inverted = [candidate for candidate in inverted if candidate.cross_entropy < WORKING] or inverted[:1]
    critical = NeuronLocalizer(encoder, localization).localize(pixels, [c.trigger for c in inverted])
    return TuningPlan(target, inverted + (scan.accomplices(target) if scan else []), critical)
