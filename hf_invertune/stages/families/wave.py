"""A wave over the whole image: finds sinusoids, which neither a mask nor a faint pattern can express."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...triggers import Trigger, WaveTrigger
from ...utils.settings import setting
from .base import TriggerFamily


PHASES = 4
"""Phases that a probe tries at each frequency."""
PACE = 1 / 6
"""A unit of the variables, in periods and in radians: the grid of the probes is close, so there is not far to go."""
TALLER = (1.0, 1.5)
"""By how much the waves that erase are higher than those that find."""


@dataclass(frozen=True)
class WaveFamily(TriggerFamily):
    """x' = x + a cos(2 pi (u y + v x) + phase); u, v and the phase are learnt, from the best of a grid."""

    kind = "wave"
    universal = "wave"

    amplitude: float = setting(45 / 255, "Height of the wave, in units of the pixel range.", above=0, most=1)
    highest: int = setting(12, "Most periods over the image, down and across, that are probed.", least=1)

    def parameters(
        self, count: int, size: torch.Size, generator: torch.Generator, start: Sequence[Trigger | None]
    ) -> list[Tensor]:
        """[(u, v, phase) in steps of `PACE`]."""
        grid = self._grid()
        waves = grid[torch.randint(len(grid), (count,), generator=generator)]
        for index, trigger in enumerate(start):
            if isinstance(trigger, WaveTrigger):
                waves[index] = trigger.wave
        return [waves.unsqueeze(1) / PACE]

    def trigger(self, parameters: Sequence[Tensor]) -> Trigger:
        return WaveTrigger(PACE * parameters[0], self.amplitude)

    def probes(self) -> list[Trigger]:
        return [WaveTrigger(wave, self.amplitude) for wave in self._grid()]

    def wider(self) -> list[TriggerFamily]:
        return [replace(self, amplitude=min(1.0, factor * self.amplitude)) for factor in TALLER]

    def perturbations(
        self, size: torch.Size, generator: torch.Generator
    ) -> tuple[Tensor, Callable[[Tensor], Trigger]]:
        """Nine waves of random frequencies."""
        first = self.parameters(9, size, generator, ())[0]
        return first, lambda variable: self.trigger([variable])

    def _grid(self) -> Tensor:
        """W x 3: every frequency up to the highest, but one of u, v and -u, -v, which are one wave; at each phase."""
        most = self.highest
        frequencies = [(u, v) for u in range(most + 1) for v in range(-most, most + 1) if u > 0 or v > 0]
        phases = [2 * math.pi * step / PHASES for step in range(PHASES)]
        return torch.tensor([(u, v, phase) for u, v in frequencies for phase in phases])
