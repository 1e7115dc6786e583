"""Min-max: the gathered triggers are learnt on while the model is tuned against them."""

from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import TrainerControl, TrainerState, TrainingArguments

from ..data.pixels import as_float
from ..models.encoder import DualEncoder
from ..models.room import pictures_at_once
from ..stages.gathering import Gatherer
from ..stages.plan import Pool, make_pools
from ..stages.verdict import planted
from ..triggers import Trigger
from ..utils.seeds import stream
from .callbacks import InverTuneCallback


IMAGES = 8
"""Clean images on which the triggers take a step."""
RATE = 0.3
"""Of Adam, on the unbounded variables of the triggers."""
KEPT = ("variable", "exp_avg", "exp_avg_sq", "step")
"""What a chase needs to go on: each variable of its triggers, and what Adam knows of it."""
RENEWAL = 40
"""After so many updates the second half of a pool starts anew, from random values."""


class PursuitCallback(InverTuneCallback):
    """Before each update of the model, one of every trigger of the plan's pools, towards its direction.

    A trigger that stays as it was when the tuning began is soon unlearnt, while the shortcut beside it stays. Every
    `args.search_steps` updates the places where triggers gather are searched anew, from other random starts: what is left,
    or was hidden behind a stronger one, gets pools too. In a run that is resumed the triggers go on from where they were.
    Of several processes, each learns on its share of every pool and tunes against that.
    """

    place = -5

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        plan = self.trainer.plan
        assert plan is not None
        self.pixels = self.trainer.train_dataset.pixels.to(self.trainer.model.device)
        self.chases: list[Chase] = []
        pools, plan.pools = plan.pools, []
        self._pursue(pools)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        plan = self.trainer.plan
        assert plan is not None
        plan.pools = [pool.whole() for pool in plan.pools]

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer, step = self.trainer, state.global_step
        every = trainer.args.search_steps
        if every and step and step % every == 0:
            self._search(step)
        generator = torch.Generator().manual_seed(stream(trainer.config.seed, "pursuit", step))
        for chase in self.chases:
            if step and step % RENEWAL == 0 and step < state.max_steps - RENEWAL // 4:
                chase.renew(generator)
            chosen = torch.randint(len(trainer.train_dataset.pixels), (IMAGES,), generator=generator)
            chase.step(trainer.classifier.encoder, as_float(self.pixels[chosen.to(self.pixels.device)]))

    def _pursue(self, pools: list[Pool]) -> None:
        """Learn on these too, or on this process's share of them."""
        plan, size = self.trainer.plan, self.trainer.train_dataset.pixels.shape[-2:]
        assert plan is not None
        own = [pool.share() for pool in pools]
        plan.pools += own
        self.chases += [Chase(pool, size, self.trainer.model.device) for pool in own if pool.triggers]

    def _search(self, step: int) -> None:
        trainer, pixels = self.trainer, self.trainer.train_dataset.pixels
        config, classifier = trainer.config, trainer.classifier
        seed = stream(config.seed, "pursuit", step)
        found = Gatherer(classifier.encoder, classifier.head, config.scan.gathering, seed).gather(pixels)
        pools = broadcast_object_list([make_pools(classifier, pixels, planted(found, config.scan), config)])[0]
        self._pursue(pools)


class Chase:
    """The variables of a pool's triggers, and their optimiser.

    Args:
        pool ([`Pool`]): what to go on from; it holds the triggers as they are after each step, and what a later one needs.
        size (`torch.Size`): height and width of the pictures.
        device (`torch.device`): where the model is.
    """

    def __init__(self, pool: Pool, size: torch.Size, device: torch.device):
        self.size = size
        self.pool, self.directions = pool, pool.directions.to(device)
        learning = {name: value.to(device) for name, value in pool.learning.items()}
        count = len(learning) // len(KEPT)
        if not count:
            self._start(self._parameters(torch.Generator().manual_seed(0), pool.triggers))
            return
        self._start([learning[f"variable {index}"] for index in range(count)])
        for index, value in enumerate(self.parameters):
            state: dict[str, Tensor] = {name: learning[f"{name} {index}"] for name in KEPT[1:]}
            state["step"] = state["step"][0].cpu()
            self.optimizer.state[value] = state

    def trigger(self) -> Trigger:
        """All triggers as one batch."""
        return self.pool.family.trigger(self.parameters)

    def step(self, encoder: DualEncoder, pixels: Tensor) -> None:
        """Pull where the triggers bring pixels (N x 3 x H x W in [0, 1]) towards their directions; the model's weights stay.

        As many triggers go through the model together as fit in memory.
        """
        self.optimizer.zero_grad(set_to_none=False)
        at_once = max(1, pictures_at_once(encoder, pixels.shape[-2:]) // len(pixels))
        for rows in torch.arange(len(self.directions), device=self.directions.device).split(at_once):
            trigger = self.pool.family.trigger([value[rows] for value in self.parameters])
            embeddings = encoder.embed_images(trigger(pixels.unsqueeze(0)))
            pull = (embeddings * self.directions[rows].unsqueeze(1)).sum(-1).mean(1).sum()
            for value, gradient in zip(self.parameters, torch.autograd.grad(-pull, self.parameters), strict=True):
                value.grad = gradient if value.grad is None else value.grad + gradient
        self.optimizer.step()
        with torch.no_grad():
            self.pool.triggers = self.trigger().split()
        self.pool.learning = {
            f"{name} {index}": kept
            for index, value in enumerate(self.parameters)
            for name, kept in zip(KEPT, self._kept(value), strict=True)
        }

    def _kept(self, value: Tensor) -> list[Tensor]:
        """What [`KEPT`] names of a variable."""
        state = self.optimizer.state[value]
        steps = state["step"].expand(len(value))
        return [value.detach(), *(state[name] for name in KEPT[1:-1]), steps]

    def renew(self, generator: torch.Generator) -> None:
        """Let the second half start anew."""
        kept = len(self.pool.triggers) // 2
        fresh = self._parameters(generator, [None] * len(self.pool.triggers))
        self._start(
            [
                torch.cat([value.detach()[:kept], new[kept:].to(value.device)])
                for value, new in zip(self.parameters, fresh, strict=True)
            ]
        )

    def _parameters(self, generator: torch.Generator, start: list[Any]) -> list[Tensor]:
        return self.pool.family.parameters(len(start), self.size, generator, start)

    def _start(self, parameters: list[Tensor]) -> None:
        self.parameters = [value.to(self.directions.device).requires_grad_() for value in parameters]
        self.optimizer = torch.optim.Adam(self.parameters, lr=RATE)
