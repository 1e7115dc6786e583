"""Stage 1: is there a backdoor, and which label does it lead to? Gathering, simulations, a race of inversions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import InputError
from ..models.classifier import ZeroShotClassifier
from ..models.encoder import DualEncoder
from ..utils.progress import expect, whole
from ..utils.seeds import stream
from ..utils.storage import Saved
from .configs import ScanConfig
from .cost import look_passes, scan_passes
from .families import KeyedFamily, TriggerFamily
from .gathering import Gatherer, Gathering
from .inputs import Inputs
from .inversion import InvertedTrigger
from .race import Race, best_of_each_label
from .reference import Profile, relative
from .simulation import Simulation, Simulator
from .text import TextSearch
from .verdict import Evidence, Verdict, ahead, chance, conclude, first_stranger, judged, planted


SYNONYMS = 0.85
"""Cosine of two labels above which they are kin in a race at one budget. There a shortcut leads to its own label so surely
that kin lie behind too, and labels that are easy by nature are often kin of each other."""


@dataclass
class ScanResult(Saved):
    """Outcome of stage 1.

    Attributes:
        verdict (`Verdict`): the conclusion.
        target (`int`, *optional*): the suspected target label, when the verdict is not clean and labels were looked at.
        class_names (`list[str]`): the labels that were looked at; none where the model reads no names, see
            [`scan_without_labels`].
        templates (`list[str]`): the prompt templates that made their texts.
        config (`ScanConfig`), seed (`int`): how it was done.
        simulations (`list[Simulation]`): the label shifts under universal perturbations.
        shortlist (`list[int]`): the labels that were inverted.
        evidence (`list[Evidence]`): one entry a trigger family.
        images (`int`): how many clean images were used.
        seconds (`float`): wall time.
        gatherings (`list[Gathering]`): the places where triggers gather embeddings, family by family, the most
            concentrated first: of each family the first place, and all that are not judged clean.
        inputs ([`Inputs`], *optional*): the model and the images, where [`BackdoorRemover`] gave them.
        reference ([`Profile`], *optional*): of the trusted model that the model was held against.
    """

    verdict: Verdict
    target: int | None
    class_names: list[str]
    templates: list[str]
    config: ScanConfig
    seed: int
    simulations: list[Simulation]
    shortlist: list[int]
    evidence: list[Evidence]
    images: int
    seconds: float
    gatherings: list[Gathering] = field(default_factory=list)
    inputs: Inputs | None = None
    reference: Profile | None = None

    @property
    def target_name(self) -> str | None:
        return None if self.target is None else self.class_names[self.target]

    @property
    def labelled(self) -> bool:
        """Whether labels were looked at."""
        return bool(self.class_names)

    def label_name(self, one: Evidence | Gathering) -> str | None:
        """The label that one family's race, or one place, is about."""
        return None if one.label is None else self.class_names[one.label]

    @property
    def suspect(self) -> int:
        """The target, or when there is none the label of the family that is furthest ahead of its bar."""
        if self.target is not None:
            return self.target
        return max(self.evidence, key=lambda family: ahead(family, self.config)).label

    def judged(self, one: Evidence | Gathering) -> Verdict:
        """What one family's race, or one place, concludes alone."""
        return judged(one, self.config)

    def chance(self, one: Evidence | Gathering) -> float | None:
        """How likely a clean model reaches so much, in any family.

        None where no clean models tell: beside a trusted model, without labels, or for a family of one's own.
        """
        return chance(one) if self.labelled and not self.reference else None

    @property
    def planted(self) -> list[Gathering]:
        """The places that are not judged clean."""
        return planted(self.gatherings, self.config)

    @property
    def suspects(self) -> list[InvertedTrigger]:
        """The trigger of the easiest label, in each family whose race is not judged clean."""
        unclean = [family for family in self.evidence if self.judged(family) is not Verdict.CLEAN]
        return [family.best for family in unclean if family.best is not None]

    def triggers(self, label: int) -> list[InvertedTrigger]:
        """The inverted triggers of `label`, one a family that had it among its finalists."""
        return [c for family in self.evidence for c in family.candidates if c.label == label]

    def evidence_against(self, label: int) -> list[Gathering | InvertedTrigger]:
        """The first trigger of each family by which the scan came to suspect `label`."""
        first: dict[str, Gathering | InvertedTrigger] = {}
        unclean: list[Gathering | InvertedTrigger] = [*self.planted, *self.suspects]
        for one in unclean:
            if one.label == label:
                first.setdefault(one.family, one)
        return list(first.values())

    def accomplices(self, label: int) -> list[InvertedTrigger]:
        """Triggers of other labels that ride on the shortcut to `label`, in the families that call it backdoored."""
        guilty = [family for family in self.evidence if self.judged(family) is Verdict.BACKDOORED]
        return [candidate for family in guilty for candidate in family.accomplices(label)]


def reported(places: Sequence[Gathering], config: ScanConfig) -> list[Gathering]:
    """The places to be reported: of each family the first, and all that are not judged clean."""
    kept: list[Gathering] = []
    for place in places:
        first = all(other.family != place.family for other in kept)
        if first or judged(place, config) is not Verdict.CLEAN:
            kept.append(place)
    return kept


