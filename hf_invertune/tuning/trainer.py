"""Stage 3b: `InverTuneTrainer`, which erases a backdoor by LoRA-based activation tuning."""

import copy
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPProcessor, Trainer, TrainerCallback

from ..data.pixels import PixelDataset
from ..data.prompts import TEMPLATES, check_class_names
from ..errors import InputError
from ..hub.publish import PushOptions
from ..models.clip import DualEncoder
from ..models.loading import LoadedClip, load_clip
from ..report.figures import plan_figures
from ..stages.plan import TuningPlan
from ..utils.memory import halving
from .arguments import InverTuneArguments
from .callbacks import (
    AuditReportCallback,
    BackdoorEvaluationCallback,
    InterruptCallback,
    InverTuneCallback,
    ProofCallback,
    ReinversionCallback,
    StageFiguresCallback,
    TriggerInversionCallback,
)


class InverTuneTrainer(Trainer):
    r"""Fine-tunes a LoRA adapter so that triggered images are read as the original model reads clean ones.

    The loss on a batch of clean images x and the same images triggered, x', is

        L = align_weight * sum_l ||m_l * (a_l(x') - a_l^0(x))|| / ||m_l * a_l^0(x)||
            + preserve_weight * ||f(x) - f^0(x)|| + embedding_weight * ||f(x') - f^0(x)||

    with a_l the activations of critical layer l, m_l its critical neurons, f the unit embedding, and ^0 the original
    model, which is the same model with the adapter switched off. The first two terms are InverTune's (arXiv 2506.12411,
    section on activation tuning); the third makes the erasure reach the embedding when the update has a low rank.

    Args:
        model (`str`, [`LoadedClip`] or [`~transformers.CLIPModel`]): the suspicious model, or its folder or Hub id.
        args ([`InverTuneArguments`], *optional*): settings.
        train_dataset ([`PixelDataset`], *optional*): clean images.
        eval_dataset ([`PixelDataset`], *optional*): other clean images, for CA and inverted ASR while it runs.
        class_names (`Sequence[str]`, *optional*): the labels; `args.class_names` when not given.
        processing_class ([`~transformers.CLIPProcessor`], *optional*): loaded with `model` when that is a name.
        plan ([`TuningPlan`], *optional*): triggers and critical neurons; when not given, a callback identifies,
            inverts and localises before the first step.
        callbacks (`list[TrainerCallback]`, *optional*): further callbacks; one of a class that the trainer has of itself
            takes the place of that one.
        templates (`Sequence[str]`, *optional*): prompt templates.
    """

    loss_is_scaled_for_ga = False
    _tag_names = ["hf_invertune", "clip", "backdoor-removal"]

    args: InverTuneArguments
    model: Any
    train_dataset: PixelDataset
    eval_dataset: PixelDataset | None

    def __init__(
        self,
        model: str | LoadedClip | CLIPModel,
        args: InverTuneArguments | None = None,
        train_dataset: PixelDataset | None = None,
        eval_dataset: PixelDataset | None = None,
        class_names: Sequence[str] | None = None,
        processing_class: CLIPProcessor | None = None,
        plan: TuningPlan | None = None,
        callbacks: list[TrainerCallback] | None = None,
        templates: Sequence[str] = TEMPLATES,
    ):
        args = args or InverTuneArguments(output_dir="invertune_output")
        names = class_names if class_names is not None else args.class_names
        if names is None:
            raise InputError("`class_names`: got None; name the labels among which the target is looked for.")
        self.class_names = check_class_names(names)
        self.source = _source(model, processing_class)
        self.settings = copy.deepcopy(self.source.model.config)
        if args.eval_strategy != "no" and eval_dataset is None:
            args.eval_strategy = type(args.eval_strategy)("no")
        given = callbacks or []
        own = [TriggerInversionCallback(), ReinversionCallback(), BackdoorEvaluationCallback(), InterruptCallback()]
        if args.push_to_hub:
            if eval_dataset is None:
                raise InputError(
                    "`eval_dataset`: got None with `push_to_hub`; what is pushed is measured on it first."
                )
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
        self._metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self.encoder = DualEncoder(self.model, self.source.processor)
        self.lora_layers = chosen_layers(args.lora_layers, self.encoder.layers)
        self.head = self.encoder.zero_shot_head(self.class_names, templates)
        self.prompt = self.encoder.tokenize(self.class_names[:1])
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, InverTuneCallback):
                callback.trainer = self
        # Trackers open their run in `on_train_begin` and close it in `on_train_end`. Callbacks of ours come before them,
        # so that an audit when the training ends still reaches them; what came before the training waits until they are
        # open.
        self.callback_handler.callbacks.sort(key=lambda callback: not isinstance(callback, InverTuneCallback))
        self.add_callback(StageFiguresCallback(self.track))
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
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, InverTuneCallback):
                callback.on_prepare(self)
        assert self.plan is not None
        self.track(plan_figures(self.plan))
        self._add_adapter()
        try:
            outcome = super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, InterruptCallback):
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
        results = [
            c.result for c in self.callback_handler.callbacks if isinstance(c, ProofCallback) and hasattr(c, "result")
        ]
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

    def _add_adapter(self) -> None:
        args = self.args
        if isinstance(self.model, PeftModel):
            return
        assert self.plan is not None
        targets = linear_modules(self.model, self.lora_layers or self.plan.critical.layers, args.lora_modules)
        config = LoraConfig(r=args.lora_r, lora_alpha=args.lora_alpha, target_modules=targets)
        self.model.logit_scale.requires_grad_(False)
        with warnings.catch_warnings():  # peft 0.21 asks transformers 5 for an attribute that was renamed
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            self.model = self.model_wrapped = get_peft_model(self.model, config)
        self.encoder.model = self.model

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
        pixels = self.encoder.pixel_values(torch.cat([self.plan.stamp(clean, self.state.global_step), clean]))
        unwrapped = self.accelerator.unwrap_model(model)
        with torch.no_grad(), unwrapped.disable_adapter():
            origin = unwrapped(pixel_values=pixels[len(clean) :], output_hidden_states=True, **self.prompt)
        outputs = model(pixel_values=pixels, output_hidden_states=True, **self.prompt)
        original = normalize(origin.image_embeds, dim=-1)
        triggered, untouched = normalize(outputs.image_embeds, dim=-1).split(len(clean))
        hidden, untuned = (output.vision_model_output.hidden_states for output in (outputs, origin))
        terms = {
            "align": sum(
                alignment(hidden[layer + 1][: len(clean)], untuned[layer + 1], neurons)
                for layer, neurons in self.plan.critical.neurons.items()
            ),
            "preserve": (untouched - original).norm(dim=-1).mean(),
            "embedding": (triggered - original).norm(dim=-1).mean(),
        }
        loss = sum(getattr(args, f"{name}_weight") * term for name, term in terms.items())
        if not loss.isfinite():
            raise FloatingPointError(
                f"The tuning loss is {loss.item()} at step {self.state.global_step}; lower `learning_rate`."
            )
        mode = "train" if model.training else "eval"
        for name, term in terms.items():
            self._metrics[mode][f"loss_{name}"].append(self.accelerator.gather(term.detach()).mean().item())
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the loss terms since the last log."""
        mode = "train" if "loss" in logs else "eval" if "eval_loss" in logs else ""
        sums = self._metrics.get(mode, {})
        prefix = "eval_" if mode == "eval" else ""
        means = {f"{prefix}{name}": sum(values) / len(values) for name, values in sums.items()}
        sums.clear()
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
        if self.is_world_process_zero() and self.plan is not None:
            # Written last: a checkpoint without it was cut off and is not resumed from.
            self.plan.save(Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}")


def _source(model: str | LoadedClip | CLIPModel, processor: CLIPProcessor | None) -> LoadedClip:
    """The model with its processor, which is `processor` when given, and with all that is known of where it came from."""
    if isinstance(model, str):
        model = load_clip(model)
    if isinstance(model, LoadedClip):
        return replace(model, processor=processor or model.processor)
    if processor is None:
        raise InputError("`processing_class`: got None with a model in memory; pass its CLIPProcessor.")
    return LoadedClip(model, processor, Path(model.name_or_path or "").name or "in memory", None, model.dtype)


def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the pixels of a batch; labels are not needed."""
    return {"pixels": torch.stack([item["pixels"] for item in items])}


def alignment(triggered: Tensor, original: Tensor, neurons: Sequence[int]) -> Tensor:
    """Relative distance of critical neurons, ||m * (a' - a)|| / ||m * a||, mean over images (N x tokens x width)."""
    difference = (triggered - original)[..., neurons].flatten(1).norm(dim=-1)
    return (difference / original[..., neurons].flatten(1).norm(dim=-1)).mean()


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


def linear_modules(model: nn.Module, layers: Sequence[int], leaves: Sequence[str] | None) -> list[str]:
    """Names of the linear modules in the given vision layers, only those with one of the leaf names when given.

    Raises:
        InputError: when nothing matches.
    """
    prefixes = tuple(f"vision_model.encoder.layers.{layer}." for layer in layers)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(prefixes)
        and (leaves is None or name.split(".")[-1] in leaves)
    ]
    if not names:
        raise InputError(f"`lora_modules`: no linear module named {leaves} in vision layers {list(layers)}.")
    return names


def last_whole_checkpoint(output_dir: Path) -> str | None:
    """The newest checkpoint under `output_dir` that was written to its end, or `None`."""
    whole = [path.parent for path in output_dir.glob("checkpoint-*/tuning_plan.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None
