"""What every defence takes and gives, so that any can stand in the same loop."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from ...data.pixels import as_float
from ...models.classifier import ZeroShotClassifier
from ...models.loading import LoadedModel
from ...stages.verdict import Verdict
from ...triggers import Trigger
from ..contrastive import CaptionedPixels


@dataclass
class Defended:
    """What a defence hands back.

    Attributes:
        model ([`~transformers.PreTrainedModel`]): the model after it, plain, in float32 and in evaluation mode.
        verdict ([`Verdict`], *optional*): what the defence concluded, when it concludes anything.
        target (`str`, *optional*): the target label that it found.
        trigger ([`Trigger`], *optional*): the trigger that it inverted.
        details (`dict`): whatever else is worth a place in a result file, as plain values.
    """

    model: PreTrainedModel
    verdict: Verdict | None = None
    target: str | None = None
    trigger: Trigger | None = None
    details: dict[str, Any] = field(default_factory=dict)


def check_finite(classifier: ZeroShotClassifier, pixels: Tensor) -> None:
    """Make sure that a defence left a model that computes: one that does not reads everything as the first label.

    That would pass for a cure.

    Args:
        classifier ([`ZeroShotClassifier`]): of the model.
        pixels (`torch.Tensor`): uint8, N x 3 x H x W, pictures to embed.

    Raises:
        FloatingPointError: a weight or an embedding that is not finite.
    """
    for name, parameter in classifier.encoder.model.named_parameters():
        if not parameter.isfinite().all():
            raise FloatingPointError(f"{name} is not finite")
    batches = (as_float(chunk) for chunk in pixels.split(256))
    if not (classifier.encoder.embed_batches(batches).isfinite().all() and classifier.head.isfinite().all()):
        raise FloatingPointError("an embedding is not finite")


class Defence(ABC):
    """A way to clean a model with a small set of clean captioned pictures and no knowledge of the attack.

    Attributes:
        name (`str`): how tables call it.
        grid (`tuple[float, ...]`): the learning rates that a search tries; empty when there is nothing to search.
        revision (`int`): to be raised with every change that moves figures: runs of an older one are done again.
        minimum_images (`int`): how few clean pictures it can work with.

    Args:
        learning_rate (`float`, *optional*): peak learning rate; the first of `grid` when not given.
        seed (`int`): seed of everything random.
    """

    name: ClassVar[str]
    grid: ClassVar[tuple[float, ...]] = ()
    revision: ClassVar[int] = 0
    minimum_images: ClassVar[int] = 1

    def __init__(self, learning_rate: float | None = None, seed: int = 0):
        self.learning_rate = learning_rate if learning_rate is not None or not self.grid else self.grid[0]
        self.seed = seed

    def defend(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str]) -> Defended:
        """Clean `clip.model`, which may be changed in place.

        Args:
            clip ([`LoadedModel`]): the suspicious model.
            data ([`CaptionedPixels`]): the defender's clean pictures; defences without need of captions ignore them.
            class_names (`Sequence[str]`): the labels of interest.
        """
        return self.treat(clip, data, class_names, self.examine(clip, data, class_names))

    def examine(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str]) -> Any:
        """What the defence finds out before it changes the model, whatever its learning rate; nothing by default."""
        return None

    @abstractmethod
    def treat(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        """The rest of [`defend`], from what [`examine`] found."""
