"""What happens around the activation tuning: inversion before it, evaluation and re-inversion while it runs."""

import copy
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import InputError
from ..hub.result import RemovalResult
from ..models.adapter import Adapter, merge
from ..models.evaluation import evaluate
from ..models.loading import state_digest
from ..report.audit import Auditor, data_identity
from ..report.figures import audit_figures, scan_figures
from ..report.report import AuditReport, model_identity
from ..stages.identification import ScanConfig, ScanResult, TargetIdentifier, Verdict
from ..stages.inversion import Family, InversionConfig, TriggerInverter
from ..stages.localization import LocalizationConfig
from ..stages.plan import make_plan
from ..triggers import MaskedTrigger, Trigger
from .arguments import RemovalConfig


if TYPE_CHECKING:
    from .trainer import InverTuneTrainer


class InverTuneCallback(TrainerCallback):
    """A callback that knows its trainer and may act before the adapter is added."""

    trainer: "InverTuneTrainer"

    def on_prepare(self, trainer: "InverTuneTrainer") -> None:
        """Called at the start of `train`, before the adapter, the optimiser and the first step."""


class TriggerInversionCallback(InverTuneCallback):
    """Gives the trainer its plan, when it has none: identify the target, invert its triggers, localise them.

    Every process computes the plan; that of the main process counts.

    Args:
        target (`int`, *optional*): the label to invert; identified when not given.
        scan, inversion, localization: settings of the stages.
    """

    def __init__(
        self,
        target: int | None = None,
        scan: ScanConfig | None = None,
        inversion: InversionConfig | None = None,
        localization: LocalizationConfig | None = None,
    ):
        self.target, self.scan = target, scan or ScanConfig()
        self.inversion, self.localization = inversion or InversionConfig(), localization or LocalizationConfig()

    def on_prepare(self, trainer: "InverTuneTrainer") -> None:
        """Fill in `trainer.plan`.

        Raises:
            InputError: when no target was given and the scan does not judge the model backdoored.
        """
        if trainer.plan is not None:
            return
        encoder, head, names, pixels = trainer.encoder, trainer.head, trainer.class_names, trainer.train_dataset.pixels
        target, scan = self.target, None
        if target is None:
            scan = TargetIdentifier(encoder, head, names, self.scan).identify(pixels)
            if scan.target is None or scan.verdict is not Verdict.BACKDOORED:
                raise InputError(
                    f"`model`: the scan's verdict is {scan.verdict}; pass `target` to tune against a label anyway."
                )
            target = scan.target
            trainer.track(scan_figures(scan))
        plan = [make_plan(encoder, head, names, pixels, target, scan, self.inversion, self.localization)]
        trainer.plan = broadcast_object_list(plan)[0]


class BackdoorEvaluationCallback(InverTuneCallback):
    """Adds CA (when labels are known) and the strongest inverted trigger's ASR to every evaluation."""

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer, data = self.trainer, self.trainer.eval_dataset
        if trainer.plan is None or data is None:
            return
        result = evaluate(
            trainer.encoder,
            trainer.head,
            data.pixels,
            labels=data.labels,
            trigger=trainer.plan.inverted[0].trigger,
            target=trainer.plan.target,
        )
        rates = {
            f"eval_{name}": rate.value
            for name, rate in (
                ("clean_accuracy", result.clean_accuracy),
                ("attack_success_rate", result.attack_success_rate),
            )
            if rate is not None
        }
        kwargs["metrics"].update(rates)
        trainer.log(rates)


class ReinversionCallback(InverTuneCallback):
    """Attacks the model anew while it is tuned: a shortcut that a fresh inversion finds joins the triggers to erase.

    What a re-inversion finds is a shortcut unless its objective exceeds that of the label's first trigger by more than
    the share `lead`; tuning against anything else would only cost accuracy. `args.reinversion_patience` re-inversions
    in a row that find none stop the tuning early.
    """

    def __init__(self, inversion: InversionConfig | None = None, lead: float = 1.0):
        self.inversion, self.lead, self.dry = inversion or InversionConfig(steps=60, batch_size=16), lead, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A resumed run goes on counting where its log ends.
        counts = [entry["shortcuts"] for entry in state.log_history if "shortcuts" in entry]
        self.dry = len(list(takewhile(lambda count: not count, reversed(counts))))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer, settings = self.trainer, self.trainer.args
        steps = settings.reinversion_steps
        if not steps or state.global_step % steps or state.global_step >= state.max_steps:
            return
        plan = trainer.plan
        assert plan is not None
        first = {inverted.label: inverted for inverted in reversed(plan.inverted)}
        family: Family = "masked" if isinstance(plan.inverted[0].trigger, MaskedTrigger) else "additive"
        config = replace(self.inversion, family=family, seed=args.seed + state.global_step)
        inverter = TriggerInverter(trainer.encoder, trainer.head, trainer.class_names, config)
        found = broadcast_object_list(inverter.invert(trainer.train_dataset.pixels, list(first)))
        shortcuts = [new for new in found if new.objective <= first[new.label].objective * (1 + self.lead)]
        plan.inverted += shortcuts
        self.dry = 0 if shortcuts else self.dry + 1
        trainer.log({"reinversion_objective": min(new.objective for new in found), "shortcuts": len(shortcuts)})
        if settings.reinversion_patience and self.dry >= settings.reinversion_patience:
            control.should_training_stop = True


