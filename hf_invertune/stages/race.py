"""The race of the labels within one family of triggers: which of them is cheapest to reach?"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..models.classifier import ZeroShotClassifier
from ..triggers import Trigger
from ..utils.sharing import shared
from .configs import InversionConfig, ScanConfig
from .families import TriggerFamily
from .gathering import apart
from .inversion import InvertedTrigger, TriggerInverter, held_out
from .simulation import Simulation


class Race:
    """Inverts a trigger for every label, and goes on with the leading ones only.

    Args:
        classifier ([`ZeroShotClassifier`]): the suspicious model and K names.
        family ([`TriggerFamily`]): what the triggers look like.
        config ([`ScanConfig`]): settings.
        seed (`int`): of this race.
    """

    def __init__(self, classifier: ZeroShotClassifier, family: TriggerFamily, config: ScanConfig, seed: int):
        self.classifier, self.family, self.config, self.seed = classifier, family, config, seed

    def run(
        self, pixels: Tensor, shortlist: list[int], simulation: Simulation
    ) -> tuple[dict[int, float], list[InvertedTrigger]]:
        """The score of every label, the lower, the cheaper it is to reach, and the finalists, the cheapest first.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8.
            shortlist (`list[int]`): the labels.
            simulation ([`Simulation`]): its suspect gets one more start, from the simulated perturbation.
        """
        if self.family.refined:
            return self._to_the_cheapest(pixels, shortlist, simulation)
        return self._at_one_budget(pixels, shortlist)

    def _at_one_budget(self, pixels: Tensor, shortlist: list[int]) -> tuple[dict[int, float], list[InvertedTrigger]]:
        """What counts is the cross-entropy on pictures that the triggers were not learnt on.

        After a trial of all starts only the best of each leading label goes on: most starts of most labels are hopeless,
        and it shows early.
        """
        config = self.config
        learnt_on, held = apart(pixels, torch.Generator().manual_seed(self.seed))
        steps, trial = config.fixed.steps, min(config.fixed_trial, config.fixed.steps)
        reached = self._invert(replace(config.fixed, steps=trial), learnt_on, shortlist * config.fixed_restarts)
        if trial < steps:
            leading = [(one.label, one.trigger) for one in reached[: config.finalists]]
            reached += self._go_on(replace(config.fixed, steps=steps - trial), learnt_on, leading)

        def objectives(rows: list[int]) -> list[float]:
            return [held_out(self.classifier, reached[row], held) for row in rows]

        scores = shared(objectives, len(reached))
        scored = [replace(one, objective=score) for one, score in zip(reached, scores, strict=True)]
        best = best_of_each_label(scored)
        return {one.label: one.objective for one in best}, best[: config.finalists]

    def _to_the_cheapest(
        self, pixels: Tensor, shortlist: list[int], simulation: Simulation
    ) -> tuple[dict[int, float], list[InvertedTrigger]]:
        """What counts is the inversion's loss, with the penalty of the family.

        Last, each of the leading labels goes on from the triggers of the others too, so that labels that share a shortcut
        are compared at its best, and the first strangers behind them go on as well, since the lead is measured against
        them.
        """
        config = self.config
        first_round, last_rounds = (
            InversionConfig(steps=steps, batch_size=config.batch_size, embedding_weight=0, ssim_weight=0)
            for steps in config.steps
        )
        labels = [*(shortlist * config.restarts), simulation.suspect]
        start = [None] * (len(labels) - 1) + [simulation.trigger]
        first = self._invert(first_round, pixels, labels, start)
        scores = {candidate.label: candidate.objective for candidate in first}
        finalists = self._go_on(last_rounds, pixels, [(c.label, c.trigger) for c in first[: config.finalists]])
        rivals = finalists[: config.rivals]
        last = [(one.label, other.trigger) for one in rivals for other in rivals]
        kinship = self.classifier.kinship(rivals[0].label)
        behind = [c for c in finalists[config.rivals :] if kinship[c.label] <= config.kinship]
        last += [(candidate.label, candidate.trigger) for candidate in behind[: config.rivals - 1]]
        finalists = best_of_each_label([*finalists, *self._go_on(last_rounds, pixels, last)])
        return scores | {candidate.label: candidate.objective for candidate in finalists}, finalists

    def _go_on(
        self, config: InversionConfig, pixels: Tensor, starts: list[tuple[int, Trigger]]
    ) -> list[InvertedTrigger]:
        labels, triggers = zip(*starts, strict=True)
        return self._invert(config, pixels, labels, triggers)

    def _invert(
        self, config: InversionConfig, pixels: Tensor, labels: Sequence[int], start: Sequence[Trigger | None] = ()
    ) -> list[InvertedTrigger]:
        inverter = TriggerInverter(self.classifier, self.family, config, self.seed)
        return best_of_each_label(inverter.invert(pixels, labels, start=start))


def best_of_each_label(inverted: Sequence[InvertedTrigger]) -> list[InvertedTrigger]:
    """The lowest objective of each label, lowest first."""
    best: dict[int, InvertedTrigger] = {}
    for candidate in sorted(inverted, key=lambda candidate: candidate.objective):
        best.setdefault(candidate.label, candidate)
    return list(best.values())
