"""Arguments of the activation tuning, and of a whole removal."""

import re
from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from ..errors import InputError
from ..stages.identification import ScanConfig
from ..stages.inversion import InversionConfig
from ..stages.localization import LocalizationConfig


@dataclass
class InverTuneArguments(TrainingArguments):
    """[`~transformers.TrainingArguments`] of [`InverTuneTrainer`].

    NOTE: these defaults differ from transformers': `max_steps`, `learning_rate`, `lr_scheduler_type`, `weight_decay`,
    `per_device_train_batch_size`, `logging_steps`, `save_steps`, `save_total_limit`, `eval_strategy`, `eval_steps`,
    `remove_unused_columns` (the batches are pixels, not model inputs), `prediction_loss_only` and
    `auto_find_batch_size` (half the batch when memory runs out).
    """

    max_steps: int = field(default=100, metadata={"help": "Updates of the tuning (InverTune: 200)."})
    learning_rate: float = field(default=2e-3, metadata={"help": "Peak learning rate of the LoRA adapter."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    weight_decay: float = field(default=1e-4, metadata={"help": "Weight decay (InverTune: 1e-4)."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Clean images an update and a device."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images of an evaluation batch."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many updates."})
    save_steps: float = field(default=50, metadata={"help": "Save a checkpoint every so many updates."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate."})
    eval_steps: float | None = field(default=50, metadata={"help": "Evaluate every so many updates."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "Evaluation needs no outputs but the loss."})
    auto_find_batch_size: bool = field(default=True, metadata={"help": "Halve the batch when memory runs out."})

    align_weight: float = field(
        default=1.0,
        metadata={"help": "Weight of the term that pulls critical neurons on triggered images to clean images'."},
    )
    preserve_weight: float = field(
        default=1.0, metadata={"help": "beta: weight of the term that holds f(x) to the original model's f(x)."}
    )
    embedding_weight: float = field(
        default=0.5, metadata={"help": "gamma: weight of the term that pulls f(x') to the original model's f(x)."}
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapter, alpha / r."})
    lora_layers: str = field(
        default="all",
        metadata={"help": "Vision layers that get an adapter: 'all', 'critical' or numbers, '0,2' (or a list)."},
    )
    lora_modules: list[str] | None = field(
        default=None, metadata={"help": "Leaf names of the linear modules to adapt; all of a layer's when not given."}
    )
    reinversion_steps: int = field(
        default=50,
        metadata={"help": "Invert the trigger anew against the tuned model every so many updates; 0: never."},
    )
    reinversion_patience: int = field(
        default=0,
        metadata={"help": "Stop after so many re-inversions in a row that found nothing cheap; 0: never stop early."},
    )
    hub_adapter: bool = field(
        default=False, metadata={"help": "With `push_to_hub`: push the adapter, not the merged model."}
    )
    hub_include_trigger: bool = field(
        default=False,
        metadata={"help": "With `push_to_hub`: publish the inverted trigger too, an attack on the original model."},
    )
    class_names: list[str] | None = field(default=None, metadata={"help": "Labels of the zero-shot classifier."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remove_unused_columns:
            raise InputError("`remove_unused_columns`: got True; the batches are pixels, so it must stay False.")
        for name in ("align_weight", "preserve_weight", "embedding_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"`{name}`: got {getattr(self, name)}; it must not be negative.")
        if self.lora_r < 1:
            raise InputError(f"`lora_r`: got {self.lora_r}; the rank must be at least 1.")
        if isinstance(self.lora_layers, list):
            self.lora_layers = ",".join(map(str, self.lora_layers))
        if not re.fullmatch(r"critical|all|\d+(,\d+)*", self.lora_layers):
            raise InputError(f"`lora_layers`: got {self.lora_layers!r}; choose 'critical', 'all' or numbers, '0,2'.")


@dataclass
class RemovalConfig:
    """Settings of a whole removal.

    Attributes:
        scan ([`ScanConfig`]), inversion ([`InversionConfig`]), localization ([`LocalizationConfig`]): of the stages.
        max_steps (`int`): updates of the tuning.
        learning_rate (`float`): its peak rate.
        held_out (`float`): share of the clean images kept apart for the proof, in (0, 1).
        minimum_images (`int`): fewest clean images that a removal accepts.
        max_attack_success_rate (`float`): the bar for "cleaned": ASR of each trigger beyond the rate at which images
            without a trigger are read as the target.
        max_accuracy_drop (`float`): the bar for the loss of clean accuracy, when labels are known.
        min_agreement (`float`): the bar for the agreement with the original model, when they are not.
        report_to (`str` or `list[str]`): trackers, as in [`~transformers.TrainingArguments`]; see docs/trackers.md for
            what they are told.
        seed (`int`): seed of the split and of the tuning.
    """

    scan: ScanConfig = field(default_factory=ScanConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    localization: LocalizationConfig = field(default_factory=LocalizationConfig)
    max_steps: int = 100
    learning_rate: float = 2e-3
    held_out: float = 0.25
    minimum_images: int = 64
    max_attack_success_rate: float = 0.05
    max_accuracy_drop: float = 0.05
    min_agreement: float = 0.8
    report_to: str | list[str] = "none"
    seed: int = 0

    @classmethod
    def seeded(cls, seed: int) -> "RemovalConfig":
        """The defaults, with `seed` in every stage."""
        stages = ScanConfig(seed=seed), InversionConfig(seed=seed), LocalizationConfig(seed=seed)
        return cls(*stages, seed=seed)

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise InputError(f"`held_out`: got {self.held_out}; it must lie between 0 and 1.")
        if self.max_steps < 1 or self.learning_rate <= 0:
            raise InputError("`max_steps` and `learning_rate` must be positive.")
        wanted = [self.report_to] if isinstance(self.report_to, str) else self.report_to
        installed = get_available_reporting_integrations()
        absent = sorted(set(wanted) - {"none", "all", *installed})
        if absent:
            raise InputError(f"`report_to`: got {', '.join(absent)}; the trackers installed here are {installed}.")
