"""Stage 2: reconstruct the trigger of one label, or of many labels in one batch, by gradient descent on its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..models.classifier import ZeroShotClassifier
from ..triggers import Trigger
from ..utils.storage import Saved
from .configs import InversionConfig
from .descent import Descent
from .families import TriggerFamily
from .similarity import dissimilarity


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
        """Invert one trigger for each of `labels`, side by side.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8; any classes.
            labels (`Sequence[int]`): the labels to reach.
            start (`Sequence[Trigger | None]`): for each label the trigger of this family to go on from, or `None` for a
                random start; empty when all start at random.

        Raises:
            FloatingPointError: when the loss is not finite.
        """
        config, encoder = self.config, self.classifier.encoder
        descent = Descent(
            encoder,
            self.family,
            f"Inverting {len(labels)} {self.family.kind} trigger(s)",
            config.steps,
            config.batch_size,
            config.learning_rate,
            betas=(0.5, 0.9),
        )

        def figures(clean: Tensor, trigger: Trigger, rows: list[int]) -> Tensor:
            return self._figures(clean, trigger, [labels[row] for row in rows])

        generator = torch.Generator().manual_seed(self.seed)
        with encoder.frozen():
            learnt = descent.run(pixels, start, len(labels), generator, figures)
        return [
            InvertedTrigger(label, self.family.kind, trigger, objective, entropy, float(trigger.coverage()), self.word)
            for label, (trigger, (objective, entropy)) in zip(labels, learnt, strict=True)
        ]

    def _figures(self, clean: Tensor, trigger: Trigger, labels: list[int]) -> Tensor:
        """2 x L: the loss of each trigger towards its label, and the cross-entropy in it."""
        config, head = self.config, self.classifier.head
        triggered = trigger(clean)
        embeddings = self.classifier.encoder.embed_images(triggered)
        entropy = info_nce(self.classifier.logits(embeddings), labels)
        loss = config.info_nce_weight * entropy
        if config.embedding_weight:
            loss = loss + config.embedding_weight * (embeddings - head[labels].unsqueeze(1)).norm(dim=-1).mean(1)
        if config.ssim_weight:
            loss = loss + config.ssim_weight * dissimilarity(triggered, clean)
        return torch.stack([loss + self.family.penalty(trigger), entropy])


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
