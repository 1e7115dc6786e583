"""Which values of a loaded report lie outside their range, so that nothing could be concluded from them."""

import re
from collections.abc import Iterator

import torch

from ..errors import InputError
from ..models.encoder import DualEncoder
from ..models.evaluation import Metrics
from ..models.lone import LoneTower
from ..stages.identification import ScanResult
from ..stages.verdict import MISSED
from ..triggers import Trigger
from .content import Examples, Removal, ReportContent, title
from .report import triggers_in


TUNED = ("cleaned", *MISSED)
DTYPES = ("float64", "float32", "float16", "bfloat16")
MOST = 1e12
"""Far above any score."""


def faults(report: ReportContent) -> Iterator[str]:
    """What is out of range, in words."""
    scan, removal = report.scan, report.removal
    if scan.inputs is None:
        yield "the scan names neither its model nor its images"
        return
    digests = [report.model.sha256, report.data.sha256]
    classes = DualEncoder.by_class() if scan.labelled else [kind.__name__ for kind in LoneTower.model_classes]
    if report.model.architecture not in classes:
        yield f"the class of the model is {report.model.architecture!r:.40}"
    tower = report.model.origin.tower
    if tower is not None and not tower.architecture.isidentifier():
        yield f"the class that the image tower is part of is {tower.architecture!r:.40}"
    if report.model.dtype not in DTYPES:
        yield f"the dtype of the model is {report.model.dtype!r:.40}"
    yield from (f"scan: {fault}" for fault in _scan(scan))
    if (removal is not None) != (report.outcome in TUNED):
        yield f"the outcome is {report.outcome!r}, and there are {'results' if removal else 'no results'} of a tuning"
    if removal is not None:
        digests += [removal.sha256, removal.held_out_sha256, *(m.trigger_sha256 for m in removal.measurements)]
        yield from _removal(removal, scan.class_names, report.data.held_out)
        yield from (f"second scan: {fault}" for fault in _scan(removal.second_scan))
    yield from (f"{one!r:.70} is no SHA-256" for one in digests if not re.fullmatch("[0-9a-f]{64}", one))
    for trigger in triggers_in(report):
        yield from (f"a {trigger.kind} trigger: {fault}" for fault in trigger.faults())


def _scan(scan: ScanResult) -> Iterator[str]:
    count = len(scan.class_names)
    if not scan.labelled:
        yield from _unlabelled(scan)
    elif count < 2 or len(set(scan.class_names)) != count or scan.images < 1:
        yield "fewer than two class names, two of the same, or no images"
    if scan.target is not None and not 0 <= scan.target < count:
        yield "the target is none of the class names"
    families = [evidence.family for evidence in scan.evidence]
    if (
        (scan.labelled and not families)
        or len(set(families)) < len(families)
        or not set(families) <= scan.config.bars.keys()
    ):
        yield "no family of triggers, the same one twice, or one that has no bars"
    for simulation in scan.simulations:
        shares = (simulation.clean, simulation.adversarial)
        if any(len(part) != count or not all(0 <= share <= 1 for share in part) for part in shares):
            yield f"the simulation of a {simulation.kind} has not one share a label, each between 0 and 1"
    for place in scan.gatherings:
        figures = [place.concentration, *([] if place.share is None else [place.share])]
        known = place.label in range(count) if scan.labelled else (place.label, place.share) == (None, None)
        if not known or len(figures) != 1 + scan.labelled or not all(0 <= figure <= 1 + 1e-6 for figure in figures):
            yield f"{place.family}: a gathering has no label, or a concentration or share that is not between 0 and 1"
        if place.family not in scan.config.gathering.bars:
            yield f"{place.family}: pictures are gathered by a family that has no bars"
        if place.direction.ndim != 1 or not bool((place.direction.abs() <= 1 + 1e-6).all()):
            yield f"{place.family}: the direction of a gathering is no unit vector"
    for evidence in scan.evidence:
        scores = evidence.scores
        if not set(scores) <= set(range(count)) or evidence.rival not in scores or evidence.rival == evidence.label:
            yield f"{evidence.family}: a scored label is none of the class names, or the easiest one has no rival"
        elif not all(1 / MOST < score < MOST for score in scores.values()):
            yield f"{evidence.family}: a score is not positive, or no number"
        if not all(candidate.label in scores for candidate in evidence.candidates):
            yield f"{evidence.family}: a finalist has no score"


def _unlabelled(scan: ScanResult) -> Iterator[str]:
    """What a scan that looked at no labels must do without."""
    if scan.images < 1 or not scan.gatherings:
        yield "no class names, and no images or no gatherings either"
    if scan.target is not None or scan.templates or scan.simulations or scan.shortlist or scan.evidence:
        yield "no class names, and a target, templates or a race of labels"


def _removal(removal: Removal, class_names: list[str], held_out: int) -> Iterator[str]:
    labels, inverted = range(len(class_names)), removal.inverted
    if not inverted or any(found.label not in labels for found in inverted):
        yield "no trigger was inverted, or one leads to none of the class names"
    elif inverted[0].label != removal.target:
        yield "the strongest trigger leads to another label than the target"
    elif title(inverted[0].family) not in [measurement.trigger for measurement in removal.measurements]:
        yield "the strongest trigger was not measured"
    elif removal.examples is not None:
        yield from (f"examples: {fault}" for fault in _examples(removal.examples, inverted[0].trigger, labels))
    if removal.second_scan.class_names != class_names:
        yield "the second scan looked at other labels than the first"
    for measurement in removal.measurements:
        for metrics in (measurement.before, measurement.after):
            yield from (f"{measurement.trigger}: {fault}" for fault in _metrics(metrics, held_out))
    layers, neurons, widths = removal.critical.layer_scores, removal.critical.neurons, removal.critical.widths
    if not layers or not all(abs(score) < MOST for score in layers) or not set(neurons) <= set(range(len(layers))):
        yield "there are no layers, the score of one is no number, or a critical one is none of them"
    elif len(widths) != len(layers) or any(not 0 <= unit < widths[k] for k in neurons for unit in neurons[k]):
        yield "there is not one width a layer, or a critical neuron is none of its layer's"
    if not all(abs(entry.get("step", MOST)) < MOST for entry in removal.training):
        yield "an entry of the training has no step"


def _metrics(metrics: Metrics, held_out: int) -> Iterator[str]:
    for name, rate in vars(metrics).items():
        if rate is not None and not 0 <= rate.hits <= rate.count <= held_out:
            yield f"{name} has {rate.hits} hits of {rate.count}, and {held_out} pictures were held out"
    if metrics.attack_success_rate is None or metrics.target_rate is None:
        yield "the ASR or its floor is missing"
    if (metrics.clean_accuracy is None) == (metrics.agreement is None):
        yield "there is neither a clean accuracy nor an agreement, or there are both"


def _examples(examples: Examples, trigger: Trigger, labels: range) -> Iterator[str]:
    read = (examples.clean_before, examples.triggered_before, examples.clean_after, examples.triggered_after)
    clean, pictures = examples.clean, (examples.clean, examples.triggered)
    if any(p.dtype != torch.uint8 or p.ndim != 4 or p.shape[1] != 3 or p.shape != clean.shape for p in pictures):
        yield "not uint8 pictures of three colours and of one size"
    elif any(len(given) != len(clean) or not set(given) <= set(labels) for given in read):
        yield "not one label a picture"
    else:
        try:
            trigger.check_fits(clean)
        except InputError as error:
            yield str(error)
