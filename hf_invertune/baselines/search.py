"""The learning rate of a defence, searched on victims that are in no table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from ..attacks.measure import measure_attack
from ..contrastive import CaptionedPixels
from ..encoder import DualEncoder
from ..errors import InputError
from ..evaluation import Rate, measured
from ..inversion import as_float
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
        accuracy_before (`Rate`): CA on the validation pictures.
        accuracy_after (`Rate`, *optional*): the same after the defence, where that can be measured.
        attack_success_rates (`list[Rate]`): ASR of each trigger after the defence.
        unusable (`str`, *optional*): what is not finite, when something is not; the rate is not chosen then.
    """

    learning_rate: float
    victim: str
    accuracy_before: Rate
    accuracy_after: Rate | None = None
    attack_success_rates: list[Rate] = field(default_factory=list)
    unusable: str | None = None

    @property
    def drop(self) -> float:
        """How much clean accuracy the defence cost."""
        return self.accuracy_before.value - measured(self.accuracy_after).value

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
        learning_rate (`float`, *optional*): the chosen rate; `None` when each is unusable on some victim.
        trials (`list[Trial]`): every rate on every victim.
    """

    defence: str
    seed: int
    learning_rate: float | None
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
    if not victims:
        raise InputError("`victims`: got none; pass at least one poisoned model that is in no table.")
    for victim in victims:
        _check(defence, victim)
    trials = [trial for victim in victims for trial in try_rates(defence, victim, data, validation, class_names, seed)]
    return SearchResult(defence.name, seed, choose_rate(trials), trials)


def try_rates(
    defence: type[Defence],
    victim: Victim,
    data: CaptionedPixels,
    validation: CaptionedPixels,
    class_names: Sequence[str],
    seed: int = 0,
) -> list[Trial]:
    """Run each rate of the defence's grid on one victim; arguments and errors as in [`search_learning_rate`].

    What the defence finds out before it changes the model is the same at all rates, and found out once.
    """
    _check(defence, victim)
    clip = victim.load()
    before, _ = _measure(victim, DualEncoder(clip.model, clip.processor), validation, class_names)
    found = defence(defence.grid[0], seed).examine(clip, data, class_names)
    trials = []
    for learning_rate in defence.grid:
        clip, trial = victim.load(), Trial(learning_rate, victim.truth.name, before)
        try:
            defended = defence(learning_rate, seed).treat(clip, data, class_names, found)
            encoder = DualEncoder(defended.model, clip.processor)
            _check_finite(encoder, validation, class_names)
            trial.accuracy_after, trial.attack_success_rates = _measure(victim, encoder, validation, class_names)
        except FloatingPointError as error:
            trial.unusable = str(error)
        trials.append(trial)
    return trials


def choose_rate(trials: Sequence[Trial]) -> float | None:
    """The rate with the lowest mean ASR of those with a mean loss of CA of at most [`MAXIMAL_DROP`].

    When there is none, that with the largest difference of mean CA and mean ASR; of equal ones the smallest. A rate that
    is unusable on a victim is left out; `None` when no other is there.
    """
    unusable = {trial.learning_rate for trial in trials if trial.unusable is not None}
    rates = sorted({trial.learning_rate for trial in trials} - unusable)
    drops, successes = {}, {}
    for rate in rates:
        own = [trial for trial in trials if trial.learning_rate == rate]
        drops[rate] = sum(trial.drop for trial in own) / len(own)
        successes[rate] = sum(trial.attack_success_rate for trial in own) / len(own)
    gentle = [rate for rate in rates if drops[rate] <= MAXIMAL_DROP + 1e-9]
    if gentle:
        return min(gentle, key=successes.__getitem__)
    return min(rates, key=lambda rate: drops[rate] + successes[rate], default=None)


def _check(defence: type[Defence], victim: Victim) -> None:
    if not defence.grid:
        raise InputError(f"`defence`: {defence.name} has no learning rates to search.")
    if not victim.truth.took:
        raise InputError(f"`victims`: the attack on {victim.truth.name} did not take, so no ASR can be lowered there.")


def _check_finite(encoder: DualEncoder, validation: CaptionedPixels, class_names: Sequence[str]) -> None:
    """A model that is not finite reads everything as the first label, which would pass for a cure."""
    for name, parameter in encoder.model.named_parameters():
        if not parameter.isfinite().all():
            raise FloatingPointError(f"{name} is not finite")
    batches = (as_float(chunk) for chunk in validation.pixels.split(256))
    if not (encoder.embed_batches(batches).isfinite().all() and encoder.zero_shot_head(class_names).isfinite().all()):
        raise FloatingPointError("an embedding is not finite")


def _measure(
    victim: Victim, encoder: DualEncoder, validation: CaptionedPixels, class_names: Sequence[str]
) -> tuple[Rate, list[Rate]]:
    """CA, and the ASR of each trigger of the victim's attack."""
    attack = victim.attack()
    assert attack is not None
    metrics = measure_attack(encoder, validation, class_names, attack)
    accuracy, rates = measured(metrics[0].clean_accuracy), [measured(one.attack_success_rate) for one in metrics]
    if not all(isfinite(rate.value) for rate in (accuracy, *rates)):
        raise FloatingPointError("CA or an ASR has no pictures to be measured on")
    return accuracy, rates
