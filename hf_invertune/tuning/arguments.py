"""Arguments of the activation tuning."""

from dataclasses import dataclass, field, fields

from transformers import TrainingArguments

from ..errors import InputError
from ..stages.configs import TuningConfig


@dataclass
class InverTuneArguments(TuningConfig, TrainingArguments):
    """[`~transformers.TrainingArguments`] of [`InverTuneTrainer`], with the fields of [`TuningConfig`].

    NOTE: these defaults differ from transformers': those that [`TuningConfig`] sets, `logging_steps`, `save_steps`,
    `save_total_limit`, `eval_strategy`, `eval_steps`, `per_device_eval_batch_size`, `remove_unused_columns` (the batches
    are pixels, not model inputs), `prediction_loss_only` and `auto_find_batch_size` (half the batch when memory runs out).
    """

    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images of an evaluation batch."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many updates."})
    save_steps: float = field(default=50, metadata={"help": "Save a checkpoint every so many updates."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate."})
    eval_steps: float | None = field(default=50, metadata={"help": "Evaluate every so many updates."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "Evaluation needs no outputs but the loss."})
    auto_find_batch_size: bool = field(default=True, metadata={"help": "Halve the batch when memory runs out."})

    hub_adapter: bool = field(
        default=False, metadata={"help": "With `push_to_hub`: push the adapter, not the merged model."}
    )
    hub_include_trigger: bool = field(
        default=False,
        metadata={"help": "With `push_to_hub`: publish the inverted trigger too, an attack on the original model."},
    )
    class_names: list[str] | None = field(default=None, metadata={"help": "Labels of the zero-shot classifier."})

    def __post_init__(self) -> None:
        if isinstance(self.lora_layers, list):
            self.lora_layers = ",".join(map(str, self.lora_layers))
        TuningConfig.__post_init__(self)
        TrainingArguments.__post_init__(self)
        if self.remove_unused_columns:
            raise InputError("`remove_unused_columns`: got True; the batches are pixels, so it must stay False.")

    @property
    def tuning(self) -> TuningConfig:
        """These settings without those of every Trainer."""
        values = {item.name: getattr(self, item.name) for item in fields(TuningConfig)}
        values["lr_scheduler_type"] = str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type))
        return TuningConfig(**values)
