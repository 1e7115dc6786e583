"""What the figures of an audit report say of each other: all that can be computed again from others of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..data.pixels import as_float
from ..models.evaluation import Metrics, Rate
from ..stages.identification import FamilyEvidence, ScanResult, Verdict, combine, robust_z
from ..stages.inversion import InvertedTrigger
from ..stages.localization import LocalizationConfig, critical_layers
from ..triggers import AdditiveTrigger, MaskedTrigger
from ..tuning.arguments import RemovalConfig
from .audit import missed_bars
from .ranges import TUNED, triggers_in
from .report import AuditReport, without_pixels


BARS = ("max_attack_success_rate", "max_accuracy_drop", "min_agreement")


@dataclass(frozen=True)
class Claim:
    """One thing that a report says.

    Attributes:
        name (`str`): what it is about.
        holds (`bool`, *optional*): whether it does; `None` when that cannot be checked from what is here.
        detail (`str`): what was found, or why it cannot be checked.
    """

    name: str
    holds: bool | None
    detail: str


def judge(name: str, problems: Iterator[str] | Sequence[str], detail: str) -> Claim:
    """A claim that holds when there are no `problems`, of which the first three are named."""
    found = list(problems)
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    return Claim(name, not found, "; ".join(found[:3]) + more if found else detail)


def consistency_claims(report: AuditReport) -> list[Claim]:
    """What can be told from the report alone, which must be [`well_formed`]."""
    scans = [("first", report.scan)] + ([("second", report.verification)] if report.verification else [])
    claims = [
        judge("rates", _rates(report), "hits and counts fit each other and the number of held-out images"),
        judge("images", _images(report), f"{report.data.images} for each scan, {report.data.held_out} held out"),
    ]
    for which, scan in scans:
        detail = f"the shares are counts out of {scan.images} images and sum to 1"
        claims.append(judge(f"{which} scan: simulations", _simulations(scan), detail))
        detail = "labels, z-scores and leads follow from the scores"
        claims.append(judge(f"{which} scan: scores", _scores(scan), detail))
        claims.append(_verdicts(report, which, scan))
    claims.append(
        judge("target", _target(report), f"{report.target_name or 'none'}, as the scan and the triggers say")
    )
    claims.append(_outcome(report))
    claims.append(
        judge("model digests", _digests(report), "before and after are the same exactly if nothing was changed")
    )
    if report.critical is not None:
        claims.append(_critical(report))
    return claims + _trigger_claims(report)


def _rates(report: AuditReport) -> Iterator[str]:
    sides = [(m.trigger, side, metrics) for m in report.measurements for side, metrics in _sides(m.before, m.after)]
    for trigger, side, metrics in sides:
        for problem in _metrics(metrics, report.data.held_out, report.data.labelled):
            yield f"{trigger}, {side}: {problem}"
    for side in ("before", "after"):
        for name in ("clean_accuracy", "agreement", "target_rate"):
            if len({str(getattr(metrics, name)) for _, s, metrics in sides if s == side}) > 1:
                yield f"{name} {side} differs between triggers, and no trigger enters it"
    for m in report.measurements:
        for name in ("attack_success_rate", "target_rate"):
            pair = [getattr(metrics, name) for _, metrics in _sides(m.before, m.after)]
            if all(pair) and len({rate.count for rate in pair}) > 1:
                yield f"{m.trigger}: {name} is of other images before than after"


def _sides(before: Metrics, after: Metrics | None) -> list[tuple[str, Metrics]]:
    return [("before", before), ("after", after)] if after is not None else [("before", before)]


def _metrics(metrics: Metrics, held_out: int, labelled: bool) -> Iterator[str]:
    rates: dict[str, Rate] = {name: rate for name, rate in vars(metrics).items() if rate is not None}
    for name, rate in rates.items():
        if not 0 <= rate.hits <= rate.count:
            yield f"{name} has {rate.hits} hits of {rate.count}"
            return
        if rate.count != held_out and name not in ("attack_success_rate", "target_rate"):
            yield f"{name} is of {rate.count} images, and {held_out} were held out"
    if {"clean_accuracy", "agreement"} & set(rates) != {"clean_accuracy" if labelled else "agreement"}:
        yield f"clean accuracy and agreement do not go with images {'with' if labelled else 'without'} labels"
    success, everywhere, floor = metrics.attack_success_rate, metrics.attack_success_rate_all, metrics.target_rate
    if success is None or everywhere is None or floor is None:
        if {"attack_success_rate", "attack_success_rate_all", "target_rate", "poisoned_accuracy"} & set(rates):
            yield "some rates of the trigger are there and others are not"
        return
    if labelled != (metrics.poisoned_accuracy is not None):
        yield "poisoned accuracy goes with labels"
    if success.count != floor.count or success.count > everywhere.count:
        yield "the ASR and its floor are of different images"
    if not 0 <= everywhere.hits - success.hits <= everywhere.count - success.count:
        yield "the ASR over all images does not fit that without the target's own"
    quality = metrics.clean_accuracy or metrics.agreement
    if metrics.clean_accuracy is not None and quality is not None and quality.hits > quality.count - floor.hits:
        yield "clean accuracy and target rate count some images twice"
    if metrics.poisoned_accuracy is not None and metrics.poisoned_accuracy.hits > everywhere.count - success.hits:
        yield "poisoned accuracy and ASR count some images twice"


def _images(report: AuditReport) -> Iterator[str]:
    scans = [report.verification] + ([report.scan] if "scan" in report.seconds else [])
    for scan in scans:
        if scan is not None and scan.images != report.data.images:
            yield f"a scan used {scan.images} images and the report names {report.data.images}"
    if "scan" in report.seconds and report.scan.seconds != report.seconds["scan"]:
        yield "the scan's time is given twice, and differs"
    if report.verification is not None and report.verification.class_names != report.scan.class_names:
        yield "the second scan looked at other labels than the first"
    if report.examples is not None and len(report.examples.clean) > report.data.held_out:
        yield "there are more examples than held-out images"


def _simulations(scan: ScanResult) -> Iterator[str]:
    for simulation in scan.simulations:
        for name, shares in (("P_clean", simulation.clean), ("P_adv", simulation.adversarial)):
            counts = [share * scan.images for share in shares]
            if abs(sum(shares) - 1) > 1e-5 or any(abs(count - round(count)) > 0.01 for count in counts):
                yield f"{name} of the {simulation.kind} is not made of counts out of {scan.images}"
    if any(simulation.clean != scan.simulations[0].clean for simulation in scan.simulations):
        yield "P_clean differs between simulations, and no perturbation enters it"


def _scores(scan: ScanResult) -> Iterator[str]:
    for evidence in scan.evidence:
        yield from (f"{evidence.family}: {problem}" for problem in _family(evidence, scan))


def _family(evidence: FamilyEvidence, scan: ScanResult) -> Iterator[str]:
    scores, lowest = evidence.scores, evidence.scores[evidence.label]
    if lowest != min(scores.values()):
        yield f"{scan.class_names[evidence.label]} has not the lowest score"
    for label, z in robust_z(scores).items():
        if not math.isclose(z, evidence.z_scores[label], rel_tol=1e-6, abs_tol=1e-9):
            yield f"z of {scan.class_names[label]} is {evidence.z_scores[label]:.4g}, and {z:.4g} by its score"
    leads = [(score - lowest) / lowest for label, score in scores.items() if label != evidence.label] or [0.0]
    if not any(math.isclose(lead, evidence.lead, rel_tol=1e-9, abs_tol=1e-12) for lead in leads):
        yield f"the lead of {evidence.lead:.4g} is over none of the labels"
    if set(scores) != set(scan.shortlist):
        yield "not the shortlist was scored"
    objectives = [candidate.objective for candidate in evidence.candidates]
    if any(a > b for a, b in pairwise(objectives)):
        yield "the finalists are not in order"
    yield from (f"finalist {c.name}: {p}" for c in evidence.candidates for p in _candidate(c, scan.class_names))
    for candidate in evidence.candidates:
        if candidate.objective != scores[candidate.label]:
            yield f"{candidate.name} has an objective of {candidate.objective:.4g} and a score of another value"


def _candidate(candidate: InvertedTrigger, names: Sequence[str]) -> Iterator[str]:
    if candidate.name != names[candidate.label]:
        yield f"label {candidate.label} is {names[candidate.label]}"
    if not 0 <= candidate.coverage <= 1.000001:
        yield "coverage is not between 0 and 1"


def _verdicts(report: AuditReport, which: str, scan: ScanResult) -> Claim:
    name = f"{which} scan: verdict"
    verdict, target = combine(scan.evidence)
    problems = []
    if (verdict, target) != (scan.verdict, scan.target):
        problems.append(f"the families say {verdict}, the scan says {scan.verdict}, or the targets differ")
    if which == "first" and "scan" not in report.seconds:
        return (
            judge(name, problems, "")
            if problems
            else Claim(name, None, "the scan was brought along: settings unknown")
        )
    for evidence in scan.evidence:
        suspicious, quiet = (_number(report, "scan", bar, evidence.family) for bar in ("suspicious", "quiet"))
        if suspicious is None or quiet is None:
            return Claim(name, None, "the thresholds are not recorded")
        wanted = Verdict.CLEAN if evidence.lead < quiet else Verdict.INCONCLUSIVE
        wanted = Verdict.BACKDOORED if evidence.lead >= suspicious else wanted
        if wanted is not evidence.verdict:
            problems.append(f"{evidence.family}: a lead of {evidence.lead:.4g} means {wanted}, not {evidence.verdict}")
    if scan.seed != _number(report, "scan", "seed", default=0) + (which == "second"):
        problems.append(f"the seed {scan.seed} is not the recorded one")
    return judge(name, problems, f"{scan.verdict}, by the leads and the recorded thresholds")


def _number(report: AuditReport, *path: str, default: Any = None) -> Any:
    """A number of the settings, `default` when it is not recorded."""
    value: Any = report.settings
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if type(value) in (int, float) and abs(value) < 2**63 else default


def _target(report: AuditReport) -> Iterator[str]:
    if report.verdict is not report.scan.verdict:
        yield f"the report's verdict is {report.verdict}, and the scan's {report.scan.verdict}"
    if report.target_name != (None if report.target is None else report.scan.class_names[report.target]):
        yield f"label {report.target} is not {report.target_name!r:.60}"
    if report.outcome not in TUNED and report.target != report.scan.target:
        yield "the target is not the scan's"
    if report.inverted and report.inverted[0].label != report.target:
        yield "the strongest trigger leads to another label"
    for found in report.inverted:
        yield from (f"inverted {found.name}: {problem}" for problem in _candidate(found, report.scan.class_names))


def _outcome(report: AuditReport) -> Claim:
    if report.outcome not in TUNED:
        problems = []
        if report.outcome == "unchanged" and report.scan.verdict is Verdict.BACKDOORED:
            problems.append("a model judged backdoored was left unchanged")
        if report.verification is not None or report.inverted or any(m.after for m in report.measurements):
            problems.append("there are results of a tuning")
        return judge("outcome", problems, f"{report.outcome}: nothing was tuned")
    bars = {name: _number(report, name) for name in BARS}
    if None in bars.values():
        return Claim("outcome", None, "the bars are not recorded")
    reasons = missed_bars(report, RemovalConfig(**bars))
    problems = (
        [] if reasons == report.reasons else [f"the figures give the reasons {reasons}, the report {report.reasons}"]
    )
    if report.outcome != ("not cleaned" if reasons else "cleaned"):
        problems.append(f"{report.outcome!r}, and {len(reasons)} bars were missed")
    return judge("outcome", problems, f"{report.outcome}, by the rates, the second scan and the recorded bars")


def _digests(report: AuditReport) -> Iterator[str]:
    before, after = report.model.sha256_before, report.model.sha256_after
    if (before == after) != (report.outcome == "unchanged"):
        yield f"the outcome is {report.outcome!r}, and the digests before and after are {'the same' * (before == after) or 'not the same'}"
    if report.outcome == "scanned" and after is not None:
        yield "a scan hands no model back"


def _critical(report: AuditReport) -> Claim:
    assert report.critical is not None
    deviations = _number(report, "localization", "deviations")
    if deviations is None:
        return Claim("critical layers", None, "the settings of the localization are not recorded")
    top = _number(report, "localization", "top_layers")
    if top is not None and (type(top) is not int or top < 1):
        return Claim("critical layers", False, f"top_layers was {top}, with which nothing can be located")
    config = LocalizationConfig(deviations, top)
    layers = critical_layers(report.critical.layer_scores, config)
    problems = (
        []
        if layers == report.critical.layers
        else [f"by their scores they are {layers}, not {report.critical.layers}"]
    )
    return judge("critical layers", problems, f"{layers} of {len(report.critical.layer_scores)}, by their scores")


def _trigger_claims(report: AuditReport) -> list[Claim]:
    """The triggers against the figures that were taken from them."""
    found = [report.inverted, *[e.candidates for s in (report.scan, report.verification) if s for e in s.evidence]]
    names = ("coverage", "example pictures")
    if report.trigger_withheld:
        bare = without_pixels(report)
        same = [a.digest() == b.digest() for a, b in zip(triggers_in(report), triggers_in(bare), strict=True)]
        problems = ["a trigger still has its pixels"] * (not all(same)) + ["there are examples"] * bool(
            report.examples
        )
        withheld = judge("withheld pixels", problems, "no trigger of the report has pixels")
        return [withheld, *(Claim(name, None, "the pixels of the triggers are withheld") for name in names)]
    coverage = judge(
        "coverage", _coverages([c for group in found for c in group]), "as the masks and patterns give it"
    )
    if report.examples is None or not report.inverted:
        return [coverage]
    stamped = (report.inverted[0].trigger(as_float(report.examples.clean)) * 255).round()
    off = float((stamped - report.examples.triggered.float()).abs().max()) if stamped.numel() else 0.0
    problems = [f"the trigger does not turn the clean ones into the triggered ones (off by {off:.0f})"] * (off > 1)
    return [coverage, judge("example pictures", problems, "the trigger turns the clean ones into the triggered ones")]


def _coverages(candidates: Sequence[InvertedTrigger]) -> Iterator[str]:
    for candidate in candidates:
        trigger = candidate.trigger
        if isinstance(trigger, MaskedTrigger):
            coverage = float(trigger.mask.mean())
        else:
            assert isinstance(trigger, AdditiveTrigger)
            coverage = float(trigger.delta.abs().mean()) / trigger.epsilon
        if not math.isclose(coverage, candidate.coverage, rel_tol=1e-4, abs_tol=1e-6):
            yield f"{candidate.name}, {trigger.kind}: {candidate.coverage:.4g}, and {coverage:.4g} by its pixels"
