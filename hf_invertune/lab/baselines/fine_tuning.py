"""Fine-tuning with the CLIP loss: the simplest defence, and the optimiser that others build on."""

import tempfile
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from ...errors import InputError
from ...models.loading import LoadedModel
from ..contrastive import CaptionedPixels, ContrastiveTrainer, train_contrastive
from .defence import Defence, Defended


LEARNING_RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""The grid on which all rival defences are searched, for models of a few million weights at most."""
EPOCHS, MINIMAL_STEPS, BATCH_SIZE = 10, 200, 64
"""The authors' epochs and batch size; with a few hundred pairs that is a few dozen updates, so there is a floor."""
MINIMAL_PAIRS = 2
"""How few pairs can be contrasted."""
MAXIMAL_LOGIT_SCALE = 4.6052


class ClampLogitScale(TrainerCallback):
    """Keeps the logarithm of the logit scale in [0, 4.6052] after each update, as CleanCLIP's code does."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        model.logit_scale.data.clamp_(0, MAXIMAL_LOGIT_SCALE)


class FineTuningTrainer(ContrastiveTrainer):
    """The CLIP loss with CleanCLIP's AdamW: no decay of norms, biases and the logit scale."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.add_callback(ClampLogitScale())

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith("logit_scale")]


def tune_on_captions(
    clip: LoadedModel, data: CaptionedPixels, learning_rate: float | None, seed: int, **settings: Any
) -> PreTrainedModel:
    """Train `clip.model` in place on captioned pictures, for as long as all the defences that do so.

    Args:
        clip ([`LoadedModel`]): the model and its processor.
        data ([`CaptionedPixels`]): clean captioned pictures.
        learning_rate (`float`): the peak.
        seed (`int`): seed of batches and augmentations.
        settings: more for [`train_contrastive`]: `trainer`, `collator`, ...

    Raises:
        InputError: when there are too few pictures to contrast.
    """
    if len(data) < MINIMAL_PAIRS:
        raise InputError(
            f"`data`: got {len(data)} captioned picture(s); a contrastive loss needs at least {MINIMAL_PAIRS}."
        )
    batch_size = min(BATCH_SIZE, len(data))
    defaults = {
        "trainer": FineTuningTrainer,
        "max_steps": max(MINIMAL_STEPS, EPOCHS * (len(data) // batch_size)),
        "per_device_train_batch_size": batch_size,
    }
    with tempfile.TemporaryDirectory() as folder:
        train_contrastive(
            clip.encoder,
            data,
            output_dir=folder,
            seed=seed,
            learning_rate=learning_rate,
            **{**defaults, **settings},
        )
    return clip.model


class FineTuning(Defence):
    """Fine-tuning with the CLIP loss on clean captioned pictures (the first baseline of CleanCLIP, arXiv 2303.03323)."""

    name = "fine-tuning"
    grid = LEARNING_RATES
    minimum_images = MINIMAL_PAIRS

    def treat(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        return Defended(tune_on_captions(clip, data, self.learning_rate, self.seed))