class InterruptCallback(InverTuneCallback):
    """Turns the first Ctrl-C into a checkpoint and an orderly stop; a second one stops at once.

    Of several processes, all stop after the same step when any of them is interrupted.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.previous: Any = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        self.restore()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.interrupted = False
        if self.previous is None and threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._handle)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._anywhere():
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()
        self.trainer.interrupted = self._anywhere()

    def _anywhere(self) -> bool:
        """Whether any process was interrupted; asked by all of them at the same time."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return self.interrupted
        interruptions = accelerator.reduce(torch.tensor(int(self.interrupted), device=accelerator.device))
        return bool(interruptions)

    def restore(self) -> None:
        """Give Ctrl-C back to whom it belonged before the training."""
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
            self.previous = None


class StageFiguresCallback(TrainerCallback):
    """Has the trackers told, once they are open, what the stages before the tuning found.

    Args:
        track (`Callable`): [`InverTuneTrainer.track`].
    """

    def __init__(self, track: Callable[[dict[str, float]], None]):
        self.track = track

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.track({})


class ProofCallback(InverTuneCallback):
    """Proves, when the training has ended uninterrupted, what it achieved.

    The adapter is merged into a copy of the model, which is rounded to the dtype that the weights came in: what is measured
    is what would be saved or pushed. It becomes the callback's `result`, with the completed report.

    Args:
        report ([`AuditReport`]): what is known before the training.
        auditor ([`Auditor`]): has measured the model as it came.
        config ([`RemovalConfig`]): settings of the second scan, and the bars.
    """

    result: RemovalResult

    def __init__(self, report: AuditReport, auditor: Auditor, config: RemovalConfig):
        self.report, self.auditor, self.config = report, auditor, config

    def on_prepare(self, trainer: "InverTuneTrainer") -> None:
        trainer.track(scan_figures(self.report.scan))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer, report = self.trainer, self.report
        if trainer.interrupted:
            return
        begin, tuned, source = time.perf_counter(), trainer.model, trainer.source
        training = [{key: float(value) for key, value in entry.items()} for entry in state.log_history]
        merged = merge(copy.deepcopy(tuned), trainer.settings, source.dtype)
        assert trainer.plan is not None
        self.auditor.plan, self.auditor.encoder.model = trainer.plan, merged
        self.auditor.conclude(report, trainer.train_dataset, training, self.config)
        self.auditor.encoder.model = tuned
        report.model.sha256_after = state_digest(merged, source.dtype)
        report.seconds["verification"] = time.perf_counter() - begin
        trainer.track(audit_figures(report))
        adapter = Adapter.of(tuned, source.name, source.revision)
        self.result = RemovalResult(report.outcome, merged, source.processor, report, adapter)


class AuditReportCallback(ProofCallback):
    """Writes an [`AuditReport`] to `output_dir`/audit when the training ends, from the evaluation images.

    An interrupted training leaves none.

    Args:
        scan ([`ScanResult`], *optional*): the scan of the model as it came; made anew when not given.
        trigger ([`Trigger`], *optional*): the attack's own trigger, when known, measured beside the inverted ones.
        config ([`RemovalConfig`], *optional*): settings of the scans, and the bars.
    """

    def __init__(
        self, scan: ScanResult | None = None, trigger: Trigger | None = None, config: RemovalConfig | None = None
    ):
        self.scan, self.trigger, self.config = scan, trigger, config or RemovalConfig()

    def on_prepare(self, trainer: "InverTuneTrainer") -> None:
        """Measure the model as it came.

        Raises:
            InputError: without an evaluation dataset, or with a trigger that does not fit its images.
        """
        held_out, clean = trainer.eval_dataset, trainer.train_dataset
        if held_out is None or trainer.plan is None:
            raise InputError("`eval_dataset`: got None; the audit measures on images that the tuning does not see.")
        if self.trigger is not None:
            self.trigger.check_fits(held_out.pixels)
        encoder, names, source = trainer.encoder, list(trainer.class_names), trainer.source
        scan = self.scan or TargetIdentifier(encoder, trainer.head, names, self.config.scan).identify(clean.pixels)
        data = data_identity(clean, held_out=0)
        data.held_out, data.labelled = len(held_out), held_out.labels is not None
        own = {name: getattr(trainer.args, name) for name in ("max_steps", "learning_rate", "seed")}
        self.report = AuditReport(
            verdict=scan.verdict,
            outcome="scanned",
            model=model_identity(trainer.model, source.name, source.revision, source.dtype, source.license),
            data=data,
            scan=scan,
            settings={**asdict(self.config), **own},
        )
        self.auditor = Auditor(encoder, trainer.head, names, held_out, trainer.plan, self.trigger)
        super().on_prepare(trainer)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_end(args, state, control, **kwargs)
        if not self.trainer.interrupted and self.trainer.is_world_process_zero():
            self.report.save(Path(str(args.output_dir)) / "audit")
