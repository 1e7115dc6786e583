"""Stage 1: is there a backdoor, and which label does it lead to? A distribution, a shortlist, a verdict."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers.utils.logging import tqdm

from ..data.pixels import as_float
from ..errors import InputError
from ..models.clip import DualEncoder
from ..models.evaluation import predict
from ..triggers import AdditiveTrigger, MaskedTrigger, Trigger
from ..utils.storage import Saved
from .inversion import FAMILIES, Family, InversionConfig, InvertedTrigger, TriggerInverter


class Verdict(StrEnum):
    """What a scan concludes. `CLEAN` means that no trigger was found, which is not proof that there is none."""

    BACKDOORED = "backdoored"
    CLEAN = "clean"
    INCONCLUSIVE = "inconclusive"


@dataclass
class ScanConfig:
    """Settings of a scan.

    Attributes:
        simulation_steps (`int`): updates of each universal perturbation.
        simulation_batch_size (`int`): images an update and a place.
        patch_share (`float`): share of the image that the universal patch covers (InverTune's code: 38x38 of 224x224).
        epsilon (`float`): bound of the full-image perturbation and of the additive family, in [0, 1].
        shortlist_size (`int`): how many labels are verified by inversion; with no more labels than this, all are.
        restarts (`int`): independent starts of each label's inversion; the best one counts.
        batch_size (`int`): images an update and a start, of the verification.
        steps (`tuple[int, int]`): updates of the first round, for all the labels, and of the second, for finalists.
        finalists (`int`): labels that reach the second round.
        rivals (`int`): finalists that reach the third, in which each starts from the triggers of all the others; one
            fewer labels that are not kin of the leader, and lie behind them, go on from their own.
        looks (`int`): how often a family's labels race at most; again only while the lead lies between the two bars.
        kinship (`float`): two labels whose embeddings, centred over all the labels, have a cosine above this are kin. A
            shortcut to a label lies close to its kin too, so they are no measure of how far ahead it is.
        suspicious (`dict[str, float]`): for each family, the lead from which the verdict is "backdoored".
        quiet (`dict[str, float]`): for each family, the lead below which it is "clean"; in between "inconclusive".
        seed (`int`): seed of everything random.
    """

    simulation_steps: int = 40
    simulation_batch_size: int = 16
    patch_share: float = 0.029
    epsilon: float = 8 / 255
    shortlist_size: int = 64
    restarts: int = 2
    batch_size: int = 4
    steps: tuple[int, ...] = (50, 70)
    finalists: int = 12
    rivals: int = 3
    looks: int = 3
    kinship: float = 0.25
    suspicious: dict[str, float] = field(default_factory=lambda: {"masked": 0.8, "additive": 1.75})
    quiet: dict[str, float] = field(default_factory=lambda: {"masked": 0.65, "additive": 1.25})
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.steps) != 2 or min(self.steps) < 1:
            raise InputError(f"`steps`: got {self.steps}; give two positive numbers, one a round.")
        if self.finalists < 2 or self.shortlist_size < 2:
            raise InputError("`finalists` and `shortlist_size` must be at least 2, or nothing can be compared.")
        if self.looks < 1:
            raise InputError(f"`looks`: got {self.looks}; the labels must race once at least.")

    def reseeded(self) -> "ScanConfig":
        """The same settings with another seed, for a second scan that shares nothing with the first."""
        return replace(self, seed=self.seed + 1)


@dataclass
class Simulation(Saved):
    """One adversarial simulation.

    Attributes:
        kind (`str`): `"patch"`, at the place where it shifts labels most, or `"full image"`.
        clean (`list[float]`): P_clean, the share of clean images read as each label.
        adversarial (`list[float]`): P_adv, the same with the universal perturbation.
        trigger (`Trigger`): the perturbation itself.
    """

    kind: str
    clean: list[float]
    adversarial: list[float]
    trigger: Trigger

    @property
    def shift(self) -> list[float]:
        """P_adv(k) - P_clean(k) for each label k (InverTune, section on target identification)."""
        return [adversarial - clean for adversarial, clean in zip(self.adversarial, self.clean, strict=True)]

    @property
    def suspect(self) -> int:
        """The label with the largest shift."""
        return max(range(len(self.shift)), key=self.shift.__getitem__)


@dataclass
class FamilyEvidence(Saved):
    """What one trigger family says.

    Attributes:
        family (`str`): `"masked"` or `"additive"`.
        scores (`dict[int, float]`): objective of each inverted label, the lower, the easier it is to reach.
        z_scores (`dict[int, float]`): (log score - median) / (1.4826 MAD) over these labels.
        label (`int`): the label with the lowest score.
        lead (`float`): relative gap in score to the first label that is not kin of it, (other - lowest) / lowest.
        verdict (`Verdict`): what this family alone concludes.
        candidates (`list[InvertedTrigger]`): the finalists, best first.
    """

    family: Family
    scores: dict[int, float]
    z_scores: dict[int, float]
    label: int
    lead: float
    verdict: Verdict
    candidates: list[InvertedTrigger]


@dataclass
class ScanResult(Saved):
    """Outcome of stage 1.

    Attributes:
        verdict (`Verdict`): the conclusion.
        target (`int`, *optional*): the suspected target label, when the verdict is not clean.
        class_names (`list[str]`): the labels that were looked at.
        simulations (`list[Simulation]`): the label shifts under universal perturbations.
        shortlist (`list[int]`): the labels that were inverted.
        evidence (`list[FamilyEvidence]`): one entry a trigger family.
        images (`int`): how many clean images were used.
        seconds (`float`): wall time.
        seed (`int`): seed of the scan.
    """

    verdict: Verdict
    target: int | None
    class_names: list[str]
    simulations: list[Simulation]
    shortlist: list[int]
    evidence: list[FamilyEvidence]
    images: int
    seconds: float
    seed: int

    @property
    def target_name(self) -> str | None:
        return None if self.target is None else self.class_names[self.target]

    def triggers(self, label: int) -> list[InvertedTrigger]:
        """The inverted triggers of `label`, one a family that had it among its finalists."""
        return [c for family in self.evidence for c in family.candidates if c.label == label]

    def accomplices(self, label: int) -> list[InvertedTrigger]:
        """Triggers of other labels that ride on the shortcut to `label`.

        In a family whose easiest label is `label`, these are the finalists whose score is nearer, on a log scale, to
        the lowest score than to that of the first label that is not kin.
        """
        return [
            candidate
            for family in self.evidence
            if family.label == label and family.verdict is Verdict.BACKDOORED
            for candidate in family.candidates
            if candidate.label != label and candidate.objective < family.scores[label] * (1 + family.lead) ** 0.5
        ]


class TargetIdentifier:
    """Finds the target label of a backdoor: adversarial simulation, then verification by inversion.

    Args:
        encoder ([`DualEncoder`]): the suspicious model.
        head (`torch.Tensor`): K x D zero-shot head.
        class_names (`Sequence[str]`): K names.
        config ([`ScanConfig`], *optional*): settings.
    """

    def __init__(
        self, encoder: DualEncoder, head: Tensor, class_names: Sequence[str], config: ScanConfig | None = None
    ):
        self.encoder, self.head, self.class_names = encoder, head, list(class_names)
        self.config = config or ScanConfig()

    def identify(self, pixels: Tensor) -> ScanResult:
        """Scan with clean `pixels` (N x 3 x H x W, float in [0, 1] or uint8; any classes, no labels needed)."""
        begin = time.perf_counter()
        with self.encoder.frozen():
            simulations = [self.simulate(pixels, family) for family in FAMILIES]
            shortlist = self._shortlist(simulations)
            evidence = [
                self._verify(pixels, shortlist, family, simulation)
                for family, simulation in zip(FAMILIES, simulations, strict=True)
            ]
        verdict, target = combine(evidence)
        return ScanResult(
            verdict=verdict,
            target=target,
            class_names=self.class_names,
            simulations=simulations,
            shortlist=shortlist,
            evidence=evidence,
            images=len(pixels),
            seconds=time.perf_counter() - begin,
            seed=self.config.seed,
        )

    def simulate(self, pixels: Tensor, family: Family, places: Tensor | None = None) -> Simulation:
        """Learn a universal perturbation that moves embeddings away from their clean place, and count the labels.

        The patch is learned at several places at once; the place where it shifts labels most is kept.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8.
            family (`str`): `"masked"` for a patch, `"additive"` for the full image.
            places (`torch.Tensor`, *optional*): P x 1 x 1 x H x W masks of the patch; those of [`patch_areas`] when not
                given.
        """
        config, device = self.config, self.encoder.device
        generator = torch.Generator().manual_seed(config.seed)
        size = pixels.shape[-1]
        places = patch_areas(size, config.patch_share) if places is None else places
        areas = (places if family == "masked" else torch.ones(1, 1, 1, 1, 1)).to(device)
        variable = torch.randn(len(areas), 1, 3, size, size, generator=generator).to(device).requires_grad_()
        optimizer = torch.optim.Adam([variable], lr=0.3)

        def perturbation() -> Trigger:
            if family == "masked":
                return MaskedTrigger(areas, variable.sigmoid())
            return AdditiveTrigger(config.epsilon * variable.tanh(), config.epsilon)

        kind = "patch" if family == "masked" else "full image"
        for _ in tqdm(range(config.simulation_steps), desc=f"simulating a universal {kind}", leave=False):
            chosen = torch.randint(len(pixels), (config.simulation_batch_size,), generator=generator)
            clean = as_float(pixels[chosen]).to(device)
            with torch.no_grad():
                home = self.encoder.embed_images(clean)
            loss = (self.encoder.embed_images(perturbation()(clean.unsqueeze(0))) * home).sum(-1).mean(1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            triggers = perturbation().split()
        labels = len(self.head)
        clean_share = torch.bincount(predict(self.encoder, self.head, pixels), minlength=labels) / len(pixels)
        simulations = []
        for trigger in triggers:
            read = predict(self.encoder, self.head, pixels, trigger.on(device))
            share = torch.bincount(read, minlength=labels) / len(pixels)
            simulations.append(Simulation(kind, clean_share.tolist(), share.tolist(), trigger))
        return max(simulations, key=lambda simulation: max(simulation.shift))

    def _shortlist(self, simulations: list[Simulation]) -> list[int]:
        count = len(self.class_names)
        if count <= self.config.shortlist_size:
            return list(range(count))
        shifts = torch.tensor([simulation.shift for simulation in simulations]).amax(0)
        return sorted(shifts.topk(self.config.shortlist_size).indices.tolist())

    def _verify(self, pixels: Tensor, shortlist: list[int], family: Family, simulation: Simulation) -> FamilyEvidence:
        """Race the labels of the shortlist, and again with fresh starts for as long as the lead decides nothing.

        Races are pooled: the best trigger of each label counts.
        """
        config = self.config
        finalists: list[InvertedTrigger] = []
        scores: dict[int, float] = {}
        for look in range(config.looks):
            raced, finished = self._race(pixels, shortlist, family, simulation, config.seed + 1_000 * look)
            finalists = best_of_each_label([*finalists, *finished])
            scores = {label: min(score, scores.get(label, score)) for label, score in raced.items()}
            label, lead = self._lead(scores)
            verdict = self._judge(family, lead)
            if verdict is not Verdict.INCONCLUSIVE:
                break
        return FamilyEvidence(family, scores, robust_z(scores), label, lead, verdict, finalists)

    def _judge(self, family: Family, lead: float) -> Verdict:
        if lead >= self.config.suspicious[family]:
            return Verdict.BACKDOORED
        return Verdict.CLEAN if lead < self.config.quiet[family] else Verdict.INCONCLUSIVE

    def _race(
        self, pixels: Tensor, shortlist: list[int], family: Family, simulation: Simulation, seed: int
    ) -> tuple[dict[int, float], list[InvertedTrigger]]:
        """Invert every label from several starts, then go on with the finalists only: all scores, and the finalists.

        The simulation's suspect gets one more start, from the simulated perturbation. Last, each of the leading labels
        goes on from the triggers of the others too, so that labels that share a shortcut are compared at its best, and
        the first strangers behind them go on as well, since the lead is measured against them.
        """
        config = self.config
        settings = InversionConfig(
            family=family,
            steps=config.steps[0],
            batch_size=config.batch_size,
            embedding_weight=0,
            ssim_weight=0,
            epsilon=config.epsilon,
            seed=seed,
        )
        inverter = TriggerInverter(self.encoder, self.head, self.class_names, settings)
        labels = [*(shortlist * config.restarts), simulation.suspect]
        start = [None] * (len(labels) - 1) + [simulation.trigger]
        first = best_of_each_label(inverter.invert(pixels, labels, start=start))
        scores = {candidate.label: candidate.objective for candidate in first}
        settings.steps = config.steps[1]
        finalists = self._go_on(inverter, pixels, [(c.label, c.trigger) for c in first[: config.finalists]])
        rivals = finalists[: config.rivals]
        last = [(one.label, other.trigger) for one in rivals for other in rivals]
        behind = {candidate.label: candidate for candidate in finalists[config.rivals :]}
        strangers = self._strangers(rivals[0].label, list(behind))[: config.rivals - 1]
        last += [(label, behind[label].trigger) for label in strangers]
        finalists = best_of_each_label([*finalists, *self._go_on(inverter, pixels, last)])
        return scores | {candidate.label: candidate.objective for candidate in finalists}, finalists

    @staticmethod
    def _go_on(inverter: TriggerInverter, pixels: Tensor, starts: list[tuple[int, Trigger]]) -> list[InvertedTrigger]:
        labels, triggers = zip(*starts, strict=True)
        return best_of_each_label(inverter.invert(pixels, labels, start=triggers))

    def _lead(self, scores: dict[int, float]) -> tuple[int, float]:
        order = sorted(scores, key=scores.__getitem__)
        best = order[0]
        strangers = self._strangers(best, order[1:]) or order[-1:]
        return best, (scores[strangers[0]] - scores[best]) / scores[best]

    def _strangers(self, label: int, others: Sequence[int]) -> list[int]:
        """Those of the `others` that are not kin of `label`."""
        centred = normalize(self.head - self.head.mean(0), dim=-1)
        kinship = (centred @ centred[label]).tolist()
        return [other for other in others if kinship[other] <= self.config.kinship]


def patch_areas(size: int, share: float) -> Tensor:
    """Masks (5 x 1 x 1 x size x size) of a square of that share of the image, near each corner and in the middle."""
    side, margin = max(2, round(share**0.5 * size)), round(size / 32)
    far, middle = size - side - margin, (size - side) // 2
    areas = torch.zeros(5, 1, 1, size, size)
    for index, (top, left) in enumerate([(far, far), (far, margin), (margin, far), (margin, margin), (middle,) * 2]):
        areas[index, ..., top : top + side, left : left + side] = 1
    return areas


def best_of_each_label(inverted: list[InvertedTrigger]) -> list[InvertedTrigger]:
    """The lowest objective of each label, lowest first."""
    best: dict[int, InvertedTrigger] = {}
    for candidate in sorted(inverted, key=lambda candidate: candidate.objective):
        best.setdefault(candidate.label, candidate)
    return list(best.values())


def log_null(scores: dict[int, float]) -> tuple[float, float]:
    """The null that a score is held against, made of the others: median and 1.4826 MAD of log s."""
    logs = torch.tensor(list(scores.values()), dtype=torch.float64).log()
    median = logs.quantile(0.5)
    return float(median), float(1.4826 * (logs - median).abs().quantile(0.5))


def robust_z(scores: dict[int, float]) -> dict[int, float]:
    """(log s - median) / (1.4826 MAD) of each score; zero everywhere when the MAD is zero."""
    logs = torch.tensor(list(scores.values()), dtype=torch.float64).log()
    median, spread = log_null(scores)
    z = (logs - median) / spread if spread > 0 else torch.zeros_like(logs)
    return dict(zip(scores, z.tolist(), strict=True))


def combine(evidence: list[FamilyEvidence]) -> tuple[Verdict, int | None]:
    """The verdict of all families: the gravest one, with the label of the family that leads most."""
    for verdict in (Verdict.BACKDOORED, Verdict.INCONCLUSIVE):
        families = [family for family in evidence if family.verdict is verdict]
        if families:
            return verdict, max(families, key=lambda family: family.lead).label
    return Verdict.CLEAN, None
