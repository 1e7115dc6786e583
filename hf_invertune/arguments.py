"""Arguments of the activation tuning, and of a whole removal."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from .errors import InputError


@dataclass
class InverTuneArguments(TrainingArguments):
    """[`~transformers.TrainingArguments`] of [`InverTuneTrainer`].

    NOTE: these defaults differ from transformers': `max_steps`, `learning_rate`, `lr_scheduler_type`, `weight_decay`,
    `per_device_train_batch_size`, `logging_steps`, `save_steps`, `save_total_limit`, `eval_strategy`, `eval_steps`,
    `remove_unused_columns` (the batches are pixels, not model inputs), `prediction_loss_only` and
    `auto_find_batch_size` (halves the batch when memory runs out).
    """

    max_steps: int = field(default=200, metadata={"help": "Updates of the tuning (InverTune: 200)."})
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
        default=0.5, metadata={"help": "beta: weight of the term that holds f(x) to the original model's f(x)."}
    )
    embedding_weight: float = field(
        default=0.5, metadata={"help": "gamma: weight of the term that pulls f(x') to the original model's f(x)."}
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapter, alpha / r."})
    lora_layers: str | list[int] = field(
        default="critical", metadata={"help": "Vision layers that get an adapter: 'critical', 'all' or a list."}
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
        if isinstance(self.lora_layers, str) and self.lora_layers not in ("critical", "all"):
            raise InputError(f"`lora_layers`: got {self.lora_layers!r}; choose 'critical', 'all' or a list of layers.")
