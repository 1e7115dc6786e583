"""The audit report as one HTML file that needs no network, no script and no expert: the verdict first, then the proof."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..models.evaluation import METRICS, Measurement, Rate
from ..stages.calibration import by_chance
from ..stages.inversion import InvertedTrigger
from ..stages.verdict import CALIBRATION, MISSED, Verdict
from . import plots, strips
from .content import ReportContent


FOUND = {
    Verdict.BACKDOORED: "A reconstructed trigger makes this model read other pictures as {target}, far more easily than "
    "as any unrelated label.",
    Verdict.INCONCLUSIVE: "Of all the labels, {target} is the easiest to reach with a trigger, but not by enough to call "
    "it a backdoor.",
    Verdict.CLEAN: "No label was suspiciously easy to reach with a trigger.",
}
GATHERED = {
    Verdict.BACKDOORED: "A trigger brings pictures of all kinds to one place, as only planted triggers do.",
    Verdict.INCONCLUSIVE: "A trigger brings pictures of many kinds near each other, but not by enough to call it a backdoor.",
    Verdict.CLEAN: "No trigger was found that brings pictures of all kinds to one place.",
}
"""What is found where no labels were looked at."""
DONE = {
    "scanned": "This was a scan only: the model was not changed.",
    "unchanged": "The model was left as it came: every weight is bit-identical.",
    "cleaned": "The model was tuned against that trigger and reached every bar set for it.",
    "reduced": "The model was tuned against that trigger, which now succeeds half as often at most, but it missed a bar. "
    "Do not rely on it.",
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


def templates() -> Environment:
    """Those of all pages."""
    return Environment(
        loader=PackageLoader("hf_invertune", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(report: ReportContent) -> str:
    """The report as a page of HTML that holds all its pictures. The same report gives the same page."""
    environment = templates()
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "figures": "{:.4g}".format,
        "begin": begin,
        "by_chance": by_chance,
    }
    target = report.target_name
    found = (FOUND if report.scan.labelled else GATHERED)[report.verdict].format(target=_quoted(target))
    return environment.get_template("report.html.j2").render(
        report=report,
        calibration=CALIBRATION,
        target=target,
        headline=headline(report, target),
        summary=f"{found} {DONE[report.outcome]}",
        status=status(report),
        tiles=[*rate_tiles(report), scan_tile(report)],
        triggers=[
            (inverted, {c: plots.picture(p) for c, p in inverted.trigger.panels(report.trigger_withheld).items()})
            for inverted in shown_triggers(report)
        ],
        readings=readings(report),
        charts={name: Markup(svg) for name, svg in charts(report)},
        scans=[("first", report.scan)] + ([("second", report.second_scan)] if report.second_scan else []),
        metrics=METRICS,
        strongest=strongest(report),
        settings=list(flat(report.config.plain())),
    )


def headline(report: ReportContent, target: str | None) -> str:
    """The verdict and the outcome in one line."""
    if not report.scan.labelled:
        return {Verdict.CLEAN: "No backdoor found"}.get(
            report.verdict, begin(report.verdict.value)
        ) + ", without labels"
    found = {
        Verdict.BACKDOORED: f"Backdoored towards {_quoted(target)}",
        Verdict.INCONCLUSIVE: f"Inconclusive: {_quoted(target)} is suspicious",
        Verdict.CLEAN: "No backdoor found",
    }[report.verdict]
    done = {"scanned": "", "unchanged": " — left unchanged"}
    return found + done.get(report.outcome, f" — {report.outcome}")


def status(report: ReportContent) -> str:
    """The colour of the page: `"good"`, `"bad"` or `"unsure"`."""
    if report.outcome == "cleaned":
        return "good"
    if report.outcome in MISSED:
        return "bad"
    return {Verdict.CLEAN: "good", Verdict.BACKDOORED: "bad", Verdict.INCONCLUSIVE: "unsure"}[report.verdict]


def strongest(report: ReportContent) -> Measurement | None:
    """The measurement whose trigger fools the original model most; its rates stand on top of the page."""

    def success(measurement: Measurement) -> float:
        rate = measurement.before.attack_success_rate
        return rate.value if rate is not None and rate.count else -1.0

    return max(report.measurements, key=success, default=None)


def rate_tiles(report: ReportContent) -> list[Tile]:
    """ASR and CA (or agreement) of the strongest trigger, before and after."""
    top, count = strongest(report), len(report.measurements)
    if top is None:
        return [Tile(name, "—", None, "not measured") for name in ("Attack success rate", "Clean accuracy")]
    quality = "clean_accuracy" if top.before.clean_accuracy is not None else "agreement"
    success = f"with the trigger “{top.trigger}”" + (f", the strongest of {count}" if count > 1 else "")
    worst = [m.after.attack_success_rate for m in report.measurements if m.after.attack_success_rate]
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
        tiles.append(Tile(name, percent(getattr(top.before, key)), percent(getattr(top.after, key)), notes[key]))
    return tiles


def scan_tile(report: ReportContent) -> Tile:
    """What the second scan, from scratch, says of the cleaned model."""
    second = report.second_scan
    if second is None:
        return Tile("Second scan", "Not run", None, "there is no cleaned model to scan")
    towards = f", towards {_quoted(second.target_name)}" if second.target is not None else ""
    return Tile("Second scan", second.verdict.value.capitalize(), None, f"of the cleaned model, from scratch{towards}")


def shown_triggers(report: ReportContent) -> list[InvertedTrigger]:
    """The inverted triggers that the model was tuned against, else those that the scan has of its suspect."""
    if report.inverted or report.scan.target is None:
        return report.inverted
    return report.scan.triggers(report.scan.target)


def readings(report: ReportContent) -> list[Reading]:
    """The examples, each with how the models read it."""
    examples = None if report.removal is None else report.removal.examples
    if examples is None:
        return []
    names = report.scan.class_names
    models = [
        ("original", examples.clean_before, examples.triggered_before),
        ("cleaned", examples.clean_after, examples.triggered_after),
    ]
    return [
        Reading(
            plots.picture(clean),
            plots.picture(triggered),
            [(model, names[before[i]], names[after[i]]) for model, before, after in models],
        )
        for i, (clean, triggered) in enumerate(zip(examples.clean, examples.triggered, strict=True))
    ]


def charts(report: ReportContent) -> Iterator[tuple[str, str]]:
    """The charts that the report has data for."""
    if report.scan.simulations:
        yield "shift", plots.label_shift(report.scan).svg()
    if report.scan.gatherings:
        yield "places", strips.places(report.scan, report.second_scan).svg()
    if report.scan.evidence:
        yield "leads", strips.leads(report.scan, report.second_scan).svg()
    if report.removal is None:
        return
    yield "layers", plots.layer_scores(report.removal.critical).svg()
    if any(report.removal.critical.neurons.values()):
        yield "neurons", plots.neuron_map(report.removal.critical).svg()
    yield "rates", plots.rates(report.measurements).svg()
    if plots.panels(report.removal.training):
        yield "training", plots.training_curves(report.removal.training).svg()


def percent(rate: Rate | None) -> str:
    """A rate as text, a dash when it was not measured."""
    return f"{100 * rate.value:.1f} %" if rate is not None and rate.count else "—"


def interval(rate: Rate) -> str:
    """The 95 % interval of a rate, in per cent."""
    low, high = rate.interval
    return f"{100 * low:.1f}–{100 * high:.1f}"


def begin(text: str) -> str:
    """`text` as a sentence begins."""
    return text[:1].upper() + text[1:]


def flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted keys and texts; of several kinds first what they are, then the settings of each."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        yield from flat([item["kind"] for item in value], key)
        yield from flat({item["kind"]: {k: v for k, v in item.items() if k != "kind"} for item in value}, key)
    elif isinstance(value, list):
        yield key, ", ".join(str(item) for item in value) or "none"
    else:
        yield key, "none" if value is None else str(value)


def _quoted(name: str | None) -> str:
    return "one label" if name is None else f"‘{name}’"
