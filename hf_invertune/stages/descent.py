"""Triggers are learnt by gradient descent on their variables, many side by side, each as if it were alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.pixels import as_float
from ..models.encoder import DualEncoder
from ..models.room import pictures_at_once
from ..triggers import Trigger
from ..utils.memory import halving
from ..utils.progress import advance, progress
from ..utils.sharing import shared
from .families import TriggerFamily


CHECKED = 10
"""Every so many updates, and at the last, the figures are looked at: a device need not be waited for in between."""


@dataclass(frozen=True)
class Descent:
    """How triggers of one family are learnt.

    Each update has the same clean pictures for all triggers. No trigger depends on the others, so they may be learnt in
    parts: by the processes that work together, and by as many at once as memory holds.

    Attributes:
        encoder ([`DualEncoder`]): the model.
        family ([`TriggerFamily`]): what the triggers look like.
        title (`str`): what the progress bar says.
        steps (`int`), batch_size (`int`): updates, and clean pictures an update and a trigger.
        learning_rate (`float`), betas (`tuple[float, float]`): of Adam.
    """

    encoder: DualEncoder
    family: TriggerFamily
    title: str
    steps: int
    batch_size: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)

    def run(
        self,
        pixels: Tensor,
        start: Sequence[Trigger | None],
        count: int,
        generator: torch.Generator,
        loss: Callable[[Tensor, Trigger, list[int]], Tensor],
    ) -> list[tuple[Trigger, list[float]]]:
        """Learn `count` triggers.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8.
            start (`Sequence[Trigger | None]`): as in [`TriggerFamily.parameters`].
            count (`int`): how many triggers.
            generator (`torch.Generator`): draws first values and batches.
            loss (`Callable`): takes clean pixels (1 x n x 3 x H x W), L triggers as a batch and their L numbers, and gives
                F x L figures, of which the first are what is descended on.

        Returns:
            Of each trigger, on the CPU, with its F figures, means over the last quarter of the updates.

        Raises:
            FloatingPointError: when a figure is not finite.
        """
        first = self.family.parameters(count, pixels.shape[-2:], generator, start)
        batches = torch.stack(
            [torch.randint(len(pixels), (self.batch_size,), generator=generator) for _ in range(self.steps)]
        )
        pixels = pixels.to(self.encoder.device)

        def own(rows: list[int]) -> list[tuple[Trigger, list[float]]]:
            def in_parts(widest: int) -> list[tuple[Trigger, list[float]]]:
                at_once, pictures = max(1, widest // self.batch_size), min(widest, self.batch_size)
                parts = (rows[begin : begin + at_once] for begin in range(0, len(rows), at_once))
                own_batches = batches[:, :pictures]
                return [one for part in parts for one in self._learn(pixels, own_batches, first, loss, part)]

            most = min(pictures_at_once(self.encoder, pixels.shape[-2:]), len(rows) * self.batch_size)
            learnt: list[tuple[Trigger, list[float]]] = halving(in_parts, most)()
            return learnt

        return shared(own, count)

    def _learn(
        self,
        pixels: Tensor,
        batches: Tensor,
        first: Sequence[Tensor],
        loss: Callable[[Tensor, Trigger, list[int]], Tensor],
        rows: list[int],
    ) -> list[tuple[Trigger, list[float]]]:
        """Learn the triggers of these numbers, all in one batch."""
        parameters = [value[rows].to(pixels.device).requires_grad_() for value in first]
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, betas=self.betas)
        tail = max(1, self.steps // 4)
        means: Tensor | float = 0.0
        for step, chosen in enumerate(progress(batches.to(pixels.device), self.title)):
            clean = as_float(pixels[chosen]).unsqueeze(0)
            figures = loss(clean, self.family.trigger(parameters), rows)
            if (step % CHECKED == 0 or step == self.steps - 1) and not bool(figures.isfinite().all()):
                raise FloatingPointError(
                    f"{self.title}: the loss is {figures[0].tolist()} at step {step}; lower the rate."
                )
            optimizer.zero_grad()
            figures[0].sum().backward()
            optimizer.step()
            advance(len(rows) * clean.shape[1])
            if step >= self.steps - tail:
                means = means + figures.detach() / tail
        with torch.no_grad():
            triggers = self.family.trigger(parameters).split()
        assert isinstance(means, Tensor)
        return list(zip(triggers, means.T.tolist(), strict=True))
