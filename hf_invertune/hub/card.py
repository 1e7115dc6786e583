"""The model card of a cleaned model: what the Hub reads, and a page for people who know nothing of backdoors."""

import json
import shlex
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined, TemplateError
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES as ZERO_SHOT

from ..data.defaults import default_vocabulary
from ..errors import InputError
from ..models.encoder import DualEncoder
from ..models.evaluation import METRICS, WITHOUT_TRIGGER, Measurement, Metrics, Rate
from ..models.fetching import Format
from ..report import plots, strips
from ..report.html import flat
from ..report.report import AuditReport
from ..stages.configs import RemovalConfig
from ..stages.verdict import CALIBRATION, Verdict
from ..utils.markdown import plain


TASK = "zero-shot-image-classification"
TAGS = ("hf_invertune", "backdoor-removal", "ai-security")
SEGMENTATION, FEATURES, TALK = "image-segmentation", "image-feature-extraction", "image-text-to-text"
FEW = 20
"""Class names that a command line may list."""


def make_card(
    report: AuditReport,
    repo_id: str,
    *,
    adapter: bool = False,
    format: Format = "transformers",
    license: str | None = None,
    pictures: dict[str, str] | None = None,
    template: str | Path | None = None,
) -> ModelCard:
    """Fill the card's template from a report.

    Args:
        report ([`AuditReport`]): in the form that is published.
        repo_id (`str`): where the card will stand.
        adapter (`bool`): whether the repository holds a LoRA adapter, not a merged model.
        format (`str`): whose files a merged model is in: `"transformers"` or `"open_clip"`.
        license (`str`, *optional*): by default that of the model that was cleaned.
        pictures (`dict[str, str]`, *optional*): path in the repository -> what the picture shows.
        template (`str` or `Path`, *optional*): a Jinja2 file of one's own, with the variables of model_card_template.md.

    Raises:
        InputError: when `template` cannot be read or rendered, or renders no metadata.
    """
    base = report.model.name if report.model.on_hub else None
    use = _use(report)
    data = ModelCardData(
        base_model=base,
        datasets=report.data.source if report.data.on_hub else None,
        eval_results=_results(report),
        library_name="peft" if adapter else format,
        license=license or report.model.license.get("license"),
        license_name=None if license else report.model.license.get("license_name"),
        license_link=None if license else report.model.license.get("license_link"),
        model_name=repo_id.split("/")[-1],
        pipeline_tag=use["task"],
        tags=[*TAGS, use["model_type"], *(["lora"] if adapter else [])],
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
            card_data=data.to_yaml(),
            **_variables(report, repo_id, adapter, format),
            use=use,
            pictures=pictures or {},
        )
        return ModelCard(text)
    except (OSError, UnicodeDecodeError, TemplateError, ValueError) as error:
        raise InputError(f"`card_template`: {source} cannot be filled in ({error}).") from error


def make_charts(report: AuditReport) -> dict[str, plots.Chart]:
    """The card's pictures by file name: the rates before and after, and how far ahead the suspect is."""
    charts = {"scores": strips.leads(report.scan, report.second_scan)}
    if report.measurements:
        charts = {"before_after": plots.rates(report.measurements), **charts}
    return charts


def reproduction(report: AuditReport) -> str | None:
    """The command that makes the model again; none for what only Python can pass, or a card cannot show on one line."""
    if report.data.source == "pictures in memory":
        return None
    words = ["hf-invertune", "remove", report.model.name]
    if report.model.revision:
        words += ["--revision", report.model.revision]
    for name, value in (("subfolder", report.model.origin.subfolder), ("variant", report.model.origin.variant)):
        words += [f"--{name}", value] if value else []
    tower = report.model.origin.tower
    words += ["--text-model", tower.text_model] if tower is not None and tower.text_model is not None else []
    config, folders = (report.data.selection.get(key) for key in ("config", "folder_classes"))
    words += ["--images", report.data.source if config is None else f"{report.data.source}:{config}"]
    if folders is not None:
        words += ["--folder-classes" if folders else "--no-folder-classes"]
    options = {
        "split": "--split",
        "image_column": "--image-column",
        "label_column": "--label-column",
        "limit": "--limit",
    }
    for key, option in options.items():
        if key in report.data.selection:
            words += [option, str(report.data.selection[key])]
    words += _vocabulary(report)
    chosen = report.verdict is not Verdict.BACKDOORED or report.target != report.scan.target
    if report.removal is not None and report.target_name is not None and chosen:
        words += ["--target", report.target_name]
    for key, value in changes(report.config.plain(), RemovalConfig().plain()):
        words += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    command = shlex.join([*words, "--output-dir", "out"])
    return command if command.isprintable() and "`" not in command else None  # else it would leave its block


