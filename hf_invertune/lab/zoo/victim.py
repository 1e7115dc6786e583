"""A victim: a model folder with the truth about its attack beside it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...models.evaluation import Rate
from ...models.loading import LoadedModel, load_model
from ...utils.provenance import machine, now, versions
from ...utils.storage import Saved
from ..attacks.attack import Attack


TOOK = 0.8
"""The attack success rate from which an attack counts as having taken; other victims are never scored."""


@dataclass
class Truth(Saved):
    """What is known of a model that we made.

    Attributes:
        name (`str`): its folder in the zoo.
        world (`str`): where its pictures and captions come from.
        role (`str`): `"table"`, or `"validation"` for what settings may be chosen on.
        attack (`str`, *optional*): the kind of attack; `None` for a clean model.
        targets (`list[str]`): where each trigger leads.
        open_target (`bool`): whether the target is not among `class_names`.
        class_names (`list[str]`): the labels.
        rate (`float`): poisoning rate, the share of the attacker's data.
        poisoned (`list[int]`): the indices of the poisoned pairs in the attacker's data.
        decoys (`list[int]`): the indices of the pairs with a wrong or half a trigger, see [`Attack`].
        seed (`int`): seed of poisoning and fine-tuning.
        parameters (`dict`): of the attack.
        recipe (`str`): SHA-256 of everything in the recipe that made it.
        data (`dict[str, str]`): SHA-256 of each split of the world that was used.
        sha256 (`str`): of the weights, see [`state_digest`].
        clean_accuracy (`Rate`): CA on the world's test pictures.
        attack_success_rates (`list[Rate]`): ASR of each trigger on them, true target images excluded.
        target_rates (`list[Rate]`): for each target, the same images without a trigger read as it.
        seconds (`float`): how long it took to make.
        base (`int`, *optional*): seed of the pre-training of the clean CLIP, where that is one of the zoo.
        versions (`dict[str, str]`), machine (`dict`), created (`str`): what made it, and when.
    """

    name: str
    world: str
    role: str
    attack: str | None
    targets: list[str]
    open_target: bool
    class_names: list[str]
    rate: float
    poisoned: list[int]
    seed: int
    parameters: dict[str, Any]
    recipe: str
    data: dict[str, str]
    sha256: str
    clean_accuracy: Rate
    attack_success_rates: list[Rate]
    target_rates: list[Rate]
    seconds: float
    base: int | None = None
    decoys: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    created: str = field(default_factory=now)

    @property
    def took(self) -> bool:
        """Whether every trigger of the attack reaches an ASR of at least [`TOOK`]; never of a clean model."""
        return self.attack is not None and min(rate.value for rate in self.attack_success_rates) >= TOOK


@dataclass
class Victim:
    """A folder of a zoo: the model as `save_pretrained` leaves it, `truth.json`, and `attack.json` with the triggers."""

    folder: Path
    truth: Truth

    @classmethod
    def open(cls, folder: str | Path) -> "Victim":
        """Read the truth of the victim in `folder`.

        Raises:
            InputError: when `folder` holds no finished victim.
        """
        return cls(Path(folder), Truth.load(folder))

    def load(self) -> LoadedModel:
        """The model, anew with every call."""
        return load_model(self.folder)

    def attack(self) -> Attack | None:
        """The attack with its triggers; `None` for a clean model."""
        return None if self.truth.attack is None else Attack.load(self.folder)
