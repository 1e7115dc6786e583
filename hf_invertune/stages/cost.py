"""What a scan will cost: how many pictures and texts go through the model, how long that takes here, in how much memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..data.prompts import prompts
from ..models.encoder import DualEncoder
from ..models.room import bytes_kept, pictures_at_once
from .configs import ScanConfig
from .families import TriggerFamily
from .gathering import PROBED, TRIED, held_apart
from .text import few


@dataclass(frozen=True)
class Passes:
    """What goes through a model's towers.

    Attributes:
        learnt (`int`): pictures, with gradients back to their pixels.
        read (`int`): pictures, without.
        texts (`int`): texts.
        widest (`int`): the most pictures that gradients go through at once.
    """

    learnt: int = 0
    read: int = 0
    texts: int = 0
    widest: int = 0

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(
            self.learnt + other.learnt,
            self.read + other.read,
            self.texts + other.texts,
            max(self.widest, other.widest),
        )


def scan_passes(
    config: ScanConfig, images: int, names: int, templates: int, size: torch.Size, *, longest: bool = False
) -> Passes:
    """What a scan sends through a model: the least, when every race decides at its first look, or the most.

    Args:
        config ([`ScanConfig`]): settings.
        images (`int`), names (`int`), templates (`int`): how many it gets; without names nothing is raced.
        size (`torch.Size`): height and width of the images.
        longest (`bool`, *optional*): whether all looks are taken, and no leading labels are kin.
    """
    total = Passes()
    for family in config.gathering.families:
        total += _gathered(config, family, images)
    if not names:
        return total
    total += Passes(read=images if config.max_chance < 1 else 0, texts=names * templates)
    if config.words:
        under_words = names * len(config.words)
        total += Passes(texts=(under_words + names) * len(few(["{}"] * templates, under_words)))
    for family in config.families:
        total += _simulated(config, family, images, size)
        for _ in range(config.looks if longest else 1):
            total += look_passes(config, family, images, names, longest=longest)
    return total


def look_passes(
    config: ScanConfig, family: TriggerFamily, images: int, names: int, *, longest: bool = False
) -> Passes:
    """What one race of the labels in one family sends through a model; see [`scan_passes`]."""
    race = _raced if family.refined else _raced_at_one_budget
    return race(config, images, min(names, config.shortlist_size), longest)


def _updates(steps: int, batch: int) -> Passes:
    return Passes(learnt=steps * batch, widest=batch if steps else 0)


def _gathered(config: ScanConfig, family: TriggerFamily, images: int) -> Passes:
    settings, held = config.gathering, held_apart(images)
    probes = len(family.probes())
    count = min(probes, settings.probed) or settings.starts
    total = Passes(read=images + probes * min(PROBED, images - held))
    trial = min(settings.trial, settings.steps)
    total += _updates(trial, count * settings.batch_size)
    if trial < settings.steps:
        total += Passes(read=count * min(TRIED, images - held))
        count = min(count, settings.kept)
        total += _updates(settings.steps - trial, count * settings.batch_size)
    return total + Passes(read=count * held)


def _simulated(config: ScanConfig, family: TriggerFamily, images: int, size: torch.Size) -> Passes:
    places = len(family.perturbations(size, torch.Generator())[0])
    steps, batch = config.simulation_steps, config.simulation_batch_size
    return Passes(read=(1 + places) * images) + _updates(steps, places * batch)


def _raced(config: ScanConfig, images: int, labels: int, longest: bool) -> Passes:
    first, later = config.steps
    finalists = min(config.finalists, labels)
    rivals = min(config.rivals, finalists)
    behind = min(rivals - 1, finalists - rivals) if longest else 0
    rounds = ((first, labels * config.restarts + 1), (later, finalists), (later, rivals**2 + behind))
    return sum((_updates(steps, starts * config.batch_size) for steps, starts in rounds), Passes())


def _raced_at_one_budget(config: ScanConfig, images: int, labels: int, longest: bool) -> Passes:
    steps, batch = config.fixed.steps, config.fixed.batch_size
    trial, going = min(config.fixed_trial, steps), min(config.finalists, labels)
    total = _updates(trial, labels * config.fixed_restarts * batch) + Passes(read=labels * held_apart(images))
    if trial < steps:
        total += _updates(steps - trial, going * batch) + Passes(read=going * held_apart(images))
    return total


@dataclass(frozen=True)
class Pace:
    """How a model runs on its device, measured.

    Attributes:
        learnt (`float`), read (`float`), text (`float`): seconds that one takes, see [`Passes`].
        weights (`int`): bytes of the weights.
        picture (`int`): bytes that are kept of a picture until its gradient has been computed.
        most (`int`): pictures that gradients go through at once at most; more are learnt on in parts.
    """

    learnt: float
    read: float
    text: float
    weights: int
    picture: int
    most: int

    def minutes(self, passes: Passes) -> float:
        return (passes.learnt * self.learnt + passes.read * self.read + passes.texts * self.text) / 60

    def memory(self, passes: Passes) -> int:
        """Bytes of the weights and of what the widest update keeps; the triggers and the libraries come on top."""
        return self.weights + min(passes.widest, self.most) * self.picture


@dataclass(frozen=True)
class Estimate:
    """What a scan would cost on a device.

    Attributes:
        least ([`Passes`]), most ([`Passes`]): when each race decides at its first look, and when none does.
        pace ([`Pace`]): how the model runs.
        device (`str`): where.
    """

    least: Passes
    most: Passes
    pace: Pace
    device: str

    def describe(self) -> str:
        """The estimate on one line."""
        return describe_sum([self])


def describe_sum(estimates: Sequence[Estimate]) -> str:
    """What several scans cost, one after another, on one line."""
    if not estimates:
        return "nothing."
    least, most = (sum((getattr(one, name) for one in estimates), Passes()) for name in ("least", "most"))
    minutes = [sum(one.pace.minutes(getattr(one, name)) for one in estimates) for name in ("least", "most")]
    passes, shown = (
        f"{low} to {high}" if low != high else low
        for low, high in (
            (f"{least.learnt + least.read:,}", f"{most.learnt + most.read:,}"),
            tuple(map(_rounded, minutes)),
        )
    )
    memory = max(one.pace.memory(one.most) for one in estimates)
    devices = " and ".join(dict.fromkeys(one.device for one in estimates))
    return (
        f"{passes} pictures and {least.texts:,} texts through the model: about {shown} minutes on "
        f"{devices}, with {memory / 1e9:.1f} GB of memory."
    )


def _rounded(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 10 else f"{minutes:.1f}"


def estimate_scan(
    encoder: DualEncoder,
    config: ScanConfig,
    images: int,
    size: torch.Size,
    names: Sequence[str],
    templates: Sequence[str],
) -> Estimate:
    """What a scan would cost on the device of its model; see [`scan_passes`]."""
    least, most = (
        scan_passes(config, images, len(names), len(templates), size, longest=longest) for longest in (False, True)
    )
    text = prompts(max(names, key=len), templates)[0] if names else None
    pace = measure_pace(encoder, text, size)
    return Estimate(least, most, pace, str(encoder.device))


def measure_pace(encoder: DualEncoder, text: str | None, size: torch.Size, batch: int = 8) -> Pace:
    """Time a few passes.

    Args:
        encoder ([`DualEncoder`]): the model.
        text (`str`, *optional*): a typical text, where the model reads any.
        size (`torch.Size`): height and width of the images.
        batch (`int`): how many go at once.
    """
    pixels = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(encoder.device)

    def learn() -> None:
        encoder.embed_images(pixels.requires_grad_()).sum().backward()

    with encoder.frozen():
        learnt = _seconds(learn, encoder.device)
        read = _seconds(lambda: encoder.embed_pixels(pixels.detach()), encoder.device)
        texts = 0.0 if text is None else _seconds(partial(encoder.embed_texts, [text] * batch), encoder.device)
    held = sum(weight.nbytes for weight in encoder.model.parameters())
    most = pictures_at_once(encoder, size)
    return Pace(learnt / batch, read / batch, texts / batch, held, bytes_kept(encoder, size), most)


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Of the quickest of three, after one that does not count."""
    taken = []
    for _ in range(4):
        _wait(device)
        begin = time.perf_counter()
        run()
        _wait(device)
        taken.append(time.perf_counter() - begin)
    return min(taken[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
