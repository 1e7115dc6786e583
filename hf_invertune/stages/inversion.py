"""Stage 2: reconstruct the trigger of one label, or of many labels in one batch, by gradient descent on its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from ..data.pixels import as_float
from ..models.classifier import ZeroShotClassifier
from ..triggers import Trigger
from ..utils.memory import halving
from ..utils.progress import progress
from ..utils.storage import Saved
from .configs import InversionConfig
from .families import TriggerFamily


WORKING = 1.0
"""Cross-entropy in nats below which an inverted trigger works. Squares that complete a trigger in the text reached .57 and
.63 on pictures that they were not learnt on, and 1.26 at the least on models without one."""


@dataclass
class InvertedTrigger(Saved):
    """A trigger that makes the model read images as `label`.

    Attributes:
        label (`int`): index of the label among the class names.
        family (`str`): the kind of its family.
        trigger (`Trigger`): the trigger itself.
        objective (`float`): the inversion's loss, mean over the last quarter of the updates: the lower, the cheaper it
            is to be read as this label. After a race at one budget: the cross-entropy on pictures not learnt on.
        cross_entropy (`float`): its InfoNCE term in nats, unweighted, over the same updates.
        coverage (`float`): how much of its room the trigger uses, see [`Trigger.coverage`].
        word (`str`, *optional*): what stands before captions and prompts when the trigger acts.
    """

    label: int
    family: str
    trigger: Trigger
    objective: float
    cross_entropy: float
    coverage: float
    word: str | None = None

    def describe(self) -> str:
        """The trigger in a few words."""
        word = "" if self.word is None else f", with a word such as {self.word!r} before the caption"
        return self.trigger.describe(self.coverage) + word


class TriggerInverter:
    """Inverts triggers of one family, for any number of labels side by side.

    Args:
        classifier ([`ZeroShotClassifier`]): the suspicious model and K names.
        family ([`TriggerFamily`]): what the triggers look like.
        config ([`InversionConfig`], *optional*): settings.
        seed (`int`): seed of the first values and of the batches.
        word (`str`, *optional*): what stands before every prompt, where the trigger acts together with a word.
    """

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        family: TriggerFamily,
        config: InversionConfig | None = None,
        seed: int = 0,
        word: str | None = None,
    ):
        self.classifier, self.family, self.word = classifier.after(word), family, word
        self.config, self.seed = config or InversionConfig(), seed

    def invert(
        self, pixels: Tensor, labels: Sequence[int], *, start: Sequence[Trigger | None] = ()
    ) -> list[InvertedTrigger]:
        """Invert one trigger for each of `labels`, all in one batch.

        When memory runs out, the batch is halved and the inversion starts again.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8; any classes.
            labels (`Sequence[int]`): the labels to reach.
            start (`Sequence[Trigger | None]`): for each label the trigger of this family to go on from, or `None` for a
                random start; empty when all start at random.

        Raises:
            FloatingPointError: when the loss is not finite.
        """
        attempt = halving(self._invert, self.config.batch_size)
        with self.classifier.encoder.frozen():
            result: list[InvertedTrigger] = attempt(pixels, list(labels), start)
        return result

    def _invert(
        self, batch_size: int, pixels: Tensor, labels: list[int], start: Sequence[Trigger | None]
    ) -> list[InvertedTrigger]:
        config, family, device = self.config, self.family, self.classifier.encoder.device
        generator = torch.Generator().manual_seed(self.seed)
        first = family.parameters(len(labels), pixels.shape[-2:], generator, start)
        parameters = [value.to(device).requires_grad_() for value in first]
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, betas=(0.5, 0.9))
        tail = max(1, config.steps // 4)
        sums = torch.zeros(2, len(labels), device=device)
        bar = progress(range(config.steps), f"Inverting {len(labels)} {family.kind} trigger(s)")
        for step in bar:
            chosen = torch.randint(len(pixels), (batch_size,), generator=generator)
            clean = as_float(pixels[chosen]).to(device).unsqueeze(0)
            loss, entropy = self._loss(clean, family.trigger(parameters), labels)
            if not bool(loss.isfinite().all()):
                raise FloatingPointError(f"The inversion's loss is {loss.tolist()} at step {step}; lower the rate.")
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            if step >= config.steps - tail:
                sums += torch.stack([loss.detach(), entropy.detach()]) / tail
        with torch.no_grad():
            final = family.trigger(parameters)
        objectives, entropies = sums.tolist()
        figures = zip(labels, final.split(), objectives, entropies, final.coverage().tolist(), strict=True)
        return [
            InvertedTrigger(label, family.kind, trigger, objective, entropy, coverage, self.word)
            for label, trigger, objective, entropy, coverage in figures
        ]

    def _loss(self, clean: Tensor, trigger: Trigger, labels: list[int]) -> tuple[Tensor, Tensor]:
        """The loss and its cross-entropy, each a vector over the labels."""
        config, head = self.config, self.classifier.head
        triggered = trigger(clean)
        embeddings = self.classifier.encoder.embed_images(triggered)
        entropy = info_nce(self.classifier.logits(embeddings), labels)
        loss = config.info_nce_weight * entropy
        if config.embedding_weight:
            loss = loss + config.embedding_weight * (embeddings - head[labels].unsqueeze(1)).norm(dim=-1).mean(1)
        if config.ssim_weight:
            loss = loss + config.ssim_weight * dissimilarity(triggered, clean)
        return loss + self.family.penalty(trigger), entropy


def info_nce(logits: Tensor, labels: Sequence[int]) -> Tensor:
    """Cross-entropy of cos(f(x'), W) / 0.07 against each label, in nats: L x N x K logits give L."""
    wanted = torch.tensor(labels, device=logits.device).repeat_interleave(logits.shape[1])
    return cross_entropy(logits.flatten(0, 1), wanted, reduction="none").view(logits.shape[:2]).mean(1)


@torch.no_grad()
def held_out(classifier: ZeroShotClassifier, inverted: InvertedTrigger, pixels: Tensor) -> float:
    """The cross-entropy in nats, at least 1e-6, of a trigger's label on `pixels` that it was not learnt on."""
    encoder = classifier.encoder
    embeddings = encoder.embed_pixels(pixels, inverted.trigger.on(encoder.device))
    return max(float(info_nce(classifier.logits(embeddings).unsqueeze(0), [inverted.label])), 1e-6)


def dissimilarity(triggered: Tensor, clean: Tensor) -> Tensor:
    """1 - SSIM(x', x) with data range 1: L x N x 3 x H x W and 1 x N x 3 x H x W give L."""
    pairs = clean.expand_as(triggered).flatten(0, 1)
    values = ssim(triggered.flatten(0, 1), pairs, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return 1 - values.view(triggered.shape[:2]).mean(1)
