"""The proof when the tuning ends: the merged model is measured and scanned again, and the report is completed."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from ..errors import InputError
from ..hub.result import RemovalResult
from ..models.adapter import Adapter
from ..models.classifier import ZeroShotClassifier
from ..report.audit import Auditor
from ..report.figures import audit_figures, scan_figures
from ..report.report import AuditReport
from ..stages.identification import ScanResult, TargetIdentifier
from ..stages.inputs import DataIdentity, Inputs, ModelIdentity
from ..triggers import Trigger
from .callbacks import InverTuneCallback


class ProofCallback(InverTuneCallback):
    """Proves on the evaluation images, when the training has ended uninterrupted, what it achieved.

    The adapter is merged into a copy of the model, which is rounded to the dtype that the weights came in: what is measured
    is what would be saved or pushed.

    Args:
        scan ([`ScanResult`], *optional*): the scan of the model as it came; made anew when not given.
        trigger ([`Trigger`], *optional*): the attack's own trigger, when known, measured beside the inverted ones.

    Attributes:
        result ([`RemovalResult`], *optional*): the outcome, once it is proven.
    """

    place = -1

    def __init__(self, scan: ScanResult | None = None, trigger: Trigger | None = None):
        self.scan, self.trigger = scan, trigger
        self.result: RemovalResult | None = None

    def on_prepare(self) -> None:
        """Measure the model as it came.

        Raises:
            InputError: without an evaluation dataset, or with a trigger that does not fit its images.
        """
        trainer = self.trainer
        held_out, clean, config = trainer.eval_dataset, trainer.train_dataset, trainer.config
        if held_out is None or trainer.plan is None:
            raise InputError("`eval_dataset`: got None; the audit measures on images that the tuning does not see.")
        if self.trigger is not None:
            self.trigger.check_fits(held_out.pixels)
        if self.scan is None:
            self.scan = TargetIdentifier(trainer.classifier, config.scan, config.seed).identify(clean.pixels)
        if self.scan.inputs is None:
            data = replace(DataIdentity.of(clean, len(held_out)), labelled=held_out.labels is not None)
            self.scan.inputs = Inputs(ModelIdentity.of(trainer.source), data)
        self.auditor = Auditor(trainer.classifier, held_out, trainer.plan, self.trigger)
        trainer.track(scan_figures(self.scan))
        self.begin = time.perf_counter()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer = self.trainer
        if trainer.interrupted:
            return
        assert trainer.plan is not None and self.scan is not None
        tuned = time.perf_counter()
        cleaned = trainer.cleaned_model()
        classifier = ZeroShotClassifier(cleaned.encoder, trainer.classifier.class_names, trainer.classifier.templates)
        # Without the Trainer's closing line: times, and a mean that in a resumed run is one of the rest.
        logged = (entry for entry in state.log_history if "train_runtime" not in entry)
        training = [{key: float(value) for key, value in entry.items()} for entry in logged]
        removal = self.auditor.conclude(
            classifier,
            trainer.plan,
            trainer.train_dataset,
            training,
            trainer.config,
            cleaned.digest(),
            self.scan.reference,
        )
        seconds = {"tuning": tuned - self.begin, "proof": time.perf_counter() - tuned}
        report = AuditReport("cleaned", self.scan, removal, trainer.config, seconds=seconds)
        report.outcome = report.achieved
        trainer.track(audit_figures(report))
        source = trainer.source
        adapter = Adapter.of(trainer.model, source.name, source.revision) if source.tower is None else None
        self.result = RemovalResult(report, cleaned, adapter)


class AuditReportCallback(ProofCallback):
    """Writes the [`AuditReport`] to `output_dir`/audit as well. An interrupted training leaves none."""

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_end(args, state, control, **kwargs)
        if self.result is not None and self.trainer.is_world_process_zero():
            self.result.report.save(Path(str(args.output_dir)) / "audit")
