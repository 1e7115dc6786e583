"""The audit report: everything a stranger needs to judge a scan or a cleaning, as JSON, HTML and safetensors."""

import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPModel

from .evaluation import Metrics
from .hub import state_digest
from .identification import ScanResult, Verdict
from .inversion import InvertedTrigger
from .localization import CriticalNeurons
from .storage import Saved, write_bytes
from .triggers import Trigger


SCHEMA_VERSION = "1.0"
PACKAGES = ("hf_invertune", "torch", "transformers", "peft", "accelerate", "datasets", "scikit-learn")


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
    """

    name: str
    revision: str | None
    dtype: str
    parameters: int
    sha256_before: str
    sha256_after: str | None = None


def model_identity(model: CLIPModel, name: str, revision: str | None, dtype: torch.dtype) -> ModelIdentity:
    """Who a model is, before it is changed."""
    return ModelIdentity(
        name=name,
        revision=revision,
        dtype=str(dtype).removeprefix("torch."),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        sha256_before=state_digest(model, dtype),
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
        skipped (`list[str]`): pictures that could not be read, with the reason.
    """

    source: str
    images: int
    held_out: int
    labelled: bool
    sha256: str
    skipped: list[str] = field(default_factory=list)


@dataclass
class Measurement:
    """One trigger's figures on the held-out images.

    Attributes:
        trigger (`str`): which trigger, e.g. `"inverted, masked"` or `"given by the caller"`.
        before (`Metrics`): of the model as it came.
        after (`Metrics`, *optional*): of the cleaned model.
    """

    trigger: str
    before: Metrics
    after: Metrics | None = None


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
    critical: CriticalNeurons | None = None
    measurements: list[Measurement] = field(default_factory=list)
    examples: Examples | None = None
    training: list[dict[str, float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})
    python: str = field(default_factory=platform.python_version)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    schema_version: str = SCHEMA_VERSION

    file_name: ClassVar[str] = "report"

    def save(self, folder: str | Path) -> None:
        """Write report.json, report.html, report.safetensors (pictures) and the triggers into `folder`."""
        from .report_html import render

        super().save(folder)
        write_bytes(Path(folder) / "report.html", render(self).encode())
