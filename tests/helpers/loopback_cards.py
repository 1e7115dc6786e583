"""What the Hub checks in the front matter of a model card before it takes it."""

import math
import re
from typing import Any

import yaml


_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0
openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
LICENSES = frozenset(_LICENSES.split())
_TASKS = """
text-classification token-classification table-question-answering question-answering zero-shot-classification
translation summarization feature-extraction text-generation fill-mask sentence-similarity text-to-speech
text-to-audio automatic-speech-recognition audio-to-audio audio-classification audio-text-to-text
voice-activity-detection depth-estimation image-classification object-detection image-segmentation text-to-image
image-to-text image-to-image image-to-video image-text-to-image image-text-to-video unconditional-image-generation
video-classification reinforcement-learning robotics tabular-classification tabular-regression tabular-to-text
table-to-text multiple-choice text-ranking text-retrieval time-series-forecasting text-to-video image-text-to-text
visual-question-answering document-question-answering zero-shot-image-classification graph-ml mask-generation
zero-shot-object-detection text-to-3d image-to-3d image-feature-extraction video-text-to-text keypoint-detection
visual-document-retrieval any-to-any video-to-video other
"""
TASKS = frozenset(_TASKS.split())
RELATIONS = frozenset(("adapter", "finetune", "merge", "quantized"))

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*$", re.DOTALL | re.MULTILINE)
_REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def validate(content: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings that a card's metadata would get."""
    match = _FRONT_MATTER.match(content)
    try:
        metadata = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        return [f"Invalid YAML in README.md: {error}"], []
    if metadata is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(metadata, dict):
        return ["the YAML metadata must be an object"], []
    errors = [message for check in _CHECKS for message in check(metadata)]
    task = metadata.get("pipeline_tag")
    warnings = []
    if isinstance(task, str) and task not in TASKS:
        warnings.append(f'The pipeline tag "{task}" is not in the official list.')
    return errors, warnings


def _strings(metadata: dict[str, Any]) -> list[str]:
    errors = [
        f'"{key}" must be a string'
        for key in ("library_name", "pipeline_tag", "license_name", "license_link")
        if key in metadata and not isinstance(metadata[key], str)
    ]
    tags = metadata.get("tags", [])
    if not isinstance(tags, list):
        return [*errors, '"tags" must be an array']
    return errors + [f'"tags[{i}]" must be a string' for i, tag in enumerate(tags) if not isinstance(tag, str)]


def _license(metadata: dict[str, Any]) -> list[str]:
    if "license" not in metadata:
        return []
    given = metadata["license"] if isinstance(metadata["license"], list) else [metadata["license"]]
    return [f'"license" must be one of the known ones, got {name!r}' for name in given if name not in LICENSES]


def _references(metadata: dict[str, Any]) -> list[str]:
    errors = []
    for key, hint in (("base_model", "Use a model id"), ("datasets", "If possible, use a dataset id")):
        given = metadata.get(key, [])
        if not isinstance(given, (str, list)):
            errors.append(f'"{key}" must be a string or an array of strings')
            continue
        for name in [given] if isinstance(given, str) else given:
            if not isinstance(name, str) or not _REPO_ID.fullmatch(name):
                errors.append(f'"{key}" with value {name!r} is not valid. {hint} from the Hub.')
    relation = metadata.get("base_model_relation")
    if relation is not None and relation not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of {sorted(RELATIONS)}')
    return errors


def _model_index(metadata: dict[str, Any]) -> list[str]:
    """`name`, and for each result `task.type`, `dataset.type`, `dataset.name` and metrics with `type` and `value`."""
    if "model-index" not in metadata:
        return []
    errors: list[str] = []

    def need(holder: Any, key: str, kind: type, place: str) -> Any:
        value = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(value, kind) and value not in ("", []):
            return value
        errors.append(f'"{place}.{key}" must be a{"n array" if kind is list else " " + kind.__name__}, got {value!r}')
        return kind()

    for i, model in enumerate(need(metadata, "model-index", list, "metadata")):
        place = f"model-index[{i}]"
        need(model, "name", str, place)
        for j, result in enumerate(need(model, "results", list, place)):
            inside = f"{place}.results[{j}]"
            need(need(result, "task", dict, inside), "type", str, f"{inside}.task")
            dataset = need(result, "dataset", dict, inside)
            need(dataset, "type", str, f"{inside}.dataset")
            need(dataset, "name", str, f"{inside}.dataset")
            for k, metric in enumerate(need(result, "metrics", list, inside)):
                need(metric, "type", str, f"{inside}.metrics[{k}]")
                value = metric.get("value") if isinstance(metric, dict) else None
                if value is None or (isinstance(value, float) and not math.isfinite(value)):
                    errors.append(f'"{inside}.metrics[{k}].value" is required and must be finite, got {value!r}')
    return errors


_CHECKS = (_strings, _license, _references, _model_index)
