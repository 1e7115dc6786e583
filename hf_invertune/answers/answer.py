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
from .rules import CANNOT_BE_JUDGED, NOT_SCANNED, RULES, Rule


@dataclass(frozen=True)
class Finding:
    """One place or one race of a scan, and what it concludes alone.

    Attributes:
        rule (`str`): id of its [`Rule`].
        family (`str`): the kind of trigger.
        label (`str`, *optional*): the class that it leads to; with a target outside the names the nearest of them. None
            where no labels were looked at.
        statistic (`str`): "concentration" or "lead".
        value (`float`): of the statistic.
        bar (`float`): the value from which it is no longer judged clean.
        share (`float`, *optional*): of the pictures that a gathering's trigger makes read as `label`.
        fingerprint (`str`): 32 hex digits: the same for the same weights, rule, family and label in every run.
        accepted (`str`, *optional*): why and until when, where a [`Baseline`] accepts it.
    """

    rule: str
    family: str
    label: str | None
    statistic: str
    value: float
    bar: float
    share: float | None
    fingerprint: str
    accepted: str | None = None


@dataclass(frozen=True)
class Part:
    """One place or one race of a scan, whatever it concludes.

    Attributes:
        family (`str`), label (`str`, *optional*), statistic (`str`), value (`float`), share (`float`, *optional*): as in [`Finding`].
        chance (`float`, *optional*): how likely a clean model reaches so much, see [`ScanResult.chance`].
        quiet (`float`), suspicious (`float`): the bars of the family.
        verdict (`str`): what the value means by them.
    """

    family: str
    label: str | None
    statistic: str
    value: float
    share: float | None
    chance: float | None
    quiet: float
    suspicious: float
    verdict: str

    @classmethod
    def of(cls, one: Gathering | Evidence, scan: ScanResult) -> "Part":
        """A place or a race of `scan`."""
        gathered = isinstance(one, Gathering)
        bars = (scan.config.gathering.bars if gathered else scan.config.bars)[one.family]
        return cls(
            family=one.family,
            label=scan.label_name(one),
            statistic="concentration" if gathered else "lead",
            value=one.concentration if isinstance(one, Gathering) else one.lead,
            share=one.share if isinstance(one, Gathering) else None,
            chance=scan.chance(one),
            quiet=bars.quiet,
            suspicious=bars.suspicious,
            verdict=scan.judged(one).value,
        )


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
        target (`str`, *optional*): the label that a backdoor leads to, where labels were looked at.
        findings (`list[Finding]`): all that are not judged clean, the gravest first.
        evidence (`list[Part]`): all places, then all races.
        error (`str`, *optional*): why there is no verdict, in one line.
        source (`dict`): name, revision, format, and where the weights came from.
        class_names (`int`), images (`int`): how many were looked at.
        seconds (`float`): of the scan.
        report (`str`, *optional*): folder of the audit report.
        group (`str`, *optional*): 32 hex digits that models have in common whose statistics can be compared.
        stands_out (`list[StandsOut]`): in what the model exceeds the others of its group; no part of the verdict.
    """

    model: str
    exit_code: int
    verdict: str | None = None
    target: str | None = None
    findings: list[Finding] = field(default_factory=list)
    evidence: list[Part] = field(default_factory=list)
    error: str | None = None
    source: dict[str, Any] = field(default_factory=dict)
    class_names: int = 0
    images: int = 0
    seconds: float = 0.0
    report: str | None = None
    group: str | None = None
    stands_out: list[StandsOut] = field(default_factory=list)
    calibration: str = CALIBRATION

    @classmethod
    def of(cls, model: str, source: LoadedModel, scan: ScanResult, report: str | None = None) -> "Answer":
        """The answer of a scan that came to an end."""
        parts: Sequence[Gathering | Evidence] = [*scan.gatherings, *scan.evidence]
        return cls(
            model=model,
            exit_code=int(ExitCode.of(scan.verdict)),
            verdict=scan.verdict.value,
            target=scan.target_name,
            findings=findings_of(scan, source.name),
            evidence=[Part.of(part, scan) for part in parts],
            source={
                "name": source.name,
                "revision": source.revision,
                "format": source.format,
                **asdict(source.origin),
            },
            class_names=len(scan.class_names),
            images=scan.images,
            seconds=scan.seconds,
            report=report,
        )

    @classmethod
    def failed(cls, model: str, error: Exception) -> "Answer":
        """The answer where no scan came to an end."""
        code = getattr(error, "exit_code", ExitCode.FAILED)
        return cls(model=model, exit_code=int(code), error=" ".join(str(error).split()))

    @property
    def open_findings(self) -> list[Finding]:
        """Those that no [`Baseline`] accepts."""
        return [one for one in self.findings if one.accepted is None]

    @property
    def statistics(self) -> dict[str, float]:
        """The highest concentration and lead of each family, judged clean or not, by "family statistic"."""
        values: dict[str, float] = {}
        for part in self.evidence:
            name = f"{part.family} {part.statistic}"
            values[name] = max(part.value, values.get(name, part.value))
        return values

    @property
    def rule(self) -> Rule:
        """The rule by which there is no verdict, where there is none."""
        name = CANNOT_BE_JUDGED if self.exit_code == ExitCode.CANNOT_JUDGE else NOT_SCANNED
        return next(rule for rule in RULES if rule.id == name)

    def plain(self) -> dict[str, Any]:
        """As what JSON can hold."""
        return asdict(self)


def findings_of(scan: ScanResult, model: str) -> list[Finding]:
    """All parts of a scan that are not judged clean; those judged backdoored first, and places before races.

    They are told apart by the digest of the weights where the scan knows it, else by the name of the `model`.
    """
    parts: Sequence[Gathering | Evidence] = [*scan.planted, *scan.evidence]
    known = model if scan.inputs is None else scan.inputs.model.sha256
    found: list[Finding] = []
    for one in parts:
        if scan.judged(one) is Verdict.CLEAN:
            continue
        part, rule = Part.of(one, scan), rule_of(scan.judged(one), isinstance(one, Gathering))
        alike = sum((other.rule, other.family, other.label) == (rule.id, part.family, part.label) for other in found)
        mark = fingerprint(known, rule.id, part.family, part.label or "", *[str(alike)] * bool(alike))
        found.append(
            Finding(rule.id, part.family, part.label, part.statistic, part.value, part.quiet, part.share, mark)
        )
    return sorted(found, key=lambda one: one.rule)


def rule_of(verdict: Verdict, gathered: bool) -> Rule:
    """The rule by which a place, or a race, is a finding."""
    return next(rule for rule in RULES if rule.verdict is verdict and rule.gathered is gathered)


def fingerprint(*parts: str) -> str:
    """32 hex digits of these words."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
