"""A zoo of tiny models for the tests of the arena, with defences that take no time."""

import copy
import time
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace

import torch
from tiny import CLASS_NAMES, save_tiny

from hf_invertune.data.prompts import TEMPLATES
from hf_invertune.lab.attacks.attack import Attack
from hf_invertune.lab.baselines.defence import Defence, Defended
from hf_invertune.lab.contrastive import CaptionedPixels
from hf_invertune.lab.zoo.victim import Truth, Victim
from hf_invertune.lab.zoo.worlds import Splits
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.evaluation import Rate
from hf_invertune.models.loading import load_model
from hf_invertune.stages.verdict import Verdict
from hf_invertune.triggers import PatchTrigger


def pairs(count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return CaptionedPixels(pixels, [f"a photo of a {CLASS_NAMES[label]}" for label in labels.tolist()], labels=labels)


class FakeVictim(Victim):
    """Its model comes from memory."""

    def load(self):
        return copy.deepcopy(_load(self.folder))


_load = cache(load_model)


class FakeWorld:
    name, class_names, templates = "noise", CLASS_NAMES, TEMPLATES
    splits = Splits(pretraining=32, poisoning=1, cleaning=20, validation=12, test=24)

    @cached_property
    def cleaning(self):
        return pairs(20, 1)

    @cached_property
    def test(self):
        return pairs(24, 2)

    @cached_property
    def validation(self):
        return pairs(12, 4)

    @cached_property
    def pretraining(self):
        return pairs(32, 3)

    @cached_property
    def poisoning(self):
        return pairs(1, 5)

    def classifier(self, encoder):
        return ZeroShotClassifier(encoder, self.class_names, self.templates)

    def captions_of(self, target):
        return [f"a photo of a {target}"]


@dataclass
class FakeZoo:
    folder: Path
    world: FakeWorld = field(default_factory=FakeWorld)

    @property
    def recipe(self):
        plans = [SimpleNamespace(name=one.truth.name, role=one.truth.role) for one in self.victims]
        return SimpleNamespace(plans=lambda: plans)

    @property
    def victims(self):
        return [FakeVictim.open(folder) for folder in sorted(self.folder.iterdir())]


def make_zoo(folder):
    """Two victims that took, one that did not, a clean model and a validation victim, all with the same weights."""
    for name, asr, role in (
        ("badnet-0", 20, "table"),
        ("badnet-1", 18, "table"),
        ("clean-0", None, "table"),
        ("sig-0", 3, "table"),
        ("badnet-100", 20, "validation"),
    ):
        save_tiny(folder / name)
        attack = None if asr is None else name.split("-")[0]
        if attack:
            trigger = PatchTrigger(torch.ones(3, 8, 8), 24, 24)
            Attack(attack, [trigger], [CLASS_NAMES[1]]).save(folder / name)
        Truth(
            name=name,
            world="noise",
            role=role,
            attack=attack,
            targets=[CLASS_NAMES[1]] if attack else [],
            open_target=False,
            class_names=list(CLASS_NAMES),
            rate=0.1 if attack else 0.0,
            poisoned=[],
            seed=int(name.split("-")[1]),
            parameters={},
            recipe="r" * 64,
            data={name: getattr(FakeWorld(), name).digest() for name in ("pretraining", "poisoning", "test")},
            sha256="s" * 64,
            clean_accuracy=Rate(5, 20),
            attack_success_rates=[Rate(asr, 20)] if attack else [],
            target_rates=[Rate(1, 20)] if attack else [],
            seconds=0.0,
        ).save(folder / name)
    return FakeZoo(folder)


class Shake(Defence):
    """Moves the weights by its seed, and says what it found."""

    name, grid, minimum_images = "shake", (0.1, 1.0), 2

    def treat(self, clip, data, class_names, found):
        with torch.no_grad():
            for parameter in clip.model.vision_model.parameters():
                parameter += self.learning_rate * torch.randn_like(parameter)
        trigger = PatchTrigger(torch.zeros(3, 8, 8), 0, 0)
        return Defended(clip.model, Verdict.BACKDOORED, class_names[2], trigger, {"images": len(data)})


class Keep(Defence):
    name, nap = "keep", 0.0

    def treat(self, clip, data, class_names, found):
        time.sleep(self.nap)
        return Defended(clip.model)


class Diverge(Defence):
    name = "diverge"

    def treat(self, clip, data, class_names, found):
        raise FloatingPointError("the loss is not finite")


class Explode(Defence):
    """Hands back what reads every picture as the first label."""

    name = "explode"

    def treat(self, clip, data, class_names, found):
        clip.model.visual_projection.weight.data.fill_(float("nan"))
        return Defended(clip.model)


class Troubled(Defence):
    name, trouble = "troubled", None

    def treat(self, clip, data, class_names, found):
        raise self.trouble


DEFENCES = {"keep": Keep, "shake": Shake}
