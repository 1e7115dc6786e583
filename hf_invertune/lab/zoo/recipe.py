"""A recipe: which world, which pre-training, which attacks with which seeds. A YAML file becomes dataclasses."""

import math
import re
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import torch

from ...errors import InputError
from ...utils.files import json_digest
from ...utils.settings import load_file, plain, read
from ..attacks.attack import Attack
from ..attacks.catalog import check_parameters, make_attack
from ..attacks.poisoning import check_targets, counts_of
from .worlds import World


@dataclass(frozen=True)
class Tower:
    """One tower of the CLIP, in the terms of its config.

    Raises:
        InputError: a number that is not positive, or heads that do not divide the width.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"`{name}`: got {value}; it must be positive.")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"`num_attention_heads`: got {self.num_attention_heads}, which does not divide a `hidden_size` of "
                f"{self.hidden_size}."
            )


@dataclass(frozen=True)
class VisionTower(Tower):
    """The vision tower, which cuts pictures into patches."""

    patch_size: int


@dataclass(frozen=True)
class Model:
    """The model that is pre-trained.

    Args:
        vision ([`VisionTower`]), text ([`Tower`]): its towers.
        projection_dim (`int`): size of the embeddings.
        family (`str`): `"clip"`, or `"siglip"`, which has no projection of its own and is trained with a sigmoid.

    Raises:
        InputError: a size of the embeddings that the family cannot have.
    """

    vision: VisionTower
    text: Tower
    projection_dim: int
    family: Literal["clip", "siglip"] = "clip"

    def __post_init__(self) -> None:
        if self.family == "siglip" and self.projection_dim != self.vision.hidden_size:
            raise InputError(
                f"`projection_dim`: got {self.projection_dim}; a SigLIP embeds in the width of its image tower, "
                f"{self.vision.hidden_size}."
            )


@dataclass(frozen=True)
class Training:
    """How long and how fast a model is trained.

    Args:
        epochs (`float`): passes over the data.
        learning_rate (`float`): peak learning rate.
        batch_size (`int`): pairs a step.

    Raises:
        InputError: a value that is not positive.
    """

    epochs: float
    learning_rate: float
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"`{name}`: got {getattr(self, name)}; pass a positive number.")


@dataclass(frozen=True)
class Pretraining(Training):
    """Of the clean CLIP.

    Args:
        epochs, learning_rate, batch_size: see [`Training`].
        shift (`int`): with more than 0, each batch is moved by up to so many pixels, and half of them are mirrored.
    """

    shift: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shift < 0:
            raise InputError(f"`shift`: got {self.shift}; pass a number of pixels.")


@dataclass(frozen=True)
class AttackRecipe:
    """One attack, of which there is a victim a seed.

    Args:
        kind (`str`): one of [`ATTACKS`].
        name (`str`): what its victims are called; by default its kind.
        rate (`float`): share of the attacker's data that is poisoned, in (0, 1].
        targets (`tuple[str, ...]`): from which each seed draws its own; the class names when there are none.
        count (`int`): how many targets a victim has.
        parameters (`dict`): of the attack.
        training ([`Training`], *optional*): in place of the recipe's `poisoning`.

    Raises:
        InputError: a rate outside (0, 1], fewer targets than wanted, or a name that is none for a folder.
    """

    kind: str
    name: str = ""
    rate: float = 0.02
    targets: tuple[str, ...] = ()
    count: int = 1
    parameters: dict[str, Any] = field(default_factory=dict)
    training: Training | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InputError(f"`rate`: got {self.rate}; it must be above 0 and at most 1.")
        if self.count < 1 or 0 < len(self.targets) < self.count:
            raise InputError(f"`count`: got {self.count}; at least 1 is needed, and as many `targets`.")
        check_parameters(self.kind, self.parameters)
        object.__setattr__(self, "name", self.name or self.kind)
        if not re.fullmatch("[a-z0-9-]+", self.name) or self.name in ("base", "clean"):
            raise InputError(
                f"`name`: got {self.name!r}; it names folders: pass small letters, digits and hyphens, and neither base "
                "nor clean."
            )


@dataclass(frozen=True)
class Herd:
    """Victims of one role.

    Args:
        seeds (`tuple[int, ...]`): one clean CLIP is pre-trained for each, and one victim of each attack made of it.
        attacks (`tuple[AttackRecipe, ...]`): the attacks.
        clean (`int`): how many models without an attack there shall be, fine-tuned on the same data as the others.

    Raises:
        InputError: no seed, the same seed or the same name twice.
    """

    seeds: tuple[int, ...]
    attacks: tuple[AttackRecipe, ...] = ()
    clean: int = 0

    def __post_init__(self) -> None:
        names = [attack.name for attack in self.attacks]
        for argument, values in (("seeds", self.seeds), ("attacks", names)):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise InputError(
                    f"`{argument}`: {twice[0]} is there twice; give each a value, or a `name`, of its own."
                )
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= 2**32 or self.clean < 0:
            raise InputError(
                f"`seeds`, `clean`: got {list(self.seeds)} and {self.clean}; pass one seed at least, and all between 0 "
                f"and {2**32 - 1}."
            )


@dataclass(frozen=True)
class Plan:
    """What one victim will be made of.

    Attributes:
        name (`str`): its folder.
        role (`str`): `"table"` or `"validation"`.
        attack ([`AttackRecipe`], *optional*): `None` for a clean model.
        targets (`tuple[str, ...]`): where the attack leads.
        seed (`int`): of the attack, of the choice of pairs and of the fine-tuning.
        base (`int`): seed of the clean CLIP that is fine-tuned.
    """

    name: str
    role: str
    attack: AttackRecipe | None
    targets: tuple[str, ...]
    seed: int
    base: int

    @property
    def kind(self) -> str:
        """The name of its attack, or `"clean"`."""
        return "clean" if self.attack is None else self.attack.name

    def make_attack(self, image_size: int) -> Attack | None:
        """The attack with its triggers."""
        if self.attack is None:
            return None
        return make_attack(
            self.attack.kind, image_size=image_size, targets=self.targets, seed=self.seed, **self.attack.parameters
        )


@dataclass(frozen=True)
class Recipe:
    """A whole zoo.

    Args:
        world ([`World`]): where pictures and captions come from.
        model ([`Model`]): what is trained.
        pretraining ([`Pretraining`]): of the clean CLIPs.
        poisoning ([`Training`]): the fine-tuning that turns them into victims.
        seeds, attacks, clean: the victims that tables show, see [`Herd`].
        validation ([`Herd`], *optional*): the victims on which settings may be chosen; with seeds of their own.

    Raises:
        InputError: seeds that serve both, two victims of one name, a target or rate that an attack cannot have, or a batch
            larger than its split.
    """

    world: World
    model: Model
    pretraining: Pretraining
    poisoning: Training
    seeds: tuple[int, ...]
    attacks: tuple[AttackRecipe, ...] = ()
    clean: int = 0
    validation: Herd | None = None

    def __post_init__(self) -> None:
        patch, side = self.model.vision.patch_size, self.world.image_size
        if patch > side or self.model.projection_dim < 1:
            raise InputError(
                f"`patch_size`, `projection_dim`: got {patch} and {self.model.projection_dim}; the former must fit in "
                f"pictures of {side} pixels, the latter be positive."
            )
        shared = set(self.seeds) & set(self.validation.seeds if self.validation else ())
        if shared:
            raise InputError(f"`validation`: its seeds and those of the table share {min(shared)}; keep them apart.")
        plans = self.plans()
        fine_tuned = [plan.attack.training for plan in plans if plan.attack and plan.attack.training]
        for split, trainings in (("pretraining", [self.pretraining]), ("poisoning", [self.poisoning, *fine_tuned])):
            pairs, largest = getattr(self.world.splits, split), max(training.batch_size for training in trainings)
            if largest > pairs:
                raise InputError(f"`batch_size`: got {largest}, and the split {split} holds {pairs} pictures.")
        twice = [name for name, count in Counter(plan.name for plan in plans).items() if count > 1]
        if twice:
            raise InputError(
                f"`seeds`, `clean`, `attacks`: two victims would be called {twice[0]}; take other seeds, or another `name`."
            )
        for plan in plans:
            attack = plan.make_attack(self.world.image_size)
            if attack is not None and plan.attack is not None:
                check_targets(attack, self.world.class_names)
                counts_of(attack, plan.attack.rate, self.world.splits.poisoning)

    @classmethod
    def load(cls, path: str | Path, *, train: str | None = None, test: str | None = None) -> "Recipe":
        """Read a YAML file.

        Args:
            path (`str` or `Path`): the file.
            train, test (`str`, *optional*): where the pictures of the world lie here, in place of what the file says.

        Raises:
            InputError: no such file, no YAML, an unknown key (with the nearest), a value that cannot be used.
        """
        value = load_file(path, "recipe")
        given = {key: source for key, source in (("train", train), ("test_source", test)) if source is not None}
        if given and isinstance(value, dict) and isinstance(value.get("world"), dict):
            value["world"] |= given
        return cls.of(value)

    @classmethod
    def of(cls, value: Any) -> "Recipe":
        """The recipe that these plain values describe; see [`Recipe.load`]."""
        return read(cls, value, argument="recipe")

    def values(self) -> dict[str, Any]:
        """The recipe as plain values, defaults included, that [`Recipe.of`] reads."""
        return typing.cast(dict[str, Any], plain(self))

    def digest(self) -> str:
        """SHA-256 of all that makes the zoo what it is; where its pictures lie is no part of it, they have digests."""
        return json_digest(self.decisive())

    def decisive(self) -> dict[str, Any]:
        """The values that make the zoo what it is."""
        values = self.values()
        values["world"] = {k: v for k, v in values["world"].items() if k not in ("train", "test_source")}
        if self.model.family == "clip":  # the only one when the first zoos were made, which keep their digests
            del values["model"]["family"]
        return values

    def plans(self) -> list[Plan]:
        """The victims in the order in which they are made: validation, the first seed, clean models, other seeds.

        An attack leads to another target with each seed, and all targets serve about as often.
        """
        used: Counter[tuple[str, str]] = Counter()
        plans = [] if self.validation is None else _herd(self.validation, "validation", self.world.class_names, used)
        table = _herd(Herd(self.seeds, self.attacks, self.clean), "table", self.world.class_names, used)
        rank = {plan.name: 1 if plan.attack is None else 2 * (plan.seed != self.seeds[0]) for plan in table}
        return plans + sorted(table, key=lambda plan: rank[plan.name])


def _herd(herd: Herd, role: str, class_names: Sequence[str], used: Counter[tuple[str, str]]) -> list[Plan]:
    """The plans of `herd`; `used` counts how often targets have served, in each attack and in all ("")."""
    plans = []
    for seed in herd.seeds:
        generator = torch.Generator().manual_seed(seed)
        for attack in herd.attacks:
            pool = attack.targets or class_names
            shuffled = [pool[index] for index in torch.randperm(len(pool), generator=generator).tolist()]
            targets = sorted(shuffled, key=lambda name: (used[attack.name, name], used["", name]))[: attack.count]
            used.update((group, name) for group in (attack.name, "") for name in targets)
            plans.append(Plan(f"{attack.name}-{seed}", role, attack, tuple(targets), seed, seed))
    for number in range(herd.seeds[0], herd.seeds[0] + herd.clean):
        base = herd.seeds[number % len(herd.seeds)]
        plans.append(Plan(f"clean-{number}", role, None, (), number, base))
    return plans


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two plain values differ, one line each: `pretraining.epochs: 3 and 4`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        return [
            line for key in keys for line in differences(ours.get(key), theirs.get(key), f"{path}.{key}".lstrip("."))
        ]
    if isinstance(ours, list) and isinstance(theirs, list):
        pairs = enumerate(zip_longest(ours, theirs))
        return [line for index, pair in pairs for line in differences(*pair, f"{path}[{index}]")]
    return [] if ours == theirs else [f"{path}: {ours!r:.60} and {theirs!r:.60}"]
