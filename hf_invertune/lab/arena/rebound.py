"""Rebound: whether benign fine-tuning brings a removed backdoor back."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...errors import InputError
from ...models.encoder import DualEncoder
from ...models.evaluation import Metrics
from ...models.loading import LoadedModel
from ...utils.storage import Saved
from ..contrastive import CaptionedPixels, train_contrastive


@dataclass
class ReboundConfig(Saved):
    """How the cleaned model is trained on.

    Attributes:
        steps (`int`): updates of every weight with CLIP's loss (300 in the public re-runs of the defences).
        learning_rate (`float`): of AdamW, constant.
        batch_size (`int`): clean pairs an update.
        every (`int`): steps from one measurement to the next.
        test_images (`int`): test pictures of each measurement.

    Raises:
        InputError: a number that is not positive.
    """

    steps: int = 300
    learning_rate: float = 1e-4
    batch_size: int = 64
    every: int = 50
    test_images: int = 500

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise InputError(f"`{name}`: got {value}; it must be positive.")

    @property
    def points(self) -> list[int]:
        """The steps after which it is measured."""
        return sorted({*range(0, self.steps, self.every), self.steps})


@dataclass
class ReboundPoint(Saved):
    """The model after so many steps.

    Attributes:
        step (`int`): how many.
        metrics (`list[Metrics]`): one a trigger.
    """

    step: int
    metrics: list[Metrics]


def measure_rebound(
    clip: LoadedModel,
    data: CaptionedPixels,
    measure: Callable[[DualEncoder], list[Metrics]],
    *,
    seed: int,
    config: ReboundConfig | None = None,
) -> list[ReboundPoint]:
    """The curve of a model along benign contrastive training, from step 0 on.

    Args:
        clip ([`LoadedModel`]): the cleaned model; it is trained in place.
        data ([`CaptionedPixels`]): clean captioned pictures.
        measure (`Callable`): what is measured on the way.
        seed (`int`): seed of the batches.
        config ([`ReboundConfig`], *optional*): settings.
    """
    chosen = config or ReboundConfig()
    encoder = clip.encoder
    curve = [ReboundPoint(0, measure(encoder))]

    class Measure(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            if state.global_step in chosen.points:
                curve.append(ReboundPoint(state.global_step, measure(encoder)))

    with tempfile.TemporaryDirectory() as folder:
        train_contrastive(
            clip.encoder,
            data,
            output_dir=folder,
            seed=seed,
            callbacks=[Measure()],
            max_steps=chosen.steps,
            learning_rate=chosen.learning_rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=chosen.batch_size,
        )
    return curve