def _vocabulary(report: AuditReport) -> list[str]:
    """The options that give the class names and the templates, where they are not those that come by default."""
    names, templates = report.scan.class_names, report.scan.templates
    default_names, default_templates = map(list, default_vocabulary())
    by_default = names == default_names and not report.data.labelled
    words = []
    if templates != (default_templates if by_default else list(_family(report).templates)):
        words += ["--templates", "templates.txt"]
    if len(names) <= FEW and all(name.isprintable() and not set(",`") & set(name) for name in names):
        words += ["--class-names", ",".join(names)]
    elif not report.data.labelled and not by_default:
        words += ["--class-names", "class_names.txt"]
    return words


def _family(report: AuditReport) -> type[DualEncoder]:
    return DualEncoder.by_class()[report.model.architecture]


def _use(report: AuditReport) -> dict[str, Any]:
    """How the model is loaded and called, as far as that differs from family to family."""
    family, architecture, tower = _family(report), report.model.architecture, report.model.origin.tower
    task = SEGMENTATION if architecture.endswith("ForImageSegmentation") else TASK
    if tower is not None:
        task = FEATURES if "VisionModel" in tower.architecture else TALK
    return {
        "model_class": architecture if tower is None else tower.architecture,
        "tower": tower and str(tower),
        "task": task,
        "processor_class": family.processor_class.__name__,
        "model_type": family.model_type,
        "pipeline": ZERO_SHOT.get(family.model_type) == architecture,
        "picture_settings": family.picture_settings,
        "padded": family.padding == "max_length",
        "segments": task == SEGMENTATION,
        "template": family.templates[0],
    }


def changes(value: Any, standard: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The settings that differ from the standard ones, each as its dotted key and its value."""
    parts, others = _parts(value), _parts(standard)
    if parts and list(parts) == list(others):
        for name, item in parts.items():
            yield from changes(item, others[name], f"{key}.{name}".lstrip("."))
    elif value != standard:
        yield key, value


def _parts(value: Any) -> dict[str, Any]:
    """What nested settings are made of, families of triggers by their kind; nothing when they are one value."""
    if isinstance(value, list):
        return {item["kind"]: item for item in value if isinstance(item, dict)}
    return value if isinstance(value, dict) else {}


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


def _figures(measurement: Measurement, metrics: Metrics, first: bool) -> list[tuple[str, str, str]]:
    kinds = {"clean_accuracy": "accuracy", "agreement": "agreement"} if first else {}
    figures = [(key, kind, METRICS[key][0]) for key, kind in kinds.items()]
    success = "attack_success_rate"
    figures.append((success, success, f"{METRICS[success][0]}, trigger {measurement.trigger}"))
    return [figure for figure in figures if (rate := getattr(metrics, figure[0])) is not None and rate.count]


def _variables(report: AuditReport, repo_id: str, adapter: bool, format: Format) -> dict[str, Any]:
    """What the template may use; its head lists the names."""
    critical = None if report.removal is None else report.removal.critical
    return {
        "repo_id": repo_id,
        "model_name": repo_id.split("/")[-1],
        "base_model": report.model.name,
        "base_revision": report.model.revision,
        "base_on_hub": report.model.on_hub,
        "base_format": report.model.format,
        "adapter": adapter,
        "format": format,
        "verdict": report.verdict.value,
        "outcome": report.outcome,
        "reasons": report.reasons,
        "target": report.target_name,
        "scan_target": report.scan.target_name,
        "class_names": report.scan.class_names,
        "calibration": CALIBRATION,
        "gatherings": [
            (p.family, report.scan.label_name(p), p.concentration, report.scan.judged(p).value)
            for p in report.scan.gatherings
        ],
        "leads": [(e.family, report.scan.label_name(e), e.lead) for e in report.scan.evidence],
        "second_verdict": report.second_scan.verdict.value if report.second_scan else None,
        "trigger_summary": report.inverted[0].describe() if report.inverted else None,
        "families": [evidence.family for evidence in report.scan.evidence],
        "trigger_withheld": report.trigger_withheld,
        "critical_layers": critical.layers if critical else [],
        "critical_neurons": sum(len(neurons) for neurons in critical.neurons.values()) if critical else 0,
        "clean_data": {"source": report.data.source, "images": report.scan.images, "held_out": report.data.held_out},
        "metrics": _rows(report),
        "settings": dict(flat(report.config.plain())),
        "versions": {"python": report.python, **report.versions},
        "command": reproduction(report),
    }


def _rows(report: AuditReport) -> list[dict[str, Any]]:
    rows = []
    for place, measurement in enumerate(report.measurements):
        for key in [key for key in METRICS if key != "attack_success_rate_all"]:
            sides = {side: _side(getattr(measurement, side), key) for side in ("before", "after")}
            own = key not in WITHOUT_TRIGGER
            if any(sides.values()) and (place == 0 or own):
                rows.append({"name": METRICS[key][0] + f", trigger {measurement.trigger}" * own, **sides})
    return rows


def _side(metrics: Metrics, key: str) -> dict[str, float] | None:
    rate: Rate | None = getattr(metrics, key)
    if rate is None or not rate.count:
        return None
    low, high = rate.interval
    return {"value": rate.value, "hits": rate.hits, "count": rate.count, "low": low, "high": high}
