"""What a search asks of a family of triggers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...triggers import Trigger
from ...utils.settings import Settings


class TriggerFamily(Settings, ABC):
    """Triggers of unknown look that are found by gradient descent on the same parameters.

    A subclass is a frozen dataclass whose fields are the family's settings. Its `kind` names it in settings, reports and on
    the command line, from when the class is defined.
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type["TriggerFamily"]]] = {}
    universal: ClassVar[str]
    """What the family's universal perturbation is called in a report."""
    refined: ClassVar[bool] = True
    """Whether the best labels of a race go on for more rounds, to the cheapest trigger. Where all triggers have one
    budget and there is no penalty, what counts is how well a trigger works on other pictures."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "kind" in cls.__dict__:
            cls.kinds[cls.kind] = cls

    @abstractmethod
    def parameters(
        self, count: int, size: torch.Size, generator: torch.Generator, start: Sequence[Trigger | None]
    ) -> list[Tensor]:
        """Unbounded variables of `count` triggers, each leading with count x 1, on the CPU and without gradient.

        Args:
            count (`int`): how many triggers.
            size (`torch.Size`): height and width of the pictures.
            generator (`torch.Generator`): draws the first values.
            start (`Sequence[Trigger | None]`): the trigger of this family that each goes on from, `None` for a random
                start; empty when all start at random.
        """

    @abstractmethod
    def trigger(self, parameters: Sequence[Tensor]) -> Trigger:
        """The batch of triggers that these variables stand for."""

    def probes(self) -> list[Trigger]:
        """Triggers to try without a gradient, of which the best are where a search starts; none: it starts at random."""
        return []

    def wider(self) -> list["TriggerFamily"]:
        """The families to erase with what this one has found: a budget larger than the attacker's erases better.

        None: its triggers are not learnt on while the model is tuned, but inverted anew from time to time.
        """
        return []

    def penalty(self, trigger: Trigger) -> Tensor | float:
        """What the inversion adds to the loss of each of a batch of L triggers: L values, or one for all."""
        return 0.0

    @abstractmethod
    def perturbations(
        self, size: torch.Size, generator: torch.Generator
    ) -> tuple[Tensor, Callable[[Tensor], Trigger]]:
        """Universal perturbations of this family that are learnt side by side, each where or how the family allows.

        Args:
            size (`torch.Size`): height and width of the pictures.
            generator (`torch.Generator`): draws the first values.

        Returns:
            Unbounded variables of P perturbations, leading with P x 1, on the CPU; and what makes triggers of them, on
            whatever device they are by then.
        """
