"""What the trackers are told of each stage but the tuning: results as flat names and numbers, see docs/trackers.md."""

import re
from dataclasses import fields

from ..models.evaluation import WITHOUT_TRIGGER, Metrics
from ..stages.identification import ScanResult
from ..stages.plan import TuningPlan
from ..stages.verdict import Verdict
from .content import ReportContent


def scan_figures(scan: ScanResult, stage: str = "scan") -> dict[str, float]:
    """How much was looked at, and what each family says of the label that it finds easiest to reach."""
    figures: dict[str, float] = {
        "backdoored": scan.verdict is Verdict.BACKDOORED,
        "images": scan.images,
        "labels": len(scan.shortlist),
        "seconds": scan.seconds,
    }
    if scan.gatherings:
        figures["places"] = len(scan.planted)
    for place in reversed(scan.gatherings):  # of each family the first one is the most concentrated
        figures[f"concentration_{place.family}"] = place.concentration
    for simulation in scan.simulations:
        figures[f"shift_{_word(simulation.kind)}"] = max(simulation.shift)
    for family in scan.evidence:
        figures[f"lead_{family.family}"] = family.lead
        figures[f"label_{family.family}"] = family.label
        figures[f"objective_{family.family}"] = family.costs[family.label]
        figures[f"z_{family.family}"] = family.z_scores[family.label]
    return _prefixed(stage, figures)


def plan_figures(plan: TuningPlan) -> dict[str, float]:
    """The first inverted trigger of each family that leads to the target, and how much of the model reacts to them."""
    inversion: dict[str, float] = {"triggers": len(plan.inverted)}
    for family, found in plan.first_of_each_family().items():
        inversion[f"objective_{family}"] = found.objective
        inversion[f"cross_entropy_{family}"] = found.cross_entropy
        inversion[f"coverage_{family}"] = found.coverage
    localization: dict[str, float] = {
        "layers": len(plan.critical.layers),
        "neurons": sum(len(neurons) for neurons in plan.critical.neurons.values()),
    }
    return _prefixed("inversion", inversion) | _prefixed("localization", localization)


def audit_figures(report: ReportContent) -> dict[str, float]:
    """The rates on the held-out images before and after, whether the bars were reached, and the second scan."""
    figures: dict[str, float] = {"cleaned": report.outcome == "cleaned"}
    for measurement in report.measurements:
        for when, metrics in (("before", measurement.before), ("after", measurement.after)):
            for metric in fields(Metrics):
                rate = getattr(metrics, metric.name, None)
                trigger = "" if metric.name in WITHOUT_TRIGGER else f"_{_word(measurement.trigger)}"
                if rate is not None and rate.count:
                    figures[f"{metric.name}_{when}{trigger}"] = rate.value
    second = {} if report.second_scan is None else scan_figures(report.second_scan, "second_scan")
    return _prefixed("audit", figures) | second


def _prefixed(stage: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{stage}/{name}": float(value) for name, value in figures.items()}


def _word(text: str) -> str:
    """`text` as a part of a name: "inverted, masked" gives "inverted_masked"."""
    return re.sub(r"\W+", "_", text)
