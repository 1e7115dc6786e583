"""What the activation tuning works on: inverted and gathered triggers, and critical neurons."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models.classifier import ZeroShotClassifier
from ..triggers import Trigger
from ..utils.seeds import stream
from ..utils.sharing import gathered, own_items
from ..utils.storage import Saved
from .configs import RemovalConfig
from .families import TriggerFamily
from .gathering import SAME, Gatherer, Gathering
from .identification import ScanResult
from .inputs import Inputs
from .inversion import WORKING, InvertedTrigger, TriggerInverter
from .localization import CriticalNeurons, NeuronLocalizer


@dataclass
class Pool(Saved):
    """Triggers of one family that bring pictures to places which a scan suspects.

    Attributes:
        family ([`TriggerFamily`]): what they look like.
        triggers (`list[Trigger]`): T of them.
        directions (`Tensor`): T x D, unit vectors: where each leads.
        learning (`dict[str, Tensor]`): once a tuning learns on them, what it needs to go on where it was, each leading with T.
    """

    family: TriggerFamily
    triggers: list[Trigger]
    directions: Tensor
    learning: dict[str, Tensor] = field(default_factory=dict)

    def share(self) -> "Pool":
        """The triggers that this process learns on and tunes against, where several work together."""
        own = own_items(len(self.triggers))
        if len(own) == len(self.triggers):
            return self
        learning = {name: value[own] for name, value in self.learning.items()}
        return Pool(self.family, [self.triggers[row] for row in own], self.directions[own], learning)

    def whole(self) -> "Pool":
        """The shares of all processes together; each must call it."""
        shares = gathered(self)
        if len(shares) == 1:
            return self
        triggers = [trigger for share in shares for trigger in share.triggers]
        held = [share for share in shares if share.triggers]  # an empty one has learnt nothing
        learning = {name: torch.cat([share.learning[name].cpu() for share in held]) for name in held[0].learning}
        return Pool(self.family, triggers, torch.cat([share.directions for share in held]), learning)


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
        pools (`list[Pool]`): triggers that bring pictures to the places which a scan suspects, one entry a family; they are
            learnt on while the tuning runs.
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

    A family goes on from the trigger by which the scan came to suspect the target; without any such, the families that
    race start afresh. The triggers of labels that ride on the same shortcut join as the scan left them.
    """
    found = {one.family: one for one in scan.evidence_against(target)} if scan else {}
    inverted: list[InvertedTrigger] = []
    for kind in found or [family.kind for family in config.scan.families]:
        family, start = config.scan.family(kind), found.get(kind)
        word = start.word if isinstance(start, InvertedTrigger) else None
        inverter = TriggerInverter(classifier, family, config.inversion, stream(config.seed, "inversion"), word)
        inverted += inverter.invert(pixels, [target], start=[None if start is None else start.trigger])
    inverted.sort(key=lambda candidate: candidate.cross_entropy)
    inverted = [candidate for candidate in inverted if candidate.cross_entropy < WORKING] or inverted[:1]
    localizer = NeuronLocalizer(classifier.encoder, config.localization, config.seed)
    critical = localizer.localize(pixels, [candidate.trigger for candidate in inverted])
    accomplices = scan.accomplices(target) if scan else []
    pools = make_pools(classifier, pixels, places_of(classifier, pixels, scan), config) if scan else []
    return TuningPlan(target, inverted + accomplices, critical, list(classifier.class_names), pools=pools)


def places_of(classifier: ZeroShotClassifier, pixels: Tensor, scan: ScanResult) -> list[Gathering]:
    """All places that a scan suspects: where triggers gather, and where a race's best trigger brings pictures."""
    gatherer = Gatherer(classifier.encoder, classifier.head, scan.config.gathering, scan.seed)
    with classifier.encoder.frozen():
        clean = classifier.encoder.embed_pixels(pixels)
        raced = [gatherer.measure(suspect.trigger, suspect.family, pixels, clean) for suspect in scan.suspects]
    return scan.planted + raced


def make_pools(
    classifier: ZeroShotClassifier, pixels: Tensor, places: Sequence[Gathering], config: RemovalConfig
) -> list[Pool]:
    """Learn wider triggers towards each place; of each place and width those that come nearest are kept."""
    gatherer = Gatherer(classifier.encoder, classifier.head, config.scan.gathering, config.seed)
    found: dict[TriggerFamily, list[tuple[Trigger, Tensor]]] = {}
    for place in places:
        for wider in config.scan.family(place.family).wider():
            reached = gatherer.starts(pixels, wider, [place.trigger], place.direction)
            cosines = [float(one.direction @ place.direction) for one in reached]
            order = sorted(range(len(reached)), key=cosines.__getitem__, reverse=True)
            near = [(reached[i].trigger, place.direction) for i in order if cosines[i] >= SAME]
            found.setdefault(wider, []).extend(near[: config.tuning.pool_size])
    return [
        Pool(family, [trigger for trigger, _ in near], torch.stack([direction for _, direction in near]))
        for family, near in found.items()
        if near
    ]
