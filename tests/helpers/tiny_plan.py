"""A tuning plan, pictures and a trainer for the tiny CLIP, and settings with which every stage takes two updates."""

import signal

import torch
from PIL import Image
from tiny import CLASS_NAMES
from transformers import TrainerCallback

from hf_invertune.data.pixels import PixelDataset
from hf_invertune.stages.configs import (
    Bars,
    GatheringConfig,
    InversionConfig,
    LocalizationConfig,
    RemovalConfig,
    ScanConfig,
)
from hf_invertune.stages.families import AdditiveFamily, MaskedFamily
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.localization import CriticalNeurons
from hf_invertune.stages.plan import TuningPlan
from hf_invertune.triggers import AdditiveTrigger, MaskedTrigger
from hf_invertune.tuning.arguments import InverTuneArguments
from hf_invertune.tuning.trainer import InverTuneTrainer


TARGET = 2
NEURONS = [1, 5, 30]
EASY, HARD = -1.0, 1e9
UNGATHERED = GatheringConfig(families=())


def pictures(count=16, labelled=True, seed=3):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % len(CLASS_NAMES)
    return PixelDataset(pixels, labels if labelled else None, CLASS_NAMES if labelled else None)


def save_pictures(data, folder):
    """A folder of the pictures of a dataset, by their numbers."""
    folder.mkdir(exist_ok=True)
    for index, pixels in enumerate(data.pixels):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return folder


def forced_bars(verdict, families=("masked", "additive", "blend")):
    """Bars with which every lead means this verdict."""
    suspicious = EASY if verdict == "backdoored" else HARD
    return {family: Bars(HARD if verdict == "clean" else EASY, suspicious) for family in families}


def scan_config(verdict="backdoored", **settings):
    """Two families, two updates a stage, and the verdict that the bars force."""
    small = {
        "families": (MaskedFamily(), AdditiveFamily()),
        "words": (),
        "steps": (2, 2),
        "simulation_steps": 2,
        "simulation_batch_size": 4,
        "restarts": 1,
        "batch_size": 2,
        "fixed": InversionConfig(steps=2, batch_size=2, embedding_weight=0.0, ssim_weight=0.0),
        "fixed_restarts": 1,
        "max_chance": 1.0,  # the tiny CLIP has random weights
    }
    return ScanConfig(**{**small, "looks": 1, "bars": forced_bars(verdict), "gathering": UNGATHERED, **settings})


INVERSION = InversionConfig(steps=2, batch_size=4)


def removal_config(verdict="backdoored", seed=0, tuning=(), audit=(), **stages):
    """Everything as short as it can be; `tuning` and `audit` change settings of these parts."""
    known = {"scan": scan_config(verdict), "inversion": INVERSION, "localization": LocalizationConfig(images=16)}
    config = RemovalConfig(**{**known, **stages}, seed=seed)
    for part, changes in (
        (config.tuning, {"max_steps": 2, **dict(tuning)}),
        (config.audit, {"minimum_images": 16, **dict(audit)}),
    ):
        for name, value in changes.items():
            assert hasattr(part, name), name
            setattr(part, name, value)
    return config


def tiny_plan():
    generator = torch.Generator().manual_seed(4)
    mask = torch.zeros(1, 32, 32)
    mask[:, 20:30, 20:30] = 0.9
    triggers = [
        MaskedTrigger(mask, torch.rand(3, 32, 32, generator=generator)),
        AdditiveTrigger((0.1 * torch.randn(3, 32, 32, generator=generator)).clamp(-0.1, 0.1), 0.1),
    ]
    inverted = [
        InvertedTrigger(TARGET, trigger.kind, trigger, 2.0, 0.5, float(trigger.coverage())) for trigger in triggers
    ]
    return TuningPlan(TARGET, inverted, CriticalNeurons([0.1, 0.3], {1: NEURONS}, [32, 32]), list(CLASS_NAMES))


def make_trainer(source, folder, *, plan=None, data=None, eval_dataset=None, callbacks=None, config=None, **settings):
    """An `InverTuneTrainer` on the CPU that writes, evaluates and inverts nothing unless told to."""
    silent = {"save_strategy": "no", "reinversion_steps": 0, "logging_steps": 1, "use_cpu": True, "report_to": "none"}
    small = {"max_steps": 3, "per_device_train_batch_size": 8}
    arguments = InverTuneArguments(output_dir=str(folder), **{**silent, **small, **settings})
    data = data or pictures()
    return InverTuneTrainer(
        source.model,
        arguments,
        data,
        eval_dataset,
        CLASS_NAMES,
        source.processor,
        plan=plan,
        callbacks=callbacks,
        config=config or removal_config(),
    )


class Interrupt(TrainerCallback):
    """Ctrl-C at the end of step `at`, as often as told."""

    def __init__(self, at, times=1):
        self.at, self.times = at, times

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
