"""What the activation tuning works on: inverted and gathered triggers, and critical neurons."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..models.classifier import ZeroShotClassifier
from ..triggers import Trigger
from ..utils.seeds import stream
from ..utils.storage import Saved
from .configs import RemovalConfig
from .families import TriggerFamily
from .gathering import SAME, Gatherer, Gathering
from .identification import ScanResult
from .inputs import Inputs
from .inversion import InvertedTrigger, TriggerInverter
from .localization import CriticalNeurons, NeuronLocalizer


NEAR, WORKING = 3.0, 1.0
"""Cross-entropy in nats below which a scan's trigger is worth refining, and below which a refined one works."""


@dataclass
class Pool(Saved):
    """Triggers of one family that bring pictures to planted places.

    Attributes:
        family ([`TriggerFamily`]): what they look like.
        triggers (`list[Trigger]`): T of them.
        directions (`Tensor`): T x D, unit vectors: where each leads.
    """

    family: TriggerFamily
    triggers: list[Trigger]
    directions: Tensor


@dataclass
class TuningPlan(Saved):
    """Inverted and gathered triggers, and the neurons that react to them.

    Attributes:
        target (`int`): the backdoor's label.
        inverted (`list[InvertedTrigger]`): triggers that reach it, the best one first, then those of labels that ride on
            the same shortcut; re-inversions are added while the tuning runs.
        critical (`CriticalNeurons`): where they act.
        class_names (`list[str]`): what labels stand for.
        inputs ([`Inputs`], *optional*): the model and the images, where [`BackdoorRemover`] gave them.
        pools (`list[Pool]`): triggers that bring pictures to the places which a scan found planted, one entry a family; they
            are learnt on while the tuning runs.
    """

    target: int
    inverted: list[InvertedTrigger]
    critical: CriticalNeurons
    class_names: list[str]
    inputs: Inputs | None = None
    pools: list[Pool] = field(default_factory=list)

    def stamp(self, pixels: Tensor, step: int) -> Tensor:
        """Give each image of the batch (N x 3 x H x W) one of the triggers in turn, another one at each `step`."""
        stamped = torch.empty_like(pixels)
        triggers = [found.trigger for found in self.inverted] + [one for pool in self.pools for one in pool.triggers]
        for index, trigger in enumerate(triggers):
            rows = (torch.arange(len(pixels)) + step) % len(triggers) == index
            stamped[rows] = trigger.on(pixels.device)(pixels[rows])
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
    pools = make_pools(classifier, pixels, scan.planted, config) if scan else []
    return TuningPlan(target, inverted + accomplices, critical, list(classifier.class_names), pools=pools)


def make_pools(
    classifier: ZeroShotClassifier, pixels: Tensor, planted: Sequence[Gathering], config: RemovalConfig
) -> list[Pool]:
    """Gather anew by wider triggers, some from those of the `planted` places; the strongest that lead to each are kept."""
    families = {family.kind: family for family in config.scan.gathering.families}
    pools = []
    for wider in [
        wide for kind in dict.fromkeys(place.family for place in planted) for wide in families[kind].wider()
    ]:
        gatherer = Gatherer(classifier, replace(config.scan.gathering, families=(wider,)), config.seed)
        found = gatherer.starts(pixels, [place.trigger for place in planted if place.family == wider.kind])
        found.sort(key=lambda one: -one.concentration)
        chosen: dict[int, Gathering] = {}
        for place in planted:
            there = [one for one in found if float(one.direction @ place.direction) >= SAME]
            chosen |= {id(one): one for one in there[: config.tuning.pool_size]}
        if chosen:
            directions = torch.stack([one.direction for one in chosen.values()])
            pools.append(Pool(wider, [one.trigger for one in chosen.values()], directions))
    return pools
