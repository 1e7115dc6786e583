"""The learning rate of a defence, searched on victims that are in no table."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..attacks.measure import measure_attack
from ..contrastive import CaptionedPixels
from ..encoder import DualEncoder
from ..errors import InputError
from ..evaluation import Rate
from ..hub import LoadedClip
from ..storage import Saved
from ..zoo.victim import Victim
from .defence import Defence


MAXIMAL_DROP = 0.03
"""Mean loss of clean accuracy up to which a learning rate is preferred for its ASR alone."""


@dataclass
class Trial(Saved):
    """One defence with one learning rate on one victim.

    Attributes:
        learning_rate (`float`): the rate.
        victim (`str`): the victim's name.
        accuracy_before, accuracy_after (`Rate`): CA on the validation pictures.
        attack_success_rates (`list[Rate]`): ASR of each trigger after the defence.
    """

    learning_rate: float
    victim: str
    accuracy_before: Rate
    accuracy_after: Rate
    attack_success_rates: list[Rate]

    @property
    def drop(self) -> float:
        """How much clean accuracy the defence cost."""
        return self.accuracy_before.value - self.accuracy_after.value

    @property
    def attack_success_rate(self) -> float:
        """Mean ASR over the triggers."""
        return sum(rate.value for rate in self.attack_success_rates) / len(self.attack_success_rates)


@dataclass
class SearchResult(Saved):
    """What a search found.

    Attributes:
        defence (`str`): its name.
        seed (`int`): the seed of all its runs.
        learning_rate (`float`): the chosen rate.
        trials (`list[Trial]`): every rate on every victim.
    """

    defence: str
    seed: int
    learning_rate: float
    trials: list[Trial]


def search_learning_rate(
    defence: type[Defence],
    victims: Sequence[Victim],
    data: CaptionedPixels,
    validation: CaptionedPixels,
    class_names: Sequence[str],
    seed: int = 0,
) -> SearchResult:
    """Run each rate of the defence's grid on each victim, and choose by [`choose_rate`].

    Args:
        defence (`type`): the defence.
        victims (`Sequence[Victim]`): poisoned models that are in no table; loaded anew for every run.
        data ([`CaptionedPixels`]): the defender's clean pictures.
        validation ([`CaptionedPixels`]): labelled pictures on which CA and ASR are measured.
        class_names (`Sequence[str]`): the labels.
        seed (`int`): of the defence.

    Raises:
        InputError: no victim, one whose attack did not take, or a defence without a grid.
    """
    if not defence.grid:
        raise InputError(f"`defence`: {defence.name} has no learning rates to search.")
    if not victims:
        raise InputError("`victims`: got none; pass at least one poisoned model that is in no table.")
    untaken = [victim.truth.name for victim in victims if not victim.truth.took]
    if untaken:
        raise InputError(
            f"`victims`: the attack on {', '.join(untaken)} did not take, so no ASR can be lowered there."
        )
    trials = []
    for victim in victims:
        accuracy, _ = _measure(victim, victim.load(), validation, class_names)
        for learning_rate in defence.grid:
            clip = victim.load()
            clip.model = defence(learning_rate, seed).defend(clip, data, class_names).model
            trials.append(
                Trial(learning_rate, victim.truth.name, accuracy, *_measure(victim, clip, validation, class_names))
            )
    return SearchResult(defence.name, seed, choose_rate(trials), trials)


def choose_rate(trials: Sequence[Trial]) -> float:
    """The rate with the lowest mean ASR of those with a mean loss of CA of at most [`MAXIMAL_DROP`].

    When there is none, that with the largest difference of mean CA and mean ASR; of equal ones the smallest.
    """
    rates = sorted({trial.learning_rate for trial in trials})
    drops, successes = {}, {}
    for rate in rates:
        own = [trial for trial in trials if trial.learning_rate == rate]
        drops[rate] = sum(trial.drop for trial in own) / len(own)
        successes[rate] = sum(trial.attack_success_rate for trial in own) / len(own)
    gentle = [rate for rate in rates if drops[rate] <= MAXIMAL_DROP + 1e-9]
    if gentle:
        return min(gentle, key=successes.__getitem__)
    return min(rates, key=lambda rate: drops[rate] + successes[rate])


def _measure(
    victim: Victim, clip: LoadedClip, validation: CaptionedPixels, class_names: Sequence[str]
) -> tuple[Rate, list[Rate]]:
    """CA, and the ASR of each trigger of the victim's attack."""
    attack = victim.attack()
    assert attack is not None
    measured = measure_attack(DualEncoder(clip.model, clip.processor), validation, class_names, attack)
    accuracy = measured[0].clean_accuracy
    rates = [metrics.attack_success_rate for metrics in measured]
    assert accuracy is not None
    return accuracy, [rate for rate in rates if rate is not None]
