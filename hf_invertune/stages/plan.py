"""What the activation tuning works on: inverted triggers and critical neurons."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.classifier import ZeroShotClassifier
from ..utils.seeds import stream
from ..utils.storage import Saved
from .configs import RemovalConfig
from .identification import ScanResult
from .inputs import Inputs
from .inversion import InvertedTrigger, TriggerInverter
from .localization import CriticalNeurons, NeuronLocalizer


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
        class_names (`list[str]`): what labels stand for.
        inputs ([`Inputs`], *optional*): the model and the images, where [`BackdoorRemover`] gave them.
    """

    target: int
    inverted: list[InvertedTrigger]
    critical: CriticalNeurons
    class_names: list[str]
    inputs: Inputs | None = None

    def stamp(self, pixels: Tensor, step: int) -> Tensor:
        """Give each image of the batch (N x 3 x H x W) one of the triggers in turn, another one at each `step`."""
        stamped = torch.empty_like(pixels)
        for index, inverted in enumerate(self.inverted):
            rows = (torch.arange(len(pixels)) + step) % len(self.inverted) == index
            stamped[rows] = inverted.trigger.on(pixels.device)(pixels[rows])
        return stamped

    def first_of_each_family(self) -> dict[str, InvertedTrigger]:
        """The first trigger of each family that leads to the target."""
        first: dict[str, InvertedTrigger] = {}
        for found in self.inverted:
            if found.label == self.target:
                first.setdefault(found.family, found)
        return first


def make_plan(
    classifier: ZeroShotClassifier, pixels: Tensor, target: int, scan: ScanResult | None, config: RemovalConfig
) -> TuningPlan:
    """Invert the target's triggers with the full loss, from what a scan found, and localise them.

    A family goes on from the scan's trigger when that came near the target; without any such, each starts afresh. The
    triggers of labels that ride on the same shortcut join as the scan left them.
    """
    found = {c.family: c.trigger for c in (scan.triggers(target) if scan else []) if c.cross_entropy < NEAR}
    inverted: list[InvertedTrigger] = []
    for family in config.scan.families:
        if found and family.kind not in found:
            continue
        inverter = TriggerInverter(classifier, family, config.inversion, stream(config.seed, "inversion"))
        inverted += inverter.invert(pixels, [target], start=[found.get(family.kind)])
    inverted.sort(key=lambda candidate: candidate.cross_entropy)
    inverted = [candidate for candidate in inverted if candidate.cross_entropy < WORKING] or inverted[:1]
    localizer = NeuronLocalizer(classifier.encoder, config.localization, config.seed)
    critical = localizer.localize(pixels, [candidate.trigger for candidate in inverted])
    accomplices = scan.accomplices(target) if scan else []
    return TuningPlan(target, inverted + accomplices, critical, list(classifier.class_names))
