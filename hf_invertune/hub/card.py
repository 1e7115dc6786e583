"""The model card of a cleaned model: what the Hub reads, and a page for people who know nothing of backdoors."""

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined, TemplateError

from ..errors import InputError
from ..models.evaluation import Metrics, Rate
from ..report import plots
from ..report.report import AuditReport, Measurement
from ..triggers import AdditiveTrigger


TASK = "zero-shot-image-classification"
TAGS = ("hf_invertune", "clip", "backdoor-removal", "ai-security")
FEW = 20
"""Class names that a command line may list."""


def make_card(
    report: AuditReport,
    repo_id: str,
    *,
    adapter: bool = False,
    license: str | None = None,
    pictures: dict[str, str] | None = None,
    template: str | Path | None = None,
) -> ModelCard:
    """Fill the card's template from a report.

    Args:
        report ([`AuditReport`]): in the form that is published.
        repo_id (`str`): where the card will stand.
        adapter (`bool`): whether the repository holds a LoRA adapter, not a merged model.
        license (`str`, *optional*): by default that of the model that was cleaned.
        pictures (`dict[str, str]`, *optional*): path in the repository -> what the picture shows.
        template (`str` or `Path`, *optional*): a Jinja2 file of one's own, with the variables of model_card_template.md.

    Raises:
        InputError: when `template` cannot be read or rendered, or renders no metadata.
    """
    base = report.model.name if report.model.on_hub else None
    data = ModelCardData(
        base_model=base,
        datasets=report.data.source if report.data.on_hub else None,
        eval_results=_results(report),
        library_name="peft" if adapter else "transformers",
        license=license or report.model.license.get("license"),
        license_name=None if license else report.model.license.get("license_name"),
        license_link=None if license else report.model.license.get("license_link"),
        model_name=repo_id.split("/")[-1],
        pipeline_tag=TASK,
        tags=[*TAGS, *(["lora"] if adapter else [])],
    )
    if base:
        data["base_model_relation"] = "adapter" if adapter else "finetune"
    source = Path(template) if template else files("hf_invertune") / "hub" / "model_card_template.md"
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    try:
        text = environment.from_string(source.read_text(encoding="utf-8")).render(
            card_data=data.to_yaml(), **_variables(report, repo_id, adapter), pictures=pictures or {}
        )
        return ModelCard(text)
    except (OSError, UnicodeDecodeError, TemplateError, ValueError) as error:
        raise InputError(f"`card_template`: {source} cannot be filled in ({error}).") from error


def make_charts(report: AuditReport) -> dict[str, plots.Chart]:
    """The card's pictures by file name: the rates before and after, and how far ahead the suspect is."""
    scan = report.scan
    evidence = max(scan.evidence, key=lambda family: family.lead)
    again = {family.family: family for family in report.verification.evidence} if report.verification else {}
    charts = {"scores": plots.family_scores(scan, evidence, again.get(evidence.family))}
    if any(measurement.after for measurement in report.measurements):
        charts = {"before_after": plots.rates(report.measurements), **charts}
    return charts


