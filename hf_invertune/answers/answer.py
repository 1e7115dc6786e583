"""What a scan of one model says, for people and for programs: findings under stable rules, or why there are none."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ExitCode
from ..models.loading import LoadedModel
from ..stages.gathering import Gathering
from ..stages.identification import ScanResult
from ..stages.verdict import CALIBRATION, Evidence, Verdict
from .rules import RULES, Rule


@dataclass(frozen=True)
class Finding:
    """One place or one race of a scan, and what it concludes alone.

    Attributes:
        rule (`str`): id of its [`Rule`].
        family (`str`): the kind of trigger.
        label (`str`): the class that it leads to; with a target outside the names the nearest of them.
        statistic (`str`): "concentration" or "lead".
        value (`float`): of the statistic.
        bar (`float`): the value from which it is no longer judged clean.
        share (`float`, *optional*): of the pictures that a gathering's trigger makes read as `label`.
        fingerprint (`str`): 32 hex digits: the same for the same model, rule, family and label in every run.
    """

    rule: str
    family: str
    label: str
    statistic: str
    value: float
    bar: float
    share: float | None
    fingerprint: str


@dataclass(frozen=True)
class StandsOut:
    """One statistic of a model that is far above what the other models of its group have.

    Attributes:
        family (`str`): the kind of trigger.
        statistic (`str`): "concentration" or "lead".
        value (`float`): of this model.
        z (`float`): by how many robust deviations it exceeds the median of the group.
        models (`int`): how many different models the group has.
    """

    family: str
    statistic: str
    value: float
    z: float
    models: int


@dataclass(frozen=True)
class Answer:
    """What came of one model.

    Attributes:
        model (`str`): folder or Hub id, as it was given.
        exit_code (`int`): an [`ExitCode`].
        verdict (`str`, *optional*): that of the scan; none when there was no scan.
        target (`str`, *optional*): the label that a backdoor leads to.
        findings (`list[Finding]`): all that are not judged clean, the gravest first.
        error (`str`, *optional*): why there is no verdict, in one line.
        source (`dict`): name, revision, and where the weights came from.
        class_names (`int`), images (`int`): how many were looked at.
        seconds (`float`): of the scan.
        report (`str`, *optional*): folder of the audit report.
        statistics (`dict[str, float]`): the highest of each family's, judged clean or not, by "family statistic".
        group (`str`, *optional*): 32 hex digits that models have in common whose statistics can be compared.
        stands_out (`list[StandsOut]`): in what the model exceeds the others of its group; no part of the verdict.
    """

    model: str
    exit_code: int
    verdict: str | None = None
    target: str | None = None
    findings: list[Finding] = field(default_factory=list)
    error: str | None = None
    source: dict[str, Any] = field(default_factory=dict)
    class_names: int = 0
    images: int = 0
    seconds: float = 0.0
    report: str | None = None
    statistics: dict[str, float] = field(default_factory=dict)
    group: str | None = None
    stands_out: list[StandsOut] = field(default_factory=list)
    calibration: str = CALIBRATION

    @classmethod
    def of(cls, model: str, source: LoadedModel, scan: ScanResult, report: str | None = None) -> "Answer":
        """The answer of a scan that came to an end."""
        return cls(
            model=model,
            exit_code=int(ExitCode.of(scan.verdict)),
            verdict=scan.verdict.value,
            target=scan.target_name,
            findings=findings_of(scan, source.name),
            source={"name": source.name, "revision": source.revision, **asdict(source.origin)},
            class_names=len(scan.class_names),
            images=scan.images,
            seconds=scan.seconds,
            report=report,
            statistics=statistics_of(scan),
        )

    @classmethod
    def failed(cls, model: str, error: Exception) -> "Answer":
        """The answer where no scan came to an end."""
        code = getattr(error, "exit_code", ExitCode.FAILED)
        return cls(model=model, exit_code=int(code), error=" ".join(str(error).split()))

    def plain(self) -> dict[str, Any]:
        """As what JSON can hold."""
        return asdict(self)


def statistics_of(scan: ScanResult) -> dict[str, float]:
    """The highest concentration and lead of each family, by "family statistic"."""
    values: dict[str, float] = {}
    for place in scan.gatherings:
        name = f"{place.family} concentration"
        values[name] = max(place.concentration, values.get(name, place.concentration))
    return values | {f"{race.family} lead": race.lead for race in scan.evidence}


def findings_of(scan: ScanResult, model: str) -> list[Finding]:
    """All parts of a scan that are not judged clean; those judged backdoored first, and places before races."""
    parts: Sequence[Gathering | Evidence] = [*scan.planted, *scan.evidence]
    found = [_finding(one, scan, model) for one in parts if scan.judged(one) is not Verdict.CLEAN]
    return sorted(found, key=lambda one: one.rule)


def _finding(one: Gathering | Evidence, scan: ScanResult, model: str) -> Finding:
    gathered = isinstance(one, Gathering)
    rule = rule_of(scan.judged(one), gathered)
    label = scan.class_names[one.label]
    return Finding(
        rule=rule.id,
        family=one.family,
        label=label,
        statistic="concentration" if gathered else "lead",
        value=one.concentration if isinstance(one, Gathering) else one.lead,
        bar=(scan.config.gathering.bars if gathered else scan.config.bars)[one.family].quiet,
        share=one.share if isinstance(one, Gathering) else None,
        fingerprint=fingerprint(model, rule.id, one.family, label),
    )


def rule_of(verdict: Verdict, gathered: bool) -> Rule:
    """The rule by which a place, or a race, is a finding."""
    return next(rule for rule in RULES if rule.verdict is verdict and rule.gathered is gathered)


def fingerprint(*parts: str) -> str:
    """32 hex digits of these words."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
