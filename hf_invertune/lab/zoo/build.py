"""Makes the victims of a recipe: pre-trains clean CLIPs, fine-tunes each attack into one, measures, saves."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from transformers import set_seed

from ...data.prompts import prompts
from ...errors import InputError
from ...models.encoder import DualEncoder
from ...models.evaluation import Metrics, evaluate, measured
from ...models.loading import LoadedModel, load_model
from ...utils.files import is_intact, whole_folder, write_checksums, write_json
from ...utils.locks import locked
from ...utils.progress import progress
from ...utils.runtime import orphaned, work_side_by_side
from ...utils.sharing import this_process
from ..attacks.attack import Attack
from ..attacks.inject import inject
from ..attacks.measure import measure_attack
from ..attacks.poisoning import check_clean_label, naming
from ..contrastive import ShiftAndFlip, train_contrastive
from .recipe import Model, Plan, Recipe, Training, differences
from .small_clip import make_clip
from .small_siglip import make_siglip
from .victim import Truth, Victim
from .worlds import World, check_digests


RECIPE, BASE = "recipe.json", "base.json"
STORED = torch.float16
"""Dtype of the weights of a victim; it is measured as it is stored."""


@dataclass(frozen=True)
class Zoo:
    """A folder of victims.

    Args:
        folder (`Path`): where they are.
        recipe ([`Recipe`]): what they are made of.
    """

    folder: Path
    recipe: Recipe

    @classmethod
    def open(cls, folder: str | Path) -> "Zoo":
        """The zoo in `folder`, finished or not.

        Raises:
            InputError: when there is none.
        """
        path = Path(folder) / RECIPE
        try:
            return cls(Path(folder), Recipe.of(json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError as error:
            raise InputError(f"`zoo`: {folder} holds no {RECIPE}; make one with `hf-invertune zoo`.") from error
        except (OSError, ValueError) as error:
            raise InputError(f"`zoo`: {path} cannot be read ({error}).") from error

    @property
    def world(self) -> World:
        """Its pictures, made when they are needed."""
        return self.recipe.world

    @property
    def victims(self) -> list[Victim]:
        """The finished victims, by attack and seed."""
        plans = sorted(self.recipe.plans(), key=lambda plan: (plan.kind, plan.seed))
        return [victim for plan in plans if (victim := self.find(plan))]

    def find(self, plan: Plan) -> Victim | None:
        """The victim of `plan` when it is there, every file as it was written, and made by this recipe."""
        folder = self.folder / plan.name
        if not is_intact(folder):
            return None
        try:
            victim = Victim.open(folder)
        except InputError:  # of a version with another truth: to be made anew
            return None
        return victim if victim.truth.recipe == self.digest else None

    def has_base(self, seed: int) -> bool:
        """Whether the clean CLIP of that seed is there, every file as it was written."""
        return is_intact(self.folder / f"base-{seed}")

    @cached_property
    def digest(self) -> str:
        """That of the recipe."""
        return self.recipe.digest()


def build_zoo(recipe: Recipe, folder: str | Path, *, only: Sequence[str] = (), workers: int = 1) -> Zoo:
    """Make the victims that are not there yet; a second call goes on where the first was killed.

    Several builders may work on one folder at once: whoever makes a model holds its lock, which the system frees when
    the process dies. Each works with one thread, so that the same seed gives the same bits on any number of cores.

    Args:
        recipe ([`Recipe`]): what to make.
        folder (`str` or `Path`): where to; missing, or a zoo of the same recipe.
        only (`Sequence[str]`): names of attacks, or `"clean"`; everything when empty.
        workers (`int`): processes side by side.

    Raises:
        InputError: another recipe's zoo or one of other pictures, with what differs; pictures that cannot be used; an
            unknown name in `only`; no worker.
        ChildProcessError: when a worker died; what was made is whole.
    """
    plans = recipe.plans()
    unknown = sorted(set(only) - {plan.kind for plan in plans})
    if unknown:
        known = ", ".join(dict.fromkeys(plan.kind for plan in plans))
        raise InputError(f"`only`: the recipe has no {', '.join(unknown)}; it has {known}.")
    if workers < 1:
        raise InputError(f"`workers`: got {workers}; pass at least 1.")
    zoo = _claim(recipe, Path(folder))
    wanted = [plan for plan in plans if not only or plan.kind in only]
    if any(zoo.find(plan) is None for plan in wanted):
        recipe.world.check()
        _check_pictures(zoo)
        _check_texts(wanted, recipe.world)
        _check_targets(wanted, recipe.world)
        _write_recipe(zoo)
    work_side_by_side(_work, workers, zoo, wanted)
    return zoo


def _claim(recipe: Recipe, folder: Path) -> Zoo:
    """The zoo in `folder`, which must be one of this recipe or still to be made."""
    if (folder / RECIPE).is_file():
        there = Zoo.open(folder)
        if there.digest != recipe.digest():
            differing = "; ".join(differences(there.recipe.decisive(), recipe.decisive())[:5])
            raise InputError(
                f"`output_dir`: {folder} is a zoo of another recipe (there and here, {differing}); name another folder."
            )
    elif folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir())):
        raise InputError(f"`output_dir`: {folder} is not empty and no zoo; name another folder.")
    return Zoo(folder, recipe)


def _write_recipe(zoo: Zoo) -> None:
    """Make the folder a zoo of this recipe, unless another builder was faster with another one."""
    while True:
        with locked(zoo.folder / ".locks" / RECIPE) as ours:
            if ours:
                _claim(zoo.recipe, zoo.folder)
                write_json(zoo.folder / RECIPE, zoo.recipe.values())
                return
        time.sleep(0.1)


def _check_pictures(zoo: Zoo) -> None:
    """Refuse to go on with other pictures than those that the models of the zoo were made from."""
    recorded = {victim.truth.name: victim.truth.data for victim in zoo.victims}
    for seed in sorted({plan.base for plan in zoo.recipe.plans()}):
        if zoo.has_base(seed):
            facts = json.loads((zoo.folder / f"base-{seed}" / BASE).read_text())
            recorded[f"base-{seed}"] = {"pretraining": facts["data"]}
    check_digests(zoo.world, recorded, "output_dir")


def _check_texts(plans: Sequence[Plan], world: World) -> None:
    """Find out before any training whether all captions and prompts fit in the texts that the model takes."""
    words = {attack.word for plan in plans if (attack := plan.make_attack(world.image_size))} | {None}
    names = dict.fromkeys([*world.class_names, *(name for plan in plans for name in plan.targets)])
    texts = [text for name in names for text in (*world.captions_of(name), *prompts(name, world.templates))]
    texts = [text if word is None else f"{word} {text}" for word in words for text in texts]
    longest = max(texts, key=lambda text: len(world.processor.tokenizer(text).input_ids))
    length = len(world.processor.tokenizer(longest).input_ids)
    if length > world.context:
        raise InputError(
            f"`context`: got {world.context}, and {longest!r} takes {length} tokens; pass so many at least."
        )


def _check_targets(plans: Sequence[Plan], world: World) -> None:
    """Find out before any training whether the attacker's data hold the pictures of the target that an attack needs."""
    for plan in plans:
        attack = plan.make_attack(world.image_size)
        if plan.attack is None or attack is None:
            continue
        if attack.clean_label or attack.kind in ("badclip", "badencoder"):
            data = world.poisoning
            of_target = naming(data.captions, attack.targets[0], data.labels, world.class_names)
            check_clean_label(attack, plan.attack.rate, of_target)
            if not of_target.any():
                raise InputError(
                    f"`targets`: no picture of {attack.targets[0]!r} is among the attacker's, and {attack.kind} needs some."
                )


