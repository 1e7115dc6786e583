"""Stage 3b: `InverTuneTrainer`, which erases a backdoor by LoRA-based activation tuning."""

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin, Trainer, TrainerCallback

from ..data.pixels import PixelDataset
from ..data.prompts import check_class_names
from ..errors import InputError
from ..hub.publish import PushOptions
from ..models.adapter import add_adapter, merge
from ..models.classifier import ZeroShotClassifier
from ..models.encoder import DualEncoder
from ..models.loading import LoadedModel, load_model
from ..report.figures import plan_figures
from ..stages.configs import RemovalConfig
from ..stages.plan import TuningPlan
from ..utils.memory import halving
from .arguments import InverTuneArguments
from .callbacks import (
    BackdoorEvaluationCallback,
    InterruptCallback,
    InverTuneCallback,
    ReinversionCallback,
    StageFiguresCallback,
    TriggerInversionCallback,
    show_one_bar,
)
from .losses import loss_terms
from .proof import AuditReportCallback, ProofCallback
from .pursuit import PursuitCallback


class InverTuneTrainer(Trainer):
    r"""Fine-tunes a LoRA adapter so that triggered images are read as the original model reads clean ones.

    The loss on a batch of clean images x and the same images triggered, x', is

        L = align_weight * sum_l ||m_l * (a_l(x') - a_l^0(x))|| / ||m_l * a_l^0(x)||
            + preserve_weight * ||f(x) - f^0(x)|| + embedding_weight * ||f(x') - f^0(x)||

    with a_l the activations of critical layer l, m_l its critical neurons, f the unit embedding, and ^0 the original
    model, which is the same model with the adapter switched off. The first two terms are InverTune's (arXiv 2506.12411,
    section on activation tuning); the third makes the erasure reach the embedding when the update has a low rank.

    Args:
        model (`str`, [`LoadedModel`] or [`~transformers.PreTrainedModel`]): the suspicious model, or its folder or Hub id.
        args ([`InverTuneArguments`], *optional*): settings.
        train_dataset ([`PixelDataset`], *optional*): clean images.
        eval_dataset ([`PixelDataset`], *optional*): other clean images, for CA and inverted ASR while it runs.
        class_names (`Sequence[str]`, *optional*): the labels; `args.class_names` when not given.
        processing_class ([`~transformers.ProcessorMixin`], *optional*): loaded with `model` when that is a name.
        plan ([`TuningPlan`], *optional*): triggers and critical neurons; when not given, a callback identifies,
            inverts and localises before the first step.
        callbacks (`list[TrainerCallback]`, *optional*): further callbacks; one of a class that the trainer has of itself
            takes the place of that one.
        templates (`Sequence[str]`, *optional*): prompt templates; by default those of the model's family.
        config ([`RemovalConfig`], *optional*): settings of the stages around the tuning: scan, inversion, localisation and
            audit. Its settings of the tuning and its seed are those of `args`.
    """

    loss_is_scaled_for_ga = False

    args: InverTuneArguments
    model: Any
    train_dataset: PixelDataset
    eval_dataset: PixelDataset | None

    def __init__(
        self,
        model: str | LoadedModel | PreTrainedModel,
        args: InverTuneArguments | None = None,
        train_dataset: PixelDataset | None = None,
        eval_dataset: PixelDataset | None = None,
        class_names: Sequence[str] | None = None,
        processing_class: ProcessorMixin | None = None,
        plan: TuningPlan | None = None,
        callbacks: list[TrainerCallback] | None = None,
        templates: Sequence[str] | None = None,
        config: RemovalConfig | None = None,
    ):
        args = args or InverTuneArguments(output_dir="invertune_output")
        names = class_names if class_names is not None else args.class_names
        if names is None:
            raise InputError("`class_names`: got None; name the labels among which the target is looked for.")
        self.source = _source(model, processing_class)
        check_class_names(names)
        self.model_config = copy.deepcopy(self.source.model.config)
        self.config = replace(config or RemovalConfig(), tuning=args.tuning, seed=args.seed)
        if args.eval_strategy != "no" and eval_dataset is None:
            args.eval_strategy = type(args.eval_strategy)("no")
        given = callbacks or []
        own: list[TrainerCallback] = [
            TriggerInversionCallback(),
            PursuitCallback(),
            ReinversionCallback(),
            BackdoorEvaluationCallback(),
            InterruptCallback(),
        ]
        if args.push_to_hub:
            if eval_dataset is None:
                raise InputError(
                    "`eval_dataset`: got None with `push_to_hub`; what is pushed is measured on it first."
                )
            if not any(isinstance(callback, ProofCallback) for callback in given):  # one proof is enough
                own.append(AuditReportCallback())
        own = [callback for callback in own if not any(isinstance(other, type(callback)) for other in given)]
        self.plan = plan
        self.interrupted = False
        super().__init__(
            model=self.source.model,
            args=args,
            data_collator=collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=self.source.processor,
            callbacks=[*own, *given],
        )
        self.can_return_loss = True
        self.label_names = []
        self._metrics: dict[str, dict[str, list[Tensor]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self.encoder = self.source.encoder.to(self.model.device)  # which the Trainer may have moved
        self.classifier = ZeroShotClassifier(self.encoder, names, templates)
        self.lora_layers = chosen_layers(args.lora_layers, self.encoder.layers)
        show_one_bar(self, "Erasing the backdoor")
        self.add_callback(StageFiguresCallback())
        for callback in self._own_callbacks():
            callback.trainer = self
        # Trackers open their run in `on_train_begin` and close it in `on_train_end`. Callbacks of ours come before them,
        # in their own order whoever made them, so that an audit when the training ends still reaches the trackers; what
        # came before the training waits until they are open.
        self.callback_handler.callbacks.sort(
            key=lambda callback: callback.place if isinstance(callback, InverTuneCallback) else 0
        )
        self._waiting: dict[str, float] = {}

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Identify, invert and localise unless that is done, then tune.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): a checkpoint folder, or `True` for the last whole one
                in `args.output_dir`.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
            FloatingPointError: when the loss is not finite.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(Path(str(self.args.output_dir)))
        if resume_from_checkpoint:
            self.plan = TuningPlan.load(str(resume_from_checkpoint))
        for callback in self._own_callbacks():
            callback.on_prepare()
        assert self.plan is not None
        self.track(plan_figures(self.plan))
        self._add_adapter()
        try:
            outcome = super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            for callback in self._own_callbacks():
                callback.restore()
        if self.interrupted:
            raise KeyboardInterrupt
        if self.args.push_to_hub:
            self.push_to_hub()
        return outcome

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Do nothing yet: the repository is made with the one push, after the audit."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Do nothing: checkpoints, and the optimiser and arguments in them, stay here."""

    def push_to_hub(
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **options: Any,
    ) -> Any:
        """Push the audited model as `args` say, from the main process; `options` are further ones of [`PushOptions`].

        Returns:
            `CommitInfo`, and `None` on the other processes.

        Raises:
            InputError: before a training with an [`AuditReportCallback`] has ended, besides the errors of
                [`RemovalResult.push_to_hub`].
        """
        args = self.args
        proofs = [callback for callback in self._own_callbacks() if isinstance(callback, ProofCallback)]
        results = [proof.result for proof in proofs if proof.result is not None]
        if not results:
            raise InputError("`push_to_hub`: nothing is audited yet; train with `push_to_hub=True` first.")
        if not self.is_world_process_zero():
            return None
        chosen: PushOptions = {
            "adapter": args.hub_adapter,
            "include_trigger": args.hub_include_trigger,
            "private": private if private is not None else args.hub_private_repo,
            "token": token or args.hub_token,
            "revision": revision or args.hub_revision,
            "commit_message": commit_message,
        }
        name = args.hub_model_id or Path(str(args.output_dir)).absolute().name
        return results[0].push_to_hub(name, **{**chosen, **options})

    def cleaned_model(self) -> LoadedModel:
        """The tuned model with its adapter merged, rounded to the dtype that the weights came in; `model` stays as it is."""
        merged = merge(copy.deepcopy(self.model), self.model_config, self.source.dtype)
        return self.source.holding(merged)

    def _inner_training_loop(self, batch_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        # The Trainer's retry, around this, would take a tenth off a batch for which memory does not suffice.
        loop = super()._inner_training_loop
        if batch_size is None or not self.args.auto_find_batch_size:
            return loop(batch_size, *args, **kwargs)
        return halving(loop, batch_size)(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """What `evaluate` and `predict` run; before `train` they measure the model as it came.

        Raises:
            InputError: when there is no plan yet, by which the loss is defined.
        """
        if self.plan is None:
            raise InputError(
                "`plan`: got None, so there is no loss to evaluate yet; pass a plan, or call `train` first."
            )
        self._add_adapter()
        return super().evaluation_loop(*args, **kwargs)

    def _own_callbacks(self) -> list[InverTuneCallback]:
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, InverTuneCallback)]

    def _add_adapter(self) -> None:
        args = self.args
        if isinstance(self.model, PeftModel):
            return
        assert self.plan is not None
        layers = self.lora_layers or self.plan.critical.layers
        self.model = self.model_wrapped = add_adapter(
            self.encoder, layers, args.lora_modules, args.lora_r, args.lora_alpha
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss above, each norm averaged over the images of the batch."""
        args = self.args
        assert self.plan is not None
        clean = inputs["pixels"]
        unwrapped = self.accelerator.unwrap_model(model)
        with torch.no_grad(), unwrapped.disable_adapter():
            original, untuned = unwrapped(clean)
        # One forward of both, so that a wrapper shares the gradients of both.
        both = torch.cat([self.plan.stamp(clean, self.state.global_step), clean])
        embeddings, hidden = model(both)
        terms = loss_terms(embeddings, original, hidden, untuned, self.plan.critical.neurons)
        loss = sum(getattr(args, f"{name}_weight") * term for name, term in terms.items())
        if not loss.isfinite():
            raise FloatingPointError(
                f"The tuning loss is {loss.item()} at step {self.state.global_step}; lower `learning_rate`."
            )
        mode = "train" if model.training else "eval"
        for name, term in terms.items():
            self._metrics[mode][f"loss_{name}"].append(term.detach())
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the loss terms since the last log, over all processes."""
        mode = "train" if "loss" in logs else "eval" if "eval_loss" in logs else ""
        terms = self._metrics.get(mode, {})
        prefix = "eval_" if mode == "eval" else ""
        means = {
            f"{prefix}{name}": float(self.accelerator.gather(torch.stack(values)).mean())
            for name, values in terms.items()
        }
        terms.clear()
        super().log({**logs, **means}, start_time)

    def track(self, figures: dict[str, float]) -> None:
        """Send the figures of a stage to the trackers of `report_to`, but not to the tuning's own log.

        They may come at any time until the training has ended; what comes before it waits until the trackers are open.
        """
        self._waiting |= figures
        if self.is_in_train and self._waiting:
            figures, self._waiting = self._waiting, {}
            self.control = self.callback_handler.on_log(self.args, self.state, self.control, figures)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        assert self.plan is not None
        plan = replace(self.plan, pools=[pool.whole() for pool in self.plan.pools])
        if self.is_world_process_zero():
            # Written last: a checkpoint without it was cut off and is not resumed from.
            plan.save(Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}")


def _source(model: str | LoadedModel | PreTrainedModel, processor: ProcessorMixin | None) -> LoadedModel:
    """The model with its processor, which is `processor` when given, and with all that is known of where it came from."""
    if isinstance(model, str):
        model = load_model(model)
    if isinstance(model, LoadedModel):
        return replace(model, encoder=DualEncoder.of(model.model, processor or model.processor))
    if processor is None:
        raise InputError("`processing_class`: got None with a model in memory; pass its processor.")
    name = Path(model.name_or_path or "").name or "in memory"
    return LoadedModel(DualEncoder.of(model, processor), name, None, model.dtype)


def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the pixels of a batch; labels are not needed."""
    return {"pixels": torch.stack([item["pixels"] for item in items])}


def chosen_layers(wanted: str, count: int) -> list[int]:
    """The vision layers that `lora_layers` names in a model that has `count`; none for `"critical"`.

    Raises:
        InputError: when the model has no such layer.
    """
    if wanted in ("all", "critical"):
        return list(range(count)) if wanted == "all" else []
    layers = [int(number) for number in wanted.split(",")]
    absent = [layer for layer in layers if layer >= count]
    if absent:
        raise InputError(f"`lora_layers`: got {absent}; the model's {count} vision layers are 0 to {count - 1}.")
    return layers


def last_whole_checkpoint(output_dir: Path) -> str | None:
    """The newest checkpoint under `output_dir` that was written to its end, or `None`."""
    whole = [path.parent for path in output_dir.glob("checkpoint-*/tuning_plan.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None
