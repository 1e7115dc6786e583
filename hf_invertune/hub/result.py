"""What a removal hands back, to keep, to save or to push."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from huggingface_hub import CommitInfo
from transformers import CLIPModel, CLIPProcessor

from ..errors import InputError
from ..models.adapter import Adapter
from ..models.loading import save_clip
from ..report.report import AuditReport, Measurement
from ..stages.identification import Verdict
from .publish import PushOptions, publish


@dataclass
class RemovalResult:
    """What a removal hands back.

    Attributes:
        outcome (`str`): `"cleaned"`, `"not cleaned"` or `"unchanged"`.
        model ([`~transformers.CLIPModel`]): a plain model, adapter merged; bit-identical to the original if unchanged.
        processor ([`~transformers.CLIPProcessor`]): the model's own.
        report ([`AuditReport`]): everything else.
        adapter ([`Adapter`], *optional*): what the tuning changed, apart from the model; `None` if unchanged.
    """

    outcome: str
    model: CLIPModel
    processor: CLIPProcessor
    report: AuditReport
    adapter: Adapter | None = None

    @property
    def verdict(self) -> Verdict:
        """Verdict of the first scan."""
        return self.report.verdict

    @property
    def target(self) -> int | None:
        """The backdoor's label."""
        return self.report.target

    @property
    def target_name(self) -> str | None:
        """The backdoor's label by name."""
        return self.report.target_name

    @property
    def metrics(self) -> list[Measurement]:
        """CA, ASR and the rest, before and after, one entry a trigger."""
        return self.report.measurements

    def save_pretrained(self, folder: str | Path) -> None:
        """Save model and processor in the dtype that the weights came in; see [`save_clip`]."""
        save_clip(self.model, self.processor, getattr(torch, self.report.model.dtype), folder)

    def save_adapter(self, folder: str | Path) -> None:
        """Save the adapter, with the processor, as `peft.PeftModel.from_pretrained` reads it.

        Raises:
            InputError: when nothing was tuned.
        """
        if self.adapter is None:
            raise InputError("`adapter`: nothing was tuned, so there is no adapter.")
        self.adapter.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> CommitInfo:
        """Push the model, or the adapter, with its card and the audit, as one commit.

        Args:
            repo_id (`str`): `"name"` or `"namespace/name"`.
            options: see [`PushOptions`].

        Raises:
            InputError: when it should not be pushed; see [`publish`].
            HubError: when the Hub refuses or cannot be reached; nothing there has changed then.
        """
        with tempfile.TemporaryDirectory() as beside:
            folder = Path(beside) / "model"
            if options.get("adapter"):
                self.save_adapter(folder)
            else:
                self.save_pretrained(folder)
            return publish(folder, self.report, repo_id, **options)
