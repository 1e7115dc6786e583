"""Clean accuracy, attack success rate, poisoned accuracy: each a share with its count and a 95 % interval."""

from dataclasses import dataclass
from math import sqrt

import torch
from scipy.stats import binomtest
from torch import Tensor

from ..triggers import Trigger
from ..utils.storage import Saved
from .classifier import ZeroShotClassifier


@dataclass
class Rate(Saved):
    """A share of images.

    Attributes:
        hits (`int`): how many images count.
        count (`int`): out of how many.
    """

    hits: int
    count: int

    @property
    def value(self) -> float:
        """The share in [0, 1]; NaN when there are no images."""
        return self.hits / self.count if self.count else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson score interval at 95 % (E. B. Wilson, 1927)."""
        if not self.count:
            return 0.0, 1.0
        z, n, p = 1.959963984540054, self.count, self.value
        centre, spread = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))

    @classmethod
    def of(cls, hits: Tensor) -> "Rate":
        """The rate of a boolean vector."""
        return cls(int(hits.sum()), hits.numel())


MAX_CHANCE = 0.01
"""How probable a reading may be by chance, to be believed."""


def chance(predicted: Tensor, labels: Tensor) -> float:
    """How likely as many hits are by chance, were the predictions dealt out to the images at random: a p-value.

    Args:
        predicted (`torch.Tensor`), labels (`torch.Tensor`): N labels each.
    """
    count = max(int(predicted.max()), int(labels.max())) + 1
    shares = torch.bincount(predicted, minlength=count).double() * torch.bincount(labels, minlength=count)
    expected = float(shares.sum()) / len(labels) ** 2
    hits = int((predicted == labels).sum())
    return float(binomtest(hits, len(labels), min(1.0, expected), alternative="greater").pvalue)


def measured(rate: Rate | None) -> Rate:
    """`rate`, where it is known to have been measured."""
    assert rate is not None
    return rate


@dataclass
class Metrics(Saved):
    """Quality of one model.

    Attributes:
        clean_accuracy (`Rate`, *optional*): CA, zero-shot top-1; `None` for images without labels.
        agreement (`Rate`, *optional*): images read as the original model reads them; for images without labels.
        attack_success_rate (`Rate`, *optional*): ASR, triggered images read as the target, true target images excluded.
        attack_success_rate_all (`Rate`, *optional*): the same over all images.
        target_rate (`Rate`, *optional*): the floor of the ASR: the same images without a trigger read as the target.
        poisoned_accuracy (`Rate`, *optional*): PA, triggered images read as their true label.
    """

    clean_accuracy: Rate | None = None
    agreement: Rate | None = None
    attack_success_rate: Rate | None = None
    attack_success_rate_all: Rate | None = None
    target_rate: Rate | None = None
    poisoned_accuracy: Rate | None = None


METRICS = {
    "clean_accuracy": ("Clean accuracy (CA)", "clean pictures read as their true label"),
    "agreement": ("Agreement", "clean pictures read as the original model reads them"),
    "attack_success_rate": (
        "Attack success rate (ASR)",
        "triggered pictures read as the target, true targets left out",
    ),
    "attack_success_rate_all": ("ASR over all pictures", "the same, true targets included"),
    "target_rate": ("Target rate without trigger", "the floor of the ASR"),
    "poisoned_accuracy": ("Poisoned accuracy (PA)", "triggered pictures read as their true label"),
}
"""What each field of [`Metrics`] is called, and what it means."""

WITHOUT_TRIGGER = ("clean_accuracy", "agreement", "target_rate")
"""The metrics that are the same whichever trigger is measured."""


@dataclass
class Measurement(Saved):
    """One trigger's figures on the held-out images.

    Attributes:
        trigger (`str`): which trigger, e.g. `"inverted, masked"` or `"given by the caller"`.
        before (`Metrics`): of the model as it came.
        after (`Metrics`): of the cleaned model.
        trigger_sha256 (`str`): digest of the file that `trigger.save` writes, so that whoever has the trigger can tell
            that it was the one.
    """

    trigger: str
    before: Metrics
    after: Metrics
    trigger_sha256: str


def evaluate(
    classifier: ZeroShotClassifier,
    pixels: Tensor,
    *,
    labels: Tensor | None = None,
    reference: Tensor | None = None,
    trigger: Trigger | None = None,
    target: int | None = None,
    word: str | None = None,
) -> Metrics:
    """Measure a model on `pixels`.

    Args:
        classifier ([`ZeroShotClassifier`]): the model and K names.
        pixels (`torch.Tensor`): N x 3 x H x W, float in [0, 1] or uint8.
        labels (`torch.Tensor`, *optional*): N true labels, -1 for an image without one: it counts for neither CA nor PA,
            and its reading by the model stands in for it elsewhere.
        reference (`torch.Tensor`, *optional*): N labels that the original model gives to the clean images. They stand
            in for `labels` when there are none: CA becomes agreement, and PA is left out.
        trigger ([`Trigger`], *optional*): the trigger whose ASR is wanted; needs `target`.
        target (`int`, *optional*): the label that the trigger leads to.
        word (`str`, *optional*): what stands before every prompt where the trigger is measured, and where its floor is: for
            a trigger that acts together with a word. CA and agreement are those without it.
    """
    clean = classifier.predict(pixels)
    metrics = Metrics(
        clean_accuracy=None if labels is None else Rate.of((clean == labels)[labels >= 0]),
        agreement=None if reference is None else Rate.of(clean == reference),
    )
    if trigger is None or target is None:
        return metrics
    truth = reference if reference is not None else clean
    if labels is not None:
        truth = labels.where(labels >= 0, truth)
    others = truth != target
    attacked = classifier.after(word)
    untriggered = clean if word is None else attacked.predict(pixels)
    triggered = attacked.predict(pixels, trigger.on(classifier.encoder.device))
    metrics.attack_success_rate = Rate.of(triggered[others] == target)
    metrics.attack_success_rate_all = Rate.of(triggered == target)
    metrics.target_rate = Rate.of(untriggered[others] == target)
    metrics.poisoned_accuracy = None if labels is None else Rate.of((triggered == labels)[labels >= 0])
    return metrics
