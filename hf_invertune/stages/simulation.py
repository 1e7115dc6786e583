"""Adversarial simulation: which labels does a universal perturbation lead to?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.pixels import as_float
from ..models.classifier import ZeroShotClassifier
from ..models.room import pictures_at_once
from ..triggers import Trigger
from ..utils.progress import advance, progress
from ..utils.seeds import stream
from ..utils.storage import Saved
from .configs import ScanConfig
from .families import TriggerFamily


@dataclass
class Simulation(Saved):
    """One adversarial simulation.

    Attributes:
        kind (`str`): what the perturbation is, such as `"patch"`, at the place where it shifts labels most.
        clean (`list[float]`): P_clean, the share of clean images read as each label.
        adversarial (`list[float]`): P_adv, the same with the universal perturbation.
        trigger (`Trigger`): the perturbation itself.
    """

    kind: str
    clean: list[float]
    adversarial: list[float]
    trigger: Trigger

    @property
    def shift(self) -> list[float]:
        """P_adv(k) - P_clean(k) for each label k (InverTune, section on target identification)."""
        return [adversarial - clean for adversarial, clean in zip(self.adversarial, self.clean, strict=True)]

    @property
    def suspect(self) -> int:
        """The label with the largest shift."""
        return max(range(len(self.shift)), key=self.shift.__getitem__)


class Simulator:
    """Learns universal perturbations that move embeddings away from their clean place, and counts the labels.

    Args:
        classifier ([`ZeroShotClassifier`]): the suspicious model and K names.
        config ([`ScanConfig`], *optional*): settings.
        seed (`int`): that of the run.
    """

    def __init__(self, classifier: ZeroShotClassifier, config: ScanConfig | None = None, seed: int = 0):
        self.classifier, self.config, self.seed = classifier, config or ScanConfig(), seed

    def simulate(self, pixels: Tensor, family: TriggerFamily) -> Simulation:
        """Learn the perturbations of a family side by side, and keep the one that shifts labels most.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8.
            family ([`TriggerFamily`]): what the perturbations look like.
        """
        config, encoder = self.config, self.classifier.encoder
        generator = torch.Generator().manual_seed(stream(self.seed, "simulation"))
        first, make = family.perturbations(pixels.shape[-2:], generator)
        variable = first.to(encoder.device).requires_grad_()
        optimizer = torch.optim.Adam([variable], lr=0.3)
        count = config.simulation_batch_size
        at_once = max(1, pictures_at_once(encoder, pixels.shape[-2:]) // len(first))
        with encoder.frozen():
            homes = encoder.embed_pixels(pixels)
            there = pixels.to(encoder.device)
            for _ in progress(range(config.simulation_steps), f"Simulating a universal {family.universal}"):
                chosen = torch.randint(len(pixels), (count,), generator=generator).to(encoder.device)
                optimizer.zero_grad()
                for part in chosen.split(at_once):
                    triggered = make(variable)(as_float(there[part]).unsqueeze(0))
                    nearness = (encoder.embed_images(triggered) * homes[part]).sum(-1)
                    (nearness.sum() / count).backward()
                optimizer.step()
                advance(len(first) * count)
            with torch.no_grad():
                triggers = make(variable).split()
            moved = [encoder.embed_pixels(pixels, trigger.on(encoder.device)) for trigger in triggers]
        clean, shares = self.classifier.shares(homes), map(self.classifier.shares, moved)
        simulations = [
            Simulation(family.universal, clean, share, trigger)
            for share, trigger in zip(shares, triggers, strict=True)
        ]
        return max(simulations, key=lambda simulation: max(simulation.shift))
