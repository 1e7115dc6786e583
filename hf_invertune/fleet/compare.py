"""Models that are alike are each other's null: which of them is far easier to lead astray than the others?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..answers.answer import Answer, StandsOut, fingerprint
from ..models.loading import LoadedModel
from ..stages.identification import ScanResult
from ..stages.verdict import robust_z
from ..utils.files import finite


FEWEST = 5
"""How many different models a group needs before anything is said of it."""
FAR = 8.0
"""From how many robust deviations above the median a model stands out. Leads are gaps between order statistics, whose upper
tail is long; none of the clean models that the project's settings were chosen on comes this far among the others."""


def group_of(source: LoadedModel, scan: ScanResult) -> str:
    """32 hex digits that two models have in common when their statistics can be compared.

    That is when they have the same architecture and shapes of weights, and were scanned with the same names, templates,
    pictures, settings and seed.
    """
    shapes = {name: list(tensor.shape) for name, tensor in source.model.state_dict().items()}
    pictures = None if scan.inputs is None else scan.inputs.data.sha256
    common: list[Any] = [source.encoder.architecture, shapes, scan.class_names, scan.templates, pictures]
    return fingerprint(*map(repr, [*common, finite(scan.config.plain()), scan.seed]))


def compared(answers: Sequence[Answer]) -> list[Answer]:
    """The answers, each with what its model stands out by in its group.

    A group in which most models have the same backdoor takes it for normal: what does not stand out is not clean for that.
    """
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.group is not None:
            groups.setdefault(answer.group, []).append(answer)
    return [replace(answer, stands_out=_of(answer, groups.get(answer.group or "", []))) for answer in answers]


def _of(answer: Answer, group: Sequence[Answer]) -> list[StandsOut]:
    """What `answer` stands out by in its `group`, the farthest first."""
    different = {
        tuple(sorted(one.statistics.items())): one.statistics for one in group
    }  # copies of a model count once
    found = []
    for name, value in answer.statistics.items():
        family, _, statistic = name.rpartition(" ")
        z = deviations({place: values[name] for place, values in enumerate(different.values())}, value)
        if z >= FAR:
            found.append(StandsOut(family, statistic, value, z, len(different)))
    return sorted(found, key=lambda one: -one.z)


def deviations(values: Mapping[int, float], value: float) -> float:
    """By how many robust deviations one of the `values` of a statistic exceeds their median; zero where there are too few.

    It is the [`robust_z`] of 1 + value: of a lead, that is the rival's cost over the label's.
    """
    if len(values) < FEWEST:
        return 0.0
    z = robust_z({place: 1 + other for place, other in values.items()})
    return next(z[place] for place, other in values.items() if other == value)
