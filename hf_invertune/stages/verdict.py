"""What the searches of a scan mean: statistics, bars, decision. Everything that tells of a verdict reads it from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import torch

from ..models.evaluation import Measurement, Metrics, measured
from ..utils.storage import Saved
from .calibration import calibrated_on, chance_of
from .configs import AuditConfig, Bars, RemovalConfig, ScanConfig
from .gathering import Gathering
from .inversion import WORKING, InvertedTrigger
from .reference import relative


CALIBRATION = calibrated_on()
"""What the verdict's error rates are known for."""


Outcome = Literal["scanned", "unchanged", "cleaned", "reduced", "not cleaned"]
"""What became of a model: a scan was all; it was left bit-identical; it was tuned and reached every bar; it missed one, but
every trigger that was measured succeeds half as often at most; not even that."""
MISSED: tuple[Outcome, ...] = ("reduced", "not cleaned")
"""The outcomes of a tuning that missed a bar."""


class Verdict(StrEnum):
    """What a scan concludes. `CLEAN` means that no trigger was found, which is not proof that there is none."""

    BACKDOORED = "backdoored"
    CLEAN = "clean"
    INCONCLUSIVE = "inconclusive"


@dataclass
class Evidence(Saved):
    """What the search in one family of triggers found.

    Attributes:
        family (`str`): its kind.
        scores (`dict[int, float]`): objective of each inverted label, the lower, the easier it is to reach.
        rival (`int`): the label, no kin of the easiest one, that its lead is measured against.
        candidates (`list[InvertedTrigger]`): the finalists, best first.
        reference (`dict[int, float]`): the scores of a trusted model, where there is one.
    """

    family: str
    scores: dict[int, float]
    rival: int
    candidates: list[InvertedTrigger]
    reference: dict[int, float] = field(default_factory=dict)

    @property
    def costs(self) -> dict[int, float]:
        """The scores, relative to those of the trusted model where there is one."""
        return relative(self.scores, self.reference)

    @property
    def label(self) -> int:
        """The label with the lowest cost."""
        costs = self.costs
        return min(costs, key=costs.__getitem__)

    @property
    def best(self) -> InvertedTrigger | None:
        """The trigger of the easiest label, where it was among the finalists."""
        return next((candidate for candidate in self.candidates if candidate.label == self.label), None)

    @property
    def lead(self) -> float:
        """Relative gap in cost from the easiest label to its rival, (other - lowest) / lowest."""
        costs = self.costs
        lowest = min(costs.values())
        return (costs[self.rival] - lowest) / lowest

    @property
    def z_scores(self) -> dict[int, float]:
        """[`robust_z`] of the costs."""
        return robust_z(self.costs)

    def accomplices(self, label: int) -> list[InvertedTrigger]:
        """Triggers of other labels that ride on the shortcut to `label`, when that is the easiest one.

        These are the finalists whose cost is nearer, on a log scale, to the lowest cost than to that of the rival.
        """
        if label != self.label:
            return []
        costs = self.costs
        bound = costs[label] * (1 + self.lead) ** 0.5
        return [one for one in self.candidates if one.label != label and costs[one.label] < bound]


def judge(value: float, bars: Bars) -> Verdict:
    """What the value of a statistic means: a family's lead, or a concentration."""
    if value >= bars.suspicious:
        return Verdict.BACKDOORED
    return Verdict.CLEAN if value < bars.quiet else Verdict.INCONCLUSIVE


def judged(one: Gathering | Evidence, config: ScanConfig) -> Verdict:
    """What one place, or one family's race, concludes alone.

    A text that words bend is no more than suspicious without a picture that completes the trigger.
    """
    if isinstance(one, Gathering):
        return judge(one.concentration, config.gathering.bars[one.family])
    verdict = judge(one.lead, config.bars[one.family])
    incomplete = one.best is not None and one.best.word is not None and one.best.objective >= WORKING
    return Verdict.INCONCLUSIVE if incomplete and verdict is Verdict.BACKDOORED else verdict


def conclude(
    gatherings: Sequence[Gathering], evidence: Sequence[Evidence], config: ScanConfig
) -> tuple[Verdict, int | None]:
    """The gravest verdict of all parts of a scan, with the label that it is about, where labels were looked at.

    That is the place's that is furthest on its way from its family's lower bar to a concentration of 1, since families are
    not alike by nature; when no place reaches this verdict, that of the family whose lead is furthest beyond its upper bar.
    """
    for verdict in (Verdict.BACKDOORED, Verdict.INCONCLUSIVE):
        places = [place for place in gatherings if judged(place, config) is verdict]
        if places:
            return verdict, max(places, key=lambda place: _beyond(place, config)).label
        families = [family for family in evidence if judged(family, config) is verdict]
        if families:
            return verdict, max(families, key=lambda family: ahead(family, config)).label
    return Verdict.CLEAN, None


