"""What happens around the activation tuning: inversion before it, evaluation and re-inversion while it runs."""

import signal
import threading
from itertools import takewhile
from types import FrameType
from typing import Any, ClassVar, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..data.pixels import PixelDataset
from ..errors import InputError
from ..models.classifier import ZeroShotClassifier
from ..models.evaluation import evaluate
from ..models.loading import LoadedModel
from ..report.figures import scan_figures
from ..stages.configs import InversionConfig, RemovalConfig
from ..stages.identification import TargetIdentifier
from ..stages.inversion import TriggerInverter
from ..stages.plan import TuningPlan, make_plan
from ..stages.reading import check_reading
from ..stages.verdict import treated
from ..utils.progress import progress
from ..utils.seeds import stream
from .arguments import InverTuneArguments


class Tuning(Protocol):
    """What the callbacks know of their trainer, [`InverTuneTrainer`]."""

    args: InverTuneArguments
    accelerator: Accelerator
    model: Any
    source: LoadedModel
    classifier: ZeroShotClassifier
    config: RemovalConfig
    plan: TuningPlan | None
    train_dataset: PixelDataset
    eval_dataset: PixelDataset | None
    interrupted: bool

    def cleaned_model(self) -> LoadedModel: ...
    def log(self, logs: dict[str, float]) -> None: ...
    def track(self, figures: dict[str, float]) -> None: ...
    def is_world_process_zero(self) -> bool: ...


class InverTuneCallback(TrainerCallback):
    """A callback that knows its trainer and may act before the adapter is added.

    Attributes:
        trainer ([`InverTuneTrainer`]): its trainer, once there is one.
        place (`int`): the callbacks of a trainer are called from the lowest place to the highest; those of other classes
            come at 0.
    """

    place: ClassVar[int] = -1
    trainer: Tuning

    def on_prepare(self) -> None:
        """Called at the start of `train`, before the adapter, the optimiser and the first step."""

    def restore(self) -> None:
        """Called when `train` ends, however it ends."""


class TriggerInversionCallback(InverTuneCallback):
    """Gives the trainer its plan, when it has none: identify the target, invert its triggers, localise them.

    Every process computes the plan; that of the main process counts. The settings are those of the trainer's `config`.

    Args:
        target (`str` or `int`, *optional*): the label to invert; identified when not given.
    """

    place = -6

    def __init__(self, target: str | int | None = None):
        self.target = target

    def on_prepare(self) -> None:
        """Fill in `trainer.plan`.

        Raises:
            CannotJudgeError: when no target was given and the model reads the labels no better than chance.
            InputError: when no target was given and the scan's verdict is none that `config.treat` names.
        """
        trainer = self.trainer
        if trainer.plan is not None:
            return
        classifier, config, pixels = trainer.classifier, trainer.config, trainer.train_dataset.pixels
        target, scan = classifier.label_of(self.target), None
        if target is None:
            check_reading(classifier, trainer.train_dataset, config.scan)
            scan = TargetIdentifier(classifier, config.scan, config.seed).identify(pixels)
            if scan.target is None or not treated(scan.verdict, config):
                raise InputError(
                    f"`model`: the scan's verdict is {scan.verdict}; pass `target` to tune against a label anyway."
                )
            target = scan.target
            trainer.track(scan_figures(scan))
        trainer.plan = broadcast_object_list([make_plan(classifier, pixels, target, scan, config)])[0]


class ReinversionCallback(InverTuneCallback):
    """Attacks the model anew while it is tuned: a shortcut that a fresh inversion finds joins the triggers to erase.

    What a re-inversion finds is a shortcut unless its objective exceeds that of the label's first trigger by more than
    the share `lead`; tuning against anything else would only cost accuracy. `args.reinversion_patience` re-inversions
    in a row that find none stop the tuning early.
    """

    place = -4

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
        strongest = plan.inverted[0]
        family = trainer.config.scan.family(strongest.family)
        seed = stream(trainer.config.seed, "inversion", state.global_step)
        inverter = TriggerInverter(trainer.classifier, family, self.inversion, seed, strongest.word)
        found = broadcast_object_list(inverter.invert(trainer.train_dataset.pixels, list(first)))
        shortcuts = [new for new in found if new.objective <= first[new.label].objective * (1 + self.lead)]
        plan.inverted += shortcuts
        self.dry = 0 if shortcuts else self.dry + 1
        trainer.log({"reinversion_objective": min(new.objective for new in found), "shortcuts": len(shortcuts)})
        if settings.reinversion_patience and self.dry >= settings.reinversion_patience:
            control.should_training_stop = True


class BackdoorEvaluationCallback(InverTuneCallback):
    """Adds CA (when labels are known) and the strongest inverted trigger's ASR to every evaluation."""

    place = -3

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer, data, plan = self.trainer, self.trainer.eval_dataset, self.trainer.plan
        if plan is None or data is None:
            return
        strongest = plan.inverted[0]
        result = evaluate(
            trainer.classifier,
            data.pixels,
            labels=data.labels,
            trigger=strongest.trigger,
            target=plan.target,
            word=strongest.word,
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


class InterruptCallback(InverTuneCallback):
    """Turns the first Ctrl-C into a checkpoint and an orderly stop; a second one stops at once.

    Of several processes, all stop after the same step when any of them is interrupted.
    """

    place = -2

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


class StageFiguresCallback(InverTuneCallback):
    """Has the trackers told, once they are open, what the stages before the tuning found."""

    place = 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.track({})


class ProgressBarCallback(TrainerCallback):
    """One bar on stderr, with the loss beside it; the log itself stays with the trackers and the report."""

    def __init__(self, title: str):
        self.title = title
        self.bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.bar = progress(None, self.title, total=state.max_steps, initial=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3g}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def show_one_bar(trainer: Trainer, title: str) -> None:
    """Leave stdout alone, to which a Trainer writes its log, and show a [`ProgressBarCallback`] if bars are wanted."""
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(ProgressBarCallback(title))
