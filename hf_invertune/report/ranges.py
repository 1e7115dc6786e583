"""Which values of an audit report lie outside their range, so that nothing could be computed from them."""

import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from ..stages.identification import ScanResult
from ..triggers import AdditiveTrigger, MaskedTrigger, Trigger
from .report import AuditReport


TUNED = ("cleaned", "not cleaned")


def well_formed(report: AuditReport) -> Iterator[str]:
    """What lies outside its range, so that nothing could be computed from it."""
    count = len(report.scan.class_names)
    digests = {"model.sha256_before": report.model.sha256_before, "data.sha256": report.data.sha256}
    optional = {
        "model.sha256_after": report.model.sha256_after,
        "data.held_out_sha256": report.data.held_out_sha256,
        "trigger_sha256": report.trigger_sha256,
        **{f"measurements: {m.trigger}": m.trigger_sha256 for m in report.measurements},
    }
    digests |= {name: digest for name, digest in optional.items() if digest is not None}
    yield from (f"{name} is no SHA-256" for name, value in digests.items() if not re.fullmatch("[0-9a-f]{64}", value))
    if not isinstance(getattr(torch, report.model.dtype, None), torch.dtype):
        yield f"model.dtype is {report.model.dtype!r:.40}"
    if report.outcome not in ("scanned", "unchanged", *TUNED):
        yield f"outcome is {report.outcome!r:.40}"
    if report.target is not None and not 0 <= report.target < count:
        yield f"target is {report.target}, of {count} labels"
    if min(report.data.images, report.data.held_out, report.model.parameters) < 0:
        yield "a number of images or parameters is negative"
    if report.outcome in TUNED:
        afters = [m.after and (m.after.attack_success_rate, m.after.target_rate) for m in report.measurements]
        if report.verification is None or report.target is None or not report.inverted:
            yield f"the outcome is {report.outcome!r} without a second scan, a target or an inverted trigger"
        elif not afters or not all(after and all(after) for after in afters):
            yield f"the outcome is {report.outcome!r} without rates of the cleaned model"
    for name, scan in (("scan", report.scan), ("verification", report.verification)):
        if scan is not None:
            yield from (f"{name}: {problem}" for problem in _scan_ranges(scan))
    yield from _trigger_ranges(report)
    yield from _example_ranges(report)
    if report.critical is not None:
        layers, width = report.critical.layer_scores, report.critical.width
        units = [unit for neurons in report.critical.neurons.values() for unit in neurons]
        if (
            not layers
            or not all(map(math.isfinite, layers))
            or not set(report.critical.neurons) <= set(range(len(layers)))
        ):
            yield "critical: a layer's score is no number, or a critical layer is none of them"
        if any(not 0 <= unit < width for unit in units):
            yield f"critical: a neuron is none of {width}"
        if any(list(neurons) != sorted(set(neurons)) for neurons in report.critical.neurons.values()):
            yield "critical: the neurons of a layer are not in order"
    if not all("step" in entry for entry in report.training):
        yield "training: an entry has no step"


def triggers_in(value: Any) -> Iterator[Trigger]:
    """Every trigger in nested dataclasses and lists."""
    if isinstance(value, Trigger):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from triggers_in(getattr(value, field.name))
    elif isinstance(value, list):
        for item in value:
            yield from triggers_in(item)


def _scan_ranges(scan: ScanResult) -> Iterator[str]:
    count = len(scan.class_names)
    labels = range(count)
    if not count or len(set(scan.class_names)) != count or scan.images < 1:
        yield "no class names, two of the same, or no images"
    if not set(scan.shortlist) <= set(labels) or (scan.target is not None and scan.target not in labels):
        yield "the target or a label of the shortlist is none of the class names"
    if not scan.evidence or len({evidence.family for evidence in scan.evidence}) != len(scan.evidence):
        yield "no family of triggers, or the same one twice"
    for simulation in scan.simulations:
        shares = [*simulation.clean, *simulation.adversarial]
        if not len(simulation.clean) == len(simulation.adversarial) == count:
            yield f"the simulation of a {simulation.kind} has not one share a label"
        if not all(0 <= share <= 1 for share in shares):
            yield f"a share of the simulated {simulation.kind} is not between 0 and 1"
    for evidence in scan.evidence:
        if not evidence.scores or not set(evidence.scores) <= set(labels) or evidence.label not in evidence.scores:
            yield f"{evidence.family}: a scored label is none of the class names"
        elif not all(math.isfinite(score) and score > 0 for score in evidence.scores.values()):
            yield f"{evidence.family}: a score is not positive"
        if set(evidence.z_scores) != set(evidence.scores) or not math.isfinite(evidence.lead):
            yield f"{evidence.family}: the z-scores are of other labels, or the lead is no number"
        if not all(candidate.label in evidence.scores for candidate in evidence.candidates):
            yield f"{evidence.family}: a finalist has no score"


def _trigger_ranges(report: AuditReport) -> Iterator[str]:
    names = report.scan.class_names
    if not all(0 <= found.label < len(names) for found in report.inverted):
        yield "inverted: a label is none of the class names"
    sizes = set()
    for trigger in triggers_in(report):
        tensors = dict(trigger.named_buffers())
        if not all(t.dtype == torch.float32 and t.ndim == 3 and t.isfinite().all() for t in tensors.values()):
            yield f"a {trigger.kind} trigger is not made of finite float32 pictures"
        elif isinstance(trigger, MaskedTrigger):
            sizes |= {tensor.shape[1:] for tensor in tensors.values()}
            if len(trigger.mask) != 1 or len(trigger.pattern) != 3 or any(not _unit(t) for t in tensors.values()):
                yield "a masked trigger is not one mask and a pattern of three colours, in [0, 1]"
        elif isinstance(trigger, AdditiveTrigger):
            sizes.add(trigger.delta.shape[1:])
            epsilon = trigger.epsilon if type(trigger.epsilon) in (int, float) else 0
            bounded = 0 < epsilon <= 1 and trigger.delta.numel() and trigger.delta.abs().max() <= 1.000001 * epsilon
            if not bounded or len(trigger.delta) != 3:
                yield "an additive trigger has not three colours, or exceeds its bound"
        else:
            yield f"a {trigger.kind} trigger, which no inversion finds"
    if len(sizes) > 1:
        yield "the triggers are of different sizes"


def _example_ranges(report: AuditReport) -> Iterator[str]:
    examples = report.examples
    if examples is None:
        return
    count = len(examples.clean)
    before, after = (
        (examples.clean_before, examples.triggered_before),
        (examples.clean_after, examples.triggered_after),
    )
    if any(t.dtype != torch.uint8 or t.ndim != 4 or t.shape[1] != 3 for t in (examples.clean, examples.triggered)):
        yield "examples: not uint8 pictures of three colours"
    elif examples.clean.shape != examples.triggered.shape:
        yield "examples: the clean and the triggered ones differ in number or size"
    elif report.trigger is not None and {t.shape[-2:] for t in report.trigger.buffers()} != {
        examples.clean.shape[-2:]
    }:
        yield "examples: the trigger is of another size"
    if any(len(names) != count for names in before) or {len(names) for names in after} not in ({0}, {count}):
        yield "examples: not one label a picture"
    if not {name for names in (*before, *after) for name in names} <= set(report.scan.class_names):
        yield "examples: a label is none of the class names"


def _unit(tensor: torch.Tensor) -> bool:
    return bool(tensor.numel() and tensor.min() >= 0 and tensor.max() <= 1)
