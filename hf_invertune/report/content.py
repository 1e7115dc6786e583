"""What an audit report says: everything a stranger needs to judge a scan or a cleaning."""

import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import ClassVar

from torch import Tensor

from ..models.evaluation import Measurement
from ..stages.configs import RemovalConfig
from ..stages.identification import ScanResult
from ..stages.inputs import DataIdentity, ModelIdentity
from ..stages.inversion import InvertedTrigger
from ..stages.localization import CriticalNeurons
from ..stages.verdict import Outcome, Verdict, achieved, missed_bars
from ..utils.provenance import PACKAGES, now
from ..utils.storage import Saved


SCHEMA_VERSION = "4.0"


@dataclass
class Examples:
    """A few held-out pictures and how they are read.

    Attributes:
        clean (`torch.Tensor`): N x 3 x H x W, uint8.
        triggered (`torch.Tensor`): the same with the inverted trigger.
        clean_before, triggered_before, clean_after, triggered_after (`list[int]`): the labels that the model as it came
            and the cleaned one give them, N each.
    """

    clean: Tensor
    triggered: Tensor
    clean_before: list[int]
    triggered_before: list[int]
    clean_after: list[int]
    triggered_after: list[int]


def title(family: str) -> str:
    """What the measurement of the inverted trigger of a family is called."""
    return f"inverted, {family}"


@dataclass
class Removal:
    """What a tuning did, and the proof.

    Attributes:
        target (`int`): the label that the model was cleaned towards.
        inverted (`list[InvertedTrigger]`): the triggers that the model was tuned against, the strongest first.
        critical (`CriticalNeurons`): where the backdoor was found.
        measurements (`list[Measurement]`): CA, ASR and the rest, before and after, one entry a trigger.
        second_scan (`ScanResult`): of the cleaned model, from scratch.
        examples (`Examples`, *optional*): pictures; none once published without triggers.
        training (`list[dict[str, float]]`): the tuning's log.
        held_out_sha256 (`str`): digest of the pixels that everything was measured on.
        sha256 (`str`): digest of the weights of the model handed back.
    """

    target: int
    inverted: list[InvertedTrigger]
    critical: CriticalNeurons
    measurements: list[Measurement]
    second_scan: ScanResult
    examples: Examples | None
    training: list[dict[str, float]]
    held_out_sha256: str
    sha256: str


@dataclass
class ReportContent(Saved):
    """What was found, what was done, and the proof.

    Attributes:
        outcome (`str`): `"scanned"` when no cleaning was asked for, `"unchanged"` when none was needed, else
            `"cleaned"`, `"reduced"` or `"not cleaned"`, see [`achieved`].
        scan (`ScanResult`): of the model as it came, with its `inputs`.
        removal (`Removal`, *optional*): what was done, when something was.
        config (`RemovalConfig`): the settings; its part `scan` is that of the second scan.
        trigger_withheld (`bool`): whether the pixels of every trigger were taken out, see [`AuditReport.published`].
        seconds (`dict[str, float]`): wall time of each stage but the scans, which tell their own; the second scan's is a part
            of the proof's.
        versions (`dict[str, str]`), python (`str`), created (`str`), schema_version (`str`): what made it, and when.
    """

    outcome: Outcome
    scan: ScanResult
    removal: Removal | None = None
    config: RemovalConfig = field(default_factory=RemovalConfig)
    trigger_withheld: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})
    python: str = field(default_factory=platform.python_version)
    created: str = field(default_factory=now)
    schema_version: str = SCHEMA_VERSION

    file_name: ClassVar[str] = "report"

    @property
    def verdict(self) -> Verdict:
        """That of the scan."""
        return self.scan.verdict

    @property
    def model(self) -> ModelIdentity:
        """The model as it came."""
        assert self.scan.inputs is not None
        return self.scan.inputs.model

    @property
    def data(self) -> DataIdentity:
        """The clean images."""
        assert self.scan.inputs is not None
        return self.scan.inputs.data

    @property
    def target(self) -> int | None:
        """The backdoor's label."""
        return self.scan.target if self.removal is None else self.removal.target

    @property
    def target_name(self) -> str | None:
        """The backdoor's label by name."""
        return None if self.target is None else self.scan.class_names[self.target]

    @property
    def inverted(self) -> list[InvertedTrigger]:
        """The triggers that the model was tuned against."""
        return [] if self.removal is None else self.removal.inverted

    @property
    def measurements(self) -> list[Measurement]:
        """CA, ASR and the rest, before and after, one entry a trigger."""
        return [] if self.removal is None else self.removal.measurements

    @property
    def second_scan(self) -> ScanResult | None:
        """That of the cleaned model."""
        return None if self.removal is None else self.removal.second_scan

    @property
    def sha256_after(self) -> str | None:
        """Digest of the weights of the model handed back; none when a scan was all."""
        if self.removal is None:
            return None if self.outcome == "scanned" else self.model.sha256
        return self.removal.sha256

    @property
    def trigger_sha256(self) -> str | None:
        """Digest of the strongest trigger, which `trigger.safetensors` holds."""
        if self.removal is None:
            return None
        strongest = title(self.removal.inverted[0].family)
        return next(one.trigger_sha256 for one in self.removal.measurements if one.trigger == strongest)

    @property
    def achieved(self) -> Outcome:
        """What the tuning came to, by the measurements and the second scan; the outcome where nothing was tuned."""
        if self.removal is None:
            return self.outcome
        return achieved(self.removal.measurements, self.reasons, self.config.audit)

    @property
    def reasons(self) -> list[str]:
        """Why a model is not cleaned, or was left as it came."""
        if self.removal is None:
            if self.outcome == "unchanged":
                return [f"The scan's verdict is {self.verdict}, and no `target` was named."]
            return []
        second = self.removal.second_scan
        return missed_bars(self.removal.measurements, second.verdict, second.target_name, self.config.audit)