def scan_without_labels(
    encoder: DualEncoder, pixels: Tensor, config: ScanConfig | None = None, seed: int = 0
) -> ScanResult:
    """Scan a model that reads no names: triggers that gather pictures are looked for, and nothing else.

    No label can be said to be easy to reach, so there is no race, and no target. Whether the model reads pictures at all is
    not known either.

    Args:
        encoder ([`DualEncoder`]): the suspicious model.
        pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8; any classes.
        config ([`ScanConfig`], *optional*): settings, of which those of gathering count.
        seed (`int`): that of the run.

    Raises:
        InputError: when no family of triggers is to gather.
    """
    begin, config = time.perf_counter(), config or ScanConfig()
    if not config.gathering.families:
        raise InputError("`scan.gathering.families`: got none, and without labels nothing else is searched.")
    with whole(scan_passes(config, len(pixels), 0, 0, pixels.shape[-2:]).learnt, "Scanning"):
        places = reported(Gatherer(encoder, None, config.gathering, seed).gather(pixels), config)
    verdict, _ = conclude(places, [], config)
    return ScanResult(
        verdict=verdict,
        target=None,
        class_names=[],
        templates=[],
        config=config,
        seed=seed,
        simulations=[],
        shortlist=[],
        evidence=[],
        images=len(pixels),
        seconds=time.perf_counter() - begin,
        gatherings=places,
    )


class TargetIdentifier:
    """Finds the target label of a backdoor: adversarial simulation, then inversion of the suspects.

    Args:
        classifier ([`ZeroShotClassifier`]): the suspicious model and K names.
        config ([`ScanConfig`], *optional*): settings.
        seed (`int`): that of the run.
        reference ([`Profile`], *optional*): of a trusted model; what is easy by nature, there as here, then counts for
            nothing. It moves the bars of `config` too.
    """

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        config: ScanConfig | None = None,
        seed: int = 0,
        reference: Profile | None = None,
    ):
        config = config or ScanConfig()
        self.classifier, self.seed, self.reference = classifier, seed, reference
        self.config = config if reference is None else reference.barred(config)

    def identify(self, pixels: Tensor) -> ScanResult:
        """Scan with clean `pixels` (N x 3 x H x W, float in [0, 1] or uint8; any classes, no labels needed)."""
        begin = time.perf_counter()
        families, classifier = self.config.families, self.classifier
        passes = scan_passes(self.config, len(pixels), len(classifier), len(classifier.templates), pixels.shape[-2:])
        with whole(passes.learnt, "Scanning"), classifier.encoder.frozen():
            gatherer = Gatherer(classifier.encoder, classifier.head, self.config.gathering, self.seed)
            gatherings = reported(gatherer.gather(pixels), self.config)
            simulator = Simulator(classifier, self.config, self.seed)
            simulations = [simulator.simulate(pixels, family) for family in families]
            shortlist = self._shortlist(simulations)
            evidence = [
                self._search(pixels, shortlist, family, simulation)
                for family, simulation in zip(families, simulations, strict=True)
            ]
            if self.config.words:
                search = TextSearch(classifier, self.config, self.seed)
                evidence.append(search.search(pixels, self._natural(KeyedFamily.kind)))
        verdict, target = conclude(gatherings, evidence, self.config)
        return ScanResult(
            verdict=verdict,
            target=target,
            class_names=list(self.classifier.class_names),
            templates=list(self.classifier.templates),
            config=self.config,
            seed=self.seed,
            simulations=simulations,
            shortlist=shortlist,
            evidence=evidence,
            images=len(pixels),
            seconds=time.perf_counter() - begin,
            gatherings=gatherings,
            reference=self.reference,
        )

    def _natural(self, family: str) -> dict[int, float]:
        """What the trusted model's scores are, where there is one."""
        return {} if self.reference is None else self.reference.scores[family]

    def _shortlist(self, simulations: list[Simulation]) -> list[int]:
        count = len(self.classifier)
        if count <= self.config.shortlist_size:
            return list(range(count))
        shifts = torch.tensor([simulation.shift for simulation in simulations]).amax(0)
        return sorted(shifts.topk(self.config.shortlist_size).indices.tolist())

    def _search(self, pixels: Tensor, shortlist: list[int], family: TriggerFamily, simulation: Simulation) -> Evidence:
        """Race the labels of the shortlist, and again with fresh starts for as long as the lead decides nothing.

        Races are pooled: the best trigger of each label counts.
        """
        finalists: list[InvertedTrigger] = []
        scores: dict[int, float] = {}
        reference = self._natural(family.kind)
        for look in range(self.config.looks):
            if look:  # one is a part of what the scan began with
                expect(look_passes(self.config, family, len(pixels), len(self.classifier)).learnt)
            seed = stream(self.seed, "race", 1_000 * look)
            raced, finished = Race(self.classifier, family, self.config, seed).run(pixels, shortlist, simulation)
            finalists = best_of_each_label([*finalists, *finished])
            scores = {label: min(score, scores.get(label, score)) for label, score in raced.items()}
            costs = relative(scores, reference)
            kinship = self.classifier.kinship(min(costs, key=costs.__getitem__))
            kin = self.config.kinship if family.refined else SYNONYMS
            evidence = Evidence(family.kind, scores, first_stranger(costs, kinship, kin), finalists, reference)
            if judged(evidence, self.config) is not Verdict.INCONCLUSIVE:
                break
        return evidence
