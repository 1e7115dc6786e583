"""What a removal hands back, to keep, to save or to push."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from huggingface_hub import CommitInfo
from transformers import PreTrainedModel, ProcessorMixin

from ..errors import InputError
from ..models.adapter import Adapter
from ..models.evaluation import Measurement
from ..models.loading import LoadedModel
from ..report.report import AuditReport
from ..stages.verdict import Verdict
from .publish import PushOptions, publish


@dataclass
class RemovalResult:
    """What a removal hands back.

    Attributes:
        report ([`AuditReport`]): what was found, what was done, and the proof.
        cleaned ([`LoadedModel`]): a plain model, adapter merged; bit-identical to the original if unchanged.
        adapter ([`Adapter`], *optional*): what the tuning changed, apart from the model; `None` if unchanged, and for an
            image tower that came alone, whose modules have other names than those of the model that it was judged in.
    """

    report: AuditReport
    cleaned: LoadedModel
    adapter: Adapter | None = None

    @property
    def outcome(self) -> str:
        """`"cleaned"`, `"reduced"`, `"not cleaned"` or `"unchanged"`."""
        return self.report.outcome

    @property
    def model(self) -> PreTrainedModel:
        """The model handed back."""
        return self.cleaned.model

    @property
    def processor(self) -> ProcessorMixin:
        """The model's own."""
        return self.cleaned.processor

    @property
    def verdict(self) -> Verdict:
        """Verdict of the scan."""
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

    def save_pretrained(self, folder: str | Path, format: str | None = None) -> None:
        """Save model and processor in the dtype that the weights came in; see [`LoadedModel.save_pretrained`]."""
        self.cleaned.save_pretrained(folder, format)

    def save_adapter(self, folder: str | Path) -> None:
        """Save the adapter, with the processor, as `peft.PeftModel.from_pretrained` reads it.

        Raises:
            InputError: when nothing was tuned, or an image tower alone.
        """
        if self.adapter is None:
            raise InputError("`adapter`: nothing was tuned, or an image tower alone, so there is no adapter.")
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
                self.save_pretrained(folder, options.get("format"))
            return publish(folder, self.report, repo_id, **options)
