"""What every defence takes and gives, so that any can stand in the same loop."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import CLIPModel

from ..contrastive import CaptionedPixels
from ..hub import LoadedClip
from ..identification import Verdict
from ..triggers import Trigger


@dataclass
class Defended:
    """What a defence hands back.

    Attributes:
        model ([`~transformers.CLIPModel`]): the model after it, plain, in float32 and in evaluation mode.
        verdict ([`Verdict`], *optional*): what the defence concluded, when it concludes anything.
        target (`str`, *optional*): the target label that it found.
        trigger ([`Trigger`], *optional*): the trigger that it inverted.
        details (`dict`): whatever else is worth a place in a result file, as plain values.
    """

    model: CLIPModel
    verdict: Verdict | None = None
    target: str | None = None
    trigger: Trigger | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Defence(ABC):
    """A way to clean a model with a small set of clean captioned pictures and no knowledge of the attack.

    Attributes:
        name (`str`): how tables call it.
        grid (`tuple[float, ...]`): the learning rates that a search tries; empty when there is nothing to search.

    Args:
        learning_rate (`float`, *optional*): peak learning rate; the first of `grid` when not given.
        seed (`int`): seed of everything random.
    """

    name: ClassVar[str]
    grid: ClassVar[tuple[float, ...]] = ()

    def __init__(self, learning_rate: float | None = None, seed: int = 0):
        self.learning_rate = learning_rate if learning_rate is not None or not self.grid else self.grid[0]
        self.seed = seed

    def defend(self, clip: LoadedClip, data: CaptionedPixels, class_names: Sequence[str]) -> Defended:
        """Clean `clip.model`, which may be changed in place.

        Args:
            clip ([`LoadedClip`]): the suspicious model.
            data ([`CaptionedPixels`]): the defender's clean pictures; defences without need of captions ignore them.
            class_names (`Sequence[str]`): the labels of interest.
        """
        return self.treat(clip, data, class_names, self.examine(clip, data, class_names))

    def examine(self, clip: LoadedClip, data: CaptionedPixels, class_names: Sequence[str]) -> Any:
        """What the defence finds out before it changes the model, whatever its learning rate; nothing by default."""
        return None

    @abstractmethod
    def treat(self, clip: LoadedClip, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        """The rest of [`defend`], from what [`examine`] found."""
