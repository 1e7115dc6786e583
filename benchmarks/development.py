"""What the scripts on victims for development have in common: the zoo, its clean pictures, and the attack's own triggers."""

import argparse
import dataclasses

import torch

from hf_invertune import BackdoorRemover, Zoo
from hf_invertune.data.pixels import PixelDataset
from hf_invertune.lab.attacks.measure import measure_attack
from hf_invertune.lab.zoo.victim import Victim
from hf_invertune.lab.zoo.worlds import World
from hf_invertune.utils.runtime import keep_freed_memory


IMAGES, TEST_IMAGES = 500, 1000
RATES = ("attack_success_rate", "target_rate", "clean_accuracy", "poisoned_accuracy")


def zoo_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows the zoo and its pictures."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("zoo")
    parser.add_argument("--train", help="the training pictures, in place of those the zoo's recipe names")
    parser.add_argument("--test", help="the test pictures, likewise")
    return parser


def open_zoo(options: argparse.Namespace) -> tuple[World, dict[str, Victim]]:
    """The world of the zoo that a [`zoo_parser`] was given, and its models by name; from now on there is one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    zoo = Zoo.open(options.zoo)
    given = {"train": options.train, "test_source": options.test}
    world = dataclasses.replace(zoo.world, **{name: path for name, path in given.items() if path})
    return world, {victim.truth.name: victim for victim in zoo.victims}


def cleaning_data(world: World) -> PixelDataset:
    """The clean pictures of a scan."""
    drawn = torch.randperm(len(world.cleaning), generator=torch.Generator().manual_seed(0))[:IMAGES]
    return world.cleaning.images(world.class_names).subset(drawn)


def measured_attack(world: World, victim: Victim, remover: BackdoorRemover) -> list[dict[str, float]]:
    """Rates of the attack's own triggers on the model as it stands, one entry a target; none on a clean one."""
    if victim.truth.attack is None:
        return []
    test = world.test.subset(torch.arange(TEST_IMAGES))
    metrics = measure_attack(world.classifier(remover.source.encoder), test, victim.attack())
    return [{name: round(getattr(one, name).value, 4) for name in RATES} for one in metrics]
