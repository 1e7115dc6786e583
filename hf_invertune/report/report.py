"""The audit report: everything a stranger needs to judge a scan or a cleaning, as JSON, HTML and safetensors."""

import copy
import platform
import re
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPModel

from ..models.evaluation import Metrics
from ..models.loading import state_digest
from ..stages.identification import ScanResult, Verdict
from ..stages.inversion import InvertedTrigger
from ..stages.localization import CriticalNeurons
from ..triggers import Trigger
from ..utils.files import CHECKSUMS, write_bytes, write_checksums
from ..utils.provenance import PACKAGES, now
from ..utils.storage import Saved


SCHEMA_VERSION = "1.1"
FILES = ("report.json", "report.html", "report.safetensors", "trigger.safetensors")


@dataclass
class ModelIdentity:
    """Which model was audited.

    Attributes:
        name (`str`): folder name or Hub id.
        revision (`str`, *optional*): commit on the Hub.
        dtype (`str`): dtype of the stored weights.
        parameters (`int`): number of parameters.
        sha256_before (`str`): digest of all the weights as they came.
        sha256_after (`str`, *optional*): digest of the weights of the model handed back.
        license (`dict[str, str]`): what the model's card says of its license, see [`read_license`].
    """

    name: str
    revision: str | None
    dtype: str
    parameters: int
    sha256_before: str
    sha256_after: str | None = None
    license: dict[str, str] = field(default_factory=dict)

    @property
    def on_hub(self) -> bool:
        """Whether `name` is the id of a repository on the Hub."""
        return self.revision is not None


def model_identity(
    model: CLIPModel, name: str, revision: str | None, dtype: torch.dtype, license: dict[str, str] | None = None
) -> ModelIdentity:
    """Who a model is, before it is changed."""
    return ModelIdentity(
        name=name,
        revision=revision,
        dtype=str(dtype).removeprefix("torch."),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        sha256_before=state_digest(model, dtype),
        license=license or {},
    )


@dataclass
class DataIdentity:
    """Which clean images were used.

    Attributes:
        source (`str`): folder name, file name or Hub id.
        images (`int`): pictures that scanned and cleaned the model.
        held_out (`int`): pictures kept apart, on which every rate of the report was measured.
        labelled (`bool`): whether their labels were known; if not, agreement stands for clean accuracy.
        sha256 (`str`): digest of all the pixels.
        held_out_sha256 (`str`, *optional*): digest of those that were held out, once something was measured on them.
        skipped (`list[str]`): pictures that could not be read, with the reason; no more than the reason once published.
        selection (`dict[str, Any]`): how they were chosen from the source: split, columns, limit, seed, revision.
    """

    source: str
    images: int
    held_out: int
    labelled: bool
    sha256: str
    skipped: list[str] = field(default_factory=list)
    selection: dict[str, Any] = field(default_factory=dict)

    @property
    def on_hub(self) -> bool:
        """Whether `source` is the id of a dataset on the Hub."""
        return "split" in self.selection

    held_out_sha256: str | None = None


@dataclass
class Measurement:
    """One trigger's figures on the held-out images.

    Attributes:
        trigger (`str`): which trigger, e.g. `"inverted, masked"` or `"given by the caller"`.
        before (`Metrics`): of the model as it came.
        after (`Metrics`, *optional*): of the cleaned model.
        trigger_sha256 (`str`, *optional*): digest of the file that `trigger.save` writes, so that whoever has the
            trigger can tell that it was the one.
    """

    trigger: str
    before: Metrics
    after: Metrics | None = None
    trigger_sha256: str | None = None


@dataclass
class Examples:
    """A few held-out pictures and how they are read.

    Attributes:
        clean (`torch.Tensor`): N x 3 x H x W, uint8.
        triggered (`torch.Tensor`): the same with the inverted trigger.
        clean_before, triggered_before, clean_after, triggered_after (`list[str]`): label names, N each; the two of the
            cleaned model are empty when there is none.
    """

    clean: Tensor
    triggered: Tensor
    clean_before: list[str]
    triggered_before: list[str]
    clean_after: list[str] = field(default_factory=list)
    triggered_after: list[str] = field(default_factory=list)