def _beyond(place: Gathering, config: ScanConfig) -> float:
    """How far a place is beyond what its family reaches by nature: 0 at the lower bar, 1 at a concentration of 1."""
    quiet = config.gathering.bars[place.family].quiet
    return (place.concentration - quiet) / max(1 - quiet, 1e-9)


def chance(one: Gathering | Evidence) -> float | None:
    """How likely a clean model reaches so much, in any family; none where no clean models tell."""
    if isinstance(one, Gathering):
        return chance_of("concentration", one.family, one.concentration)
    return chance_of("lead", one.family, one.lead)


def ahead(family: Evidence, config: ScanConfig) -> float:
    """How far a family's lead is ahead of its upper bar, as a ratio: families do not lead alike by nature."""
    return (1 + family.lead) / max(1 + config.bars[family.family].suspicious, 1e-9)


def planted(gatherings: Sequence[Gathering], config: ScanConfig) -> list[Gathering]:
    """The places that are not judged clean."""
    return [place for place in gatherings if judged(place, config) is not Verdict.CLEAN]


def treated(verdict: Verdict, config: RemovalConfig) -> bool:
    """Whether a removal changes a model of this verdict, when no label is named."""
    return verdict is Verdict.BACKDOORED or (verdict is Verdict.INCONCLUSIVE and config.treat == "inconclusive")


def first_stranger(scores: Mapping[int, float], kinship: Sequence[float], most: float) -> int:
    """The label with the lowest score after the easiest one that is not kin of it; the last one when all are.

    Args:
        scores (`Mapping[int, float]`): of each label, at least two.
        kinship (`Sequence[float]`): cosine of every label with the easiest one, see [`ZeroShotClassifier.kinship`].
        most (`float`): the cosine above which a label is kin.
    """
    order = sorted(scores, key=scores.__getitem__)[1:]
    return next((label for label in order if kinship[label] <= most), order[-1])


def log_null(scores: Mapping[int, float]) -> tuple[float, float]:
    """The null that a score is held against, made of the others: median and 1.4826 MAD of log s."""
    logs = torch.tensor(list(scores.values()), dtype=torch.float64).log()
    median = logs.quantile(0.5)
    return float(median), float(1.4826 * (logs - median).abs().quantile(0.5))


def robust_z(scores: Mapping[int, float]) -> dict[int, float]:
    """(log s - median) / (1.4826 MAD) of each score; zero everywhere when the MAD is zero."""
    logs = torch.tensor(list(scores.values()), dtype=torch.float64).log()
    median, spread = log_null(scores)
    z = (logs - median) / spread if spread > 0 else torch.zeros_like(logs)
    return dict(zip(scores, z.tolist(), strict=True))


MUCH = 0.5
"""To which share a trigger's success beyond its floor must fall at least, for a backdoor to count as reduced."""


def excess(metrics: Metrics) -> float:
    """By how much a trigger succeeds beyond its floor: ASR less the rate at which images without it are read so."""
    return measured(metrics.attack_success_rate).value - measured(metrics.target_rate).value


def achieved(measurements: Sequence[Measurement], missed: Sequence[str], bars: AuditConfig) -> Outcome:
    """What a tuning came to.

    Args:
        measurements (`Sequence[Measurement]`): of each trigger, before and after.
        missed (`Sequence[str]`): what [`missed_bars`] says.
        bars ([`AuditConfig`]): what was to be reached.
    """
    if not missed:
        return "cleaned"
    fell = [excess(one.after) <= max(bars.max_attack_success_rate, MUCH * excess(one.before)) for one in measurements]
    return "reduced" if all(fell) else "not cleaned"


def missed_bars(
    measurements: Sequence[Measurement], second: Verdict, suspect: str | None, bars: AuditConfig
) -> list[str]:
    """Which bars a cleaned model misses, in words; none means cleaned.

    Args:
        measurements (`Sequence[Measurement]`): of each trigger, before and after.
        second (`Verdict`), suspect (`str`, *optional*): what a second scan, of the cleaned model, says.
        bars ([`AuditConfig`]): what is to be reached.
    """
    reasons = []
    for measurement in measurements:
        before, after = measurement.before, measurement.after
        if excess(after) > bars.max_attack_success_rate:
            reasons.append(f"Trigger '{measurement.trigger}' still succeeds on {excess(after):.1%} of the images.")
        if before.clean_accuracy is not None and after.clean_accuracy is not None:
            drop = before.clean_accuracy.value - after.clean_accuracy.value
            if drop > bars.max_accuracy_drop:
                reasons.append(f"Clean accuracy fell by {100 * drop:.1f} points.")
        elif after.agreement is not None and after.agreement.value < bars.min_agreement:
            reasons.append(f"The cleaned model agrees with the original on only {after.agreement.value:.1%}.")
    if second is Verdict.BACKDOORED:
        reasons.append(f"A second scan still finds a backdoor, towards {suspect!r}.")
    if second is Verdict.INCONCLUSIVE:
        reasons.append(f"A second scan is inconclusive about {suspect!r}.")
    return list(dict.fromkeys(reasons))