def plain(text: object) -> str:
    """`text` on one line, with what Markdown and HTML would read as markup escaped."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(str(text).split()))


def reproduction(report: AuditReport) -> str | None:
    """The command that makes the model again, or `None` when the pictures were not read from a named place."""
    if report.data.source == "pictures in memory":
        return None
    words = ["hf-invertune", "remove", report.model.name]
    if report.model.revision:
        words += ["--revision", report.model.revision]
    words += ["--images", report.data.source]
    options = {
        "split": "--split",
        "image_column": "--image-column",
        "label_column": "--label-column",
        "limit": "--limit",
    }
    for key, option in options.items():
        if key in report.data.selection:
            words += [option, str(report.data.selection[key])]
    names = report.scan.class_names
    if len(names) <= FEW and all(name.isprintable() and not set(",`") & set(name) for name in names):
        words += ["--class-names", ",".join(names)]
    elif not report.data.labelled:
        words += ["--class-names", "class_names.txt"]
    words += ["--seed", str(report.settings["seed"])]
    if report.measurements and report.target_name is not None and report.target != report.scan.target:
        words += ["--target", report.target_name]
    return shlex.join([*words, "--max-steps", str(report.settings["max_steps"]), "--output-dir", "out"])


def _results(report: AuditReport) -> list[EvalResult] | None:
    """CA (or agreement) once and ASR of each trigger, before and after, each with the data that it came from."""
    results = []
    for place, measurement in enumerate(report.measurements):
        for moment, metrics in (("before cleaning", measurement.before), ("after cleaning", measurement.after)):
            for key, kind, name in _figures(measurement, metrics, first=place == 0):
                rate: Rate = getattr(metrics, key)
                results.append(
                    EvalResult(
                        task_type=TASK,
                        task_name="Zero-shot image classification",
                        dataset_type=report.data.source if report.data.on_hub else "custom",
                        dataset_name=f"{report.data.held_out} held-out pictures of {report.data.source}",
                        dataset_revision=report.data.selection.get("revision"),
                        metric_type=kind,
                        metric_name=f"{name}, {moment}",
                        metric_value=round(rate.value, 6),
                    )
                )
    return results or None


def _figures(measurement: Measurement, metrics: Metrics | None, first: bool) -> list[tuple[str, str, str]]:
    if metrics is None:
        return []
    figures = [
        ("attack_success_rate", "attack_success_rate", f"Attack success rate (ASR), trigger {measurement.trigger}")
    ]
    if first:
        figures.insert(0, ("agreement", "agreement", "Agreement with the original model"))
        figures.insert(0, ("clean_accuracy", "accuracy", "Clean accuracy (CA)"))
    return [figure for figure in figures if (rate := getattr(metrics, figure[0])) is not None and rate.count]


def _variables(report: AuditReport, repo_id: str, adapter: bool) -> dict[str, Any]:
    """What the template may use; its head lists the names."""
    critical = report.critical
    return {
        "repo_id": repo_id,
        "model_name": repo_id.split("/")[-1],
        "base_model": report.model.name,
        "base_revision": report.model.revision,
        "base_on_hub": report.model.on_hub,
        "adapter": adapter,
        "verdict": report.verdict.value,
        "outcome": report.outcome,
        "reasons": report.reasons,
        "target": report.target_name,
        "scan_target": report.scan.target_name,
        "class_names": report.scan.class_names,
        "leads": [(e.family, report.scan.class_names[e.label], e.lead) for e in report.scan.evidence],
        "second_verdict": report.verification.verdict.value if report.verification else None,
        "trigger_summary": _summary(report),
        "trigger_withheld": report.trigger_withheld,
        "critical_layers": critical.layers if critical else [],
        "critical_neurons": sum(len(neurons) for neurons in critical.neurons.values()) if critical else 0,
        "clean_data": {"source": report.data.source, "images": report.data.images, "held_out": report.data.held_out},
        "metrics": _rows(report),
        "settings": _flat(report.settings),
        "versions": {"python": report.python, **report.versions},
        "command": reproduction(report),
    }


def _summary(report: AuditReport) -> str | None:
    if not report.inverted:
        return None
    strongest = report.inverted[0]
    if isinstance(strongest.trigger, AdditiveTrigger):
        return f"a faint pattern over the whole image, at most {255 * strongest.trigger.epsilon:.0f} of 255 a pixel"
    return f"a pattern that covers {strongest.coverage:.1%} of the image"


def _rows(report: AuditReport) -> list[dict[str, Any]]:
    names = {
        "clean_accuracy": "Clean accuracy (CA)",
        "agreement": "Agreement with the original model",
        "attack_success_rate": "Attack success rate (ASR), trigger {}",
        "target_rate": "The floor of the ASR: read as the target without a trigger",
        "poisoned_accuracy": "Right label in spite of the trigger (PA), trigger {}",
    }
    rows = []
    for place, measurement in enumerate(report.measurements):
        for key, name in names.items():
            sides = {side: _side(getattr(measurement, side), key) for side in ("before", "after")}
            if any(sides.values()) and (place == 0 or "{}" in name):
                rows.append({"name": name.format(measurement.trigger), **sides})
    return rows


def _side(metrics: Metrics | None, key: str) -> dict[str, float] | None:
    rate: Rate | None = getattr(metrics, key, None)
    if rate is None or not rate.count:
        return None
    low, high = rate.interval
    return {"value": rate.value, "hits": rate.hits, "count": rate.count, "low": low, "high": high}


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in settings.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value if isinstance(value, str) else json.dumps(value)}
        )
    return flat
