"""The audit report as one HTML file that needs no network, no script and no expert: the verdict first, then the proof."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..models.evaluation import Rate
from ..stages.identification import Verdict
from . import plots
from .report import AuditReport, Measurement


METRICS = {
    "clean_accuracy": ("Clean accuracy (CA)", "clean pictures read as their true label"),
    "agreement": ("Agreement", "clean pictures read as the original model reads them"),
    "attack_success_rate": (
        "Attack success rate (ASR)",
        "triggered pictures read as the target, true targets left out",
    ),
    "attack_success_rate_all": ("ASR over all pictures", "the same, true targets included"),
    "target_rate": ("Target rate without trigger", "the floor of the ASR"),
    "poisoned_accuracy": ("Poisoned accuracy (PA)", "triggered pictures read as their true label"),
}

FOUND = {
    Verdict.BACKDOORED: "A reconstructed trigger makes this model read other pictures as {target}, far more easily than "
    "as any unrelated label.",
    Verdict.INCONCLUSIVE: "Of all the labels, {target} is the easiest to reach with a trigger, but not by enough to call "
    "it a backdoor.",
    Verdict.CLEAN: "No label was suspiciously easy to reach with a trigger.",
}
DONE = {
    "scanned": "This was a scan only: the model was not changed.",
    "unchanged": "The model was left as it came: every weight is bit-identical.",
    "cleaned": "The model was tuned against that trigger and reached every bar set for it.",
    "not cleaned": "The model was tuned against that trigger but did not reach the bar. Do not rely on it.",
}


class Tile(NamedTuple):
    """One of the three big numbers: what it is, its value before and, when there is one, after, and a remark."""

    name: str
    before: str
    after: str | None
    note: str


class Reading(NamedTuple):
    """One example: two pictures, and one row (model, label of the clean one, label of the triggered one) a model."""

    clean: str
    triggered: str
    rows: list[tuple[str, str, str]]


def render(report: AuditReport) -> str:
    """The report as a page of HTML that holds all its pictures. The same report gives the same page."""
    environment = Environment(
        loader=PackageLoader("hf_invertune", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "interval": interval, "figures": "{:.4g}".format}
    target = report.target_name or report.scan.target_name
    return environment.get_template("report.html.j2").render(
        report=report,
        target=target,
        headline=headline(report, target),
        summary=f"{FOUND[report.verdict].format(target=_quoted(target))} {DONE[report.outcome]}",
        status=status(report),
        tiles=[*rate_tiles(report), scan_tile(report)],
        triggers=[
            (inverted, plots.trigger_pictures(inverted.trigger, report.trigger_withheld))
            for inverted in shown_triggers(report)
        ],
        readings=readings(report),
        charts={name: Markup(svg) for name, svg in charts(report)},
        scans=[("first", report.scan)] + ([("second", report.verification)] if report.verification else []),
        metrics=METRICS,
        strongest=strongest(report),
        settings=list(flat(report.settings)),
    )


def headline(report: AuditReport, target: str | None) -> str:
    """The verdict and the outcome in one line."""
    found = {
        Verdict.BACKDOORED: f"Backdoored towards {_quoted(target)}",
        Verdict.INCONCLUSIVE: f"Inconclusive: {_quoted(target)} is suspicious",
        Verdict.CLEAN: "No backdoor found",
    }[report.verdict]
    done = {"scanned": "", "unchanged": " — left unchanged", "cleaned": " — cleaned", "not cleaned": " — not cleaned"}
    return found + done[report.outcome]


def status(report: AuditReport) -> str:
    """The colour of the page: `"good"`, `"bad"` or `"unsure"`."""
    if report.outcome == "cleaned":
        return "good"
    if report.outcome == "not cleaned":
        return "bad"
    return {Verdict.CLEAN: "good", Verdict.BACKDOORED: "bad", Verdict.INCONCLUSIVE: "unsure"}[report.verdict]


def strongest(report: AuditReport) -> Measurement | None:
    """The measurement whose trigger fools the original model most; its rates stand on top of the page."""

    def success(measurement: Measurement) -> float:
        rate = measurement.before.attack_success_rate
        return rate.value if rate is not None and rate.count else -1.0

    return max(report.measurements, key=success, default=None)


def rate_tiles(report: AuditReport) -> list[Tile]:
    """ASR and CA (or agreement) of the strongest trigger, before and after."""
    top, count = strongest(report), len(report.measurements)
    if top is None:
        return [Tile(name, "—", None, "not measured") for name in ("Attack success rate", "Clean accuracy")]
    quality = "clean_accuracy" if top.before.clean_accuracy is not None else "agreement"
    success = f"with the trigger “{top.trigger}”" + (f", the strongest of {count}" if count > 1 else "")
    worst = [m.after.attack_success_rate for m in report.measurements if m.after and m.after.attack_success_rate]
    if count > 1 and worst:
        success += f"; none exceeds {percent(max(worst, key=lambda rate: rate.value))} after"
    notes = {
        "attack_success_rate": success if top.before.attack_success_rate is not None else "no trigger to measure",
        "clean_accuracy": "clean pictures read correctly",
        "agreement": "clean pictures read as the original model reads them; no true labels were given",
    }
    tiles = []
    for key, name in (
        ("attack_success_rate", "Attack success rate"),
        (quality, quality.replace("_", " ").capitalize()),
    ):
        after = None if top.after is None else percent(getattr(top.after, key))
        tiles.append(Tile(name, percent(getattr(top.before, key)), after, notes[key]))
    return tiles


def scan_tile(report: AuditReport) -> Tile:
    """What the second scan, from scratch, says of the cleaned model."""
    second = report.verification
    if second is None:
        return Tile("Second scan", "Not run", None, "there is no cleaned model to scan")
    towards = f", towards {_quoted(second.target_name)}" if second.target is not None else ""
    return Tile("Second scan", second.verdict.value.capitalize(), None, f"of the cleaned model, from scratch{towards}")


def shown_triggers(report: AuditReport) -> list[Any]:
    """The inverted triggers that the model was tuned against, else those that the scan has of its suspect."""
    if report.inverted or report.scan.target is None:
        return report.inverted
    return report.scan.triggers(report.scan.target)


def readings(report: AuditReport) -> list[Reading]:
    """The examples, each with how the models read it."""
    examples = report.examples
    if examples is None:
        return []
    models = [("original", examples.clean_before, examples.triggered_before)]
    if examples.clean_after:
        models.append(("cleaned", examples.clean_after, examples.triggered_after))
    return [
        Reading(
            plots.picture(clean), plots.picture(triggered), [(m, before[i], after[i]) for m, before, after in models]
        )
        for i, (clean, triggered) in enumerate(zip(examples.clean, examples.triggered, strict=True))
    ]


def charts(report: AuditReport) -> Iterator[tuple[str, str]]:
    """The charts that the report has data for."""
    scan, second = report.scan, report.verification
    if scan.simulations:
        yield "shift", plots.label_shift(scan).svg()
    again = {evidence.family: evidence for evidence in second.evidence} if second is not None else {}
    for evidence in scan.evidence:
        yield evidence.family, plots.family_scores(scan, evidence, again.get(evidence.family)).svg()
    if report.critical is not None:
        yield "layers", plots.layer_scores(report.critical).svg()
        if any(report.critical.neurons.values()):
            yield "neurons", plots.neuron_map(report.critical).svg()
    if any(measurement.after is not None for measurement in report.measurements):
        yield "rates", plots.rates(report.measurements).svg()
    if plots.panels(report.training):
        yield "training", plots.training_curves(report.training).svg()


def percent(rate: Rate | None) -> str:
    """A rate as text, a dash when it was not measured."""
    return f"{100 * rate.value:.1f} %" if rate is not None and rate.count else "—"


def interval(rate: Rate) -> str:
    """The 95 % interval of a rate, in per cent."""
    low, high = rate.interval
    return f"{100 * low:.1f}–{100 * high:.1f}"


def flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted keys and texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        for name, item in value.items():
            yield from flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        yield key, ", ".join(str(item) for item in value) or "none"
    else:
        yield key, str(value)


def _quoted(name: str | None) -> str:
    return "one label" if name is None else f"‘{name}’"