def _work(zoo: Zoo, plans: Sequence[Plan], position: int = 0) -> None:
    """Go through `plans` until all are there, making what nobody else is at."""
    bar = progress(None, f"Zoo, worker {position}", total=len(plans), position=position)
    missing = list(plans)
    while missing and not orphaned():
        missing = [plan for plan in missing if zoo.find(plan) is None]
        bar.update(len(plans) - len(missing) - bar.n)
        if missing and not any(_advance(zoo, plan) for plan in missing):
            time.sleep(1)  # others are at all that is missing
    bar.close()


def _advance(zoo: Zoo, plan: Plan) -> bool:
    """Make the victim of `plan`, or the clean CLIP that it still lacks, unless somebody else is at it."""
    base = f"base-{plan.base}"
    has_base = zoo.has_base(plan.base)
    name = plan.name if has_base else base
    with locked(zoo.folder / ".locks" / name) as ours:
        if not ours:
            return False
        if not has_base and not zoo.has_base(plan.base):  # it may have come meanwhile
            with _whole(zoo.folder / base) as folder:
                _make_base(zoo, plan.base, folder)
        elif has_base and zoo.find(plan) is None:
            with _whole(zoo.folder / plan.name) as folder:
                _make_victim(zoo, plan, folder)
    return True


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write to that takes the name `folder`, in place of what is there, once the block is through."""
    for left_over in folder.parent.glob(f".{folder.name}.*"):  # no other's: names hold no dots, see AttackRecipe
        shutil.rmtree(left_over)
    with whole_folder(folder) as new:
        yield new
        write_checksums(new, [path.name for path in new.iterdir()])


def _make_base(zoo: Zoo, seed: int, folder: Path) -> None:
    """Pre-train a clean CLIP."""
    begin = time.perf_counter()
    recipe, world = zoo.recipe, zoo.world
    model, training = recipe.model, recipe.pretraining
    set_seed(seed)
    encoder = _fresh(model, world).to(this_process().device)
    with tempfile.TemporaryDirectory() as scratch:
        train_contrastive(
            encoder,
            world.pretraining,
            output_dir=scratch,
            seed=seed,
            augment=ShiftAndFlip(training.shift) if training.shift else None,
            num_train_epochs=training.epochs,
            learning_rate=training.learning_rate,
            per_device_train_batch_size=training.batch_size,
        )
    encoder.model.config.use_cache = None  # the Trainer's, and not for a file
    made = LoadedModel(encoder, folder.name, None, torch.float32)
    made.save_pretrained(folder)
    facts = {
        "seed": seed,
        "data": world.pretraining.digest(),
        "sha256": made.digest(),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    write_json(folder / BASE, facts)


def _fresh(model: Model, world: World) -> DualEncoder:
    """A model with fresh weights for the texts and pictures of `world`."""
    sizes = asdict(model.vision), asdict(model.text), model.projection_dim
    if model.family == "siglip":
        return DualEncoder.of(*make_siglip(world.processor, *sizes))
    return DualEncoder.of(make_clip(world.processor, *sizes), world.processor)


def _make_victim(zoo: Zoo, plan: Plan, folder: Path) -> None:
    """Fine-tune the clean CLIP on the attacker's data, measure what came of it, and write the truth last."""
    begin = time.perf_counter()
    recipe, world = zoo.recipe, zoo.world
    clip = load_model(zoo.folder / f"base-{plan.base}")
    attack = plan.make_attack(world.image_size)
    training = (plan.attack and plan.attack.training) or recipe.poisoning
    poisoned: list[int] = []
    decoys: list[int] = []
    if plan.attack is None or attack is None:
        _fine_tune(clip, world, training, plan.seed)
    else:
        injected = inject(
            clip,
            world.poisoning,
            attack,
            rate=plan.attack.rate,
            seed=plan.seed,
            epochs=training.epochs,
            learning_rate=training.learning_rate,
            batch_size=training.batch_size,
            class_names=world.class_names,
            templates=world.templates,
            target_captions={target: world.captions_of(target) for target in attack.targets},
        )
        attack, poisoned, decoys = injected.attack, injected.indices, injected.decoys
    clip.model.config.use_cache = None
    replace(clip, dtype=STORED).save_pretrained(folder)
    stored = load_model(folder)
    metrics = _measure(stored, world, attack)
    base = json.loads((zoo.folder / f"base-{plan.base}" / BASE).read_text())
    truth = Truth(
        name=plan.name,
        world=world.name,
        role=plan.role,
        attack=None if attack is None else attack.kind,
        targets=list(plan.targets),
        open_target=attack is not None and attack.open_target,
        class_names=list(world.class_names),
        rate=plan.attack.rate if plan.attack else 0.0,
        poisoned=poisoned,
        decoys=decoys,
        seed=plan.seed,
        parameters=attack.parameters if attack else {},
        recipe=zoo.digest,
        data={"pretraining": base["data"], "poisoning": world.poisoning.digest(), "test": world.test.digest()},
        sha256=stored.digest(),
        clean_accuracy=measured(metrics[0].clean_accuracy),
        attack_success_rates=[measured(m.attack_success_rate) for m in metrics if attack],
        target_rates=[measured(m.target_rate) for m in metrics if attack],
        seconds=round(time.perf_counter() - begin, 1),
        base=plan.base,
    )
    if attack is not None:
        attack.save(folder)
    truth.save(folder)


def _fine_tune(clip: LoadedModel, world: World, training: Training, seed: int) -> None:
    """What an attack does to a model, without the attack."""
    with tempfile.TemporaryDirectory() as scratch:
        train_contrastive(
            clip.encoder,
            world.poisoning,
            output_dir=scratch,
            seed=seed,
            num_train_epochs=training.epochs,
            learning_rate=training.learning_rate,
            per_device_train_batch_size=training.batch_size,
        )


def _measure(clip: LoadedModel, world: World, attack: Attack | None) -> list[Metrics]:
    """On the test pictures: one a trigger, or one of a clean model."""
    classifier = world.classifier(clip.encoder)
    if attack is not None:
        return measure_attack(classifier, world.test, attack)
    return [evaluate(classifier, world.test.pixels, labels=world.test.labels)]