@dataclass
class AuditReport(Saved):
    """What was found, what was done, and the proof.

    Attributes:
        verdict (`Verdict`): of the first scan.
        outcome (`str`): `"scanned"`, `"unchanged"` (judged clean or inconclusive, every weight bit-identical),
            `"cleaned"` or `"not cleaned"` (the bar was not reached).
        reasons (`list[str]`): for `"not cleaned"`, which bars were missed; for `"unchanged"`, why.
        target (`int`, *optional*), target_name (`str`, *optional*): the backdoor's label.
        model (`ModelIdentity`), data (`DataIdentity`): what went in.
        scan (`ScanResult`), verification (`ScanResult`, *optional*): the scans before and after, each from scratch.
        inverted (`list[InvertedTrigger]`): the triggers that the model was tuned against.
        trigger (`Trigger`, *optional*): the strongest of them; written as `trigger.safetensors`.
        trigger_sha256 (`str`, *optional*): digest of that file, filled in by `save` and `published`.
        trigger_withheld (`bool`): whether the pixels of every trigger were taken out, see `published`.
        critical (`CriticalNeurons`, *optional*): where the backdoor was found.
        measurements (`list[Measurement]`): CA, ASR and the rest, before and after, one entry a trigger.
        examples (`Examples`, *optional*): pictures.
        training (`list[dict[str, float]]`): the tuning's log.
        settings (`dict[str, Any]`): every stage's configuration.
        seconds (`dict[str, float]`): wall time of each stage.
    """

    verdict: Verdict
    outcome: str
    model: ModelIdentity
    data: DataIdentity
    scan: ScanResult
    target: int | None = None
    target_name: str | None = None
    reasons: list[str] = field(default_factory=list)
    verification: ScanResult | None = None
    inverted: list[InvertedTrigger] = field(default_factory=list)
    trigger: Trigger | None = None
    trigger_sha256: str | None = None
    trigger_withheld: bool = False
    critical: CriticalNeurons | None = None
    measurements: list[Measurement] = field(default_factory=list)
    examples: Examples | None = None
    training: list[dict[str, float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})
    python: str = field(default_factory=platform.python_version)
    created: str = field(default_factory=now)
    schema_version: str = SCHEMA_VERSION

    file_name: ClassVar[str] = "report"

    def save(self, folder: str | Path) -> None:
        """Write report.json, report.html, report.safetensors (pictures) and trigger.safetensors into `folder`.

        SHA256SUMS comes last and lists them all. What an earlier report left there and this one does not have is gone.
        """
        from .html import render

        folder = Path(folder)
        (folder / CHECKSUMS).unlink(missing_ok=True)
        self.trigger_sha256 = self._trigger_digest()
        written = [*self._write(folder), "report.html"]
        write_bytes(folder / "report.html", render(self).encode())
        for stale in set(FILES) - set(written):
            (folder / stale).unlink(missing_ok=True)
        write_checksums(folder, written)

    def published(self, include_trigger: bool = False) -> "AuditReport":
        """A copy that may go to the Hub.

        A trigger is an attack on the original model, so by default the copy holds none: masks become rectangles, patterns
        lose their pixels, the example pictures are left out, and so are the names of files that were skipped. The
        trigger's digest stays. With `include_trigger` everything does.
        """
        report = replace(copy.deepcopy(self), trigger_sha256=self._trigger_digest())
        if include_trigger:
            return report
        report.trigger, report.examples, report.trigger_withheld = None, None, True
        report.data.skipped = [_reason(skipped) for skipped in report.data.skipped]
        bare: AuditReport = without_pixels(report)
        return bare

    def _trigger_digest(self) -> str | None:
        return self.trigger_sha256 if self.trigger is None else self.trigger.digest()


def without_pixels(value: Any) -> Any:
    """`value` with the outline of every trigger in it: its place and size, and nothing of its pattern."""
    if isinstance(value, Trigger):
        scalars = {name: getattr(value, name) for name in value.scalars}
        return type(value)(**{name: _outline(name, tensor) for name, tensor in value.named_buffers()}, **scalars)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: without_pixels(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, dict):
        return {key: without_pixels(item) for key, item in value.items()}
    return [without_pixels(item) for item in value] if isinstance(value, list) else value


def _outline(name: str, tensor: Tensor) -> Tensor:
    """For a mask the rectangle of all that exceeds half its maximum; no change where one is added; else grey.

    The shape of a mask alone, filled with white, can be as good a trigger as the one that was found.
    """
    if name != "mask":
        return torch.full_like(tensor, 0.0 if name == "delta" else 0.5)
    covered = (tensor > tensor.max() / 2)[0]
    outline = torch.zeros_like(tensor)
    if covered.any():
        (top, bottom), (left, right) = (covered.any(axis).nonzero().aminmax() for axis in (1, 0))
        outline[:, top : bottom + 1, left : right + 1] = 1
    return outline


def _reason(skipped: str) -> str:
    """Why a picture was skipped, from `"<name>: <reason>"`: neither its name nor a name quoted in the reason."""
    return re.sub(r"""(:\s*)?(['"]).*\2""", "", skipped).rpartition(": ")[2].strip()
