"""The learning rate of a defence, searched on victims that are in no table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from ...errors import InputError
from ...models.classifier import ZeroShotClassifier
from ...models.evaluation import Rate, measured
from ...utils.storage import Saved
from ..attacks.measure import measure_attack
from ..contrastive import CaptionedPixels
from ..zoo.victim import Victim
from .defence import Defence, check_finite


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


def try_rates(
    defence: type[Defence],
    victim: Victim,
    data: CaptionedPixels,
    validation: CaptionedPixels,
    class_names: Sequence[str],
    rates: Sequence[float],
    seed: int = 0,
) -> list[Trial]:
    """Run a defence with each learning rate on one victim.

    What the defence finds out before it changes the model is the same at all rates, and found out once.

    Args:
        defence (`type`): the defence.
        victim (`Victim`): a poisoned model that is in no table; loaded anew for every run.
        data ([`CaptionedPixels`]): the defender's clean pictures.
        validation ([`CaptionedPixels`]): labelled pictures on which CA and ASR are measured.
        class_names (`Sequence[str]`): the labels.
        rates (`Sequence[float]`): the learning rates, at least one.
        seed (`int`): of the defence.

    Raises:
        InputError: a victim whose attack did not take.
    """
    if not victim.truth.took:
        raise InputError(f"`victim`: the attack on {victim.truth.name} did not take, so no ASR can be lowered there.")
    clip = victim.load()
    before, _ = _measure(victim, ZeroShotClassifier(clip.encoder, class_names), validation)
    found = defence(rates[0], seed).examine(clip, data, class_names)
    trials = []
    for learning_rate in rates:
        clip, trial = victim.load(), Trial(learning_rate, victim.truth.name, before)
        try:
            defended = defence(learning_rate, seed).treat(clip, data, class_names, found)
            classifier = ZeroShotClassifier(clip.holding(defended.model).encoder, class_names)
            check_finite(classifier, validation.pixels)
            trial.accuracy_after, trial.attack_success_rates = _measure(victim, classifier, validation)
        except FloatingPointError as error:
            trial.unusable = str(error)
        trials.append(trial)
    return trials


def choose_rate(trials: Sequence[Trial]) -> float | None:
    """The rate with the largest difference of mean CA and mean ASR; of equal ones the smallest.

    One measure for all defences, whatever they cost: a point of CA weighs as much as one of ASR. A rate that is unusable
    on a victim is left out; `None` when no other is there.
    """
    unusable = {trial.learning_rate for trial in trials if trial.unusable is not None}
    rates = sorted({trial.learning_rate for trial in trials} - unusable)

    def loss(rate: float) -> float:
        return sum(trial.drop + trial.attack_success_rate for trial in trials if trial.learning_rate == rate)

    return min(rates, key=lambda rate: round(loss(rate), 9), default=None)


def _measure(victim: Victim, classifier: ZeroShotClassifier, validation: CaptionedPixels) -> tuple[Rate, list[Rate]]:
    """CA, and the ASR of each trigger of the victim's attack."""
    attack = victim.attack()
    assert attack is not None
    metrics = measure_attack(classifier, validation, attack)
    accuracy, rates = measured(metrics[0].clean_accuracy), [measured(one.attack_success_rate) for one in metrics]
    if not all(isfinite(rate.value) for rate in (accuracy, *rates)):
        raise FloatingPointError("CA or an ASR has no pictures to be measured on")
    return accuracy, rates
