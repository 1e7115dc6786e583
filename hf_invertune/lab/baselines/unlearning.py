"""Unlearning after Neural Cleanse: invert a mask for every label, suspect the smallest, and train its trigger away."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...data.pixels import as_float, as_uint8
from ...models.classifier import ZeroShotClassifier
from ...models.loading import LoadedModel
from ...stages.inversion import info_nce
from ...stages.verdict import Verdict
from ...triggers import MaskedTrigger
from ...utils.memory import halving
from ...utils.progress import progress
from ..contrastive import CaptionedPixels
from .defence import Defence, Defended
from .fine_tuning import LEARNING_RATES, MINIMAL_PAIRS, tune_on_captions


UPDATES, LOOK, BATCH_SIZE = 250, 5, 8
"""Updates of the inversion, after how many the cost is looked at, and images an update and a label."""
FIRST_COST, COST_MULTIPLIER, PATIENCE, SUCCESS = 1.0, 1.5, 3, 0.99
"""First cost of the mean of the mask (0.001 a pixel at 32x32), its factor, after how many looks, and the success kept."""
ANOMALOUS = 2.0
"""Anomaly index above which a label counts as a backdoor's target."""
STAMPED = 0.2
"""Share of the clean pictures that get the inverted trigger."""


@dataclass
class MaskInversion:
    """Masks of all labels.

    Attributes:
        triggers (`list[MaskedTrigger]`): for each label the one with the smallest mask that succeeded; for a label that
            was never reached a mask over the whole image.
        sizes (`list[float]`): the mean of each mask, in [0, 1].
    """

    triggers: list[MaskedTrigger]
    sizes: list[float]


def invert_masks(classifier: ZeroShotClassifier, pixels: Tensor, seed: int) -> MaskInversion:
    """Minimise CE + cost * mean(m) for all labels in one batch, each with a cost of its own (Neural Cleanse).

    The cost of a label rises by [`COST_MULTIPLIER`] after [`PATIENCE`] looks in a row at which its success was at least
    [`SUCCESS`], and falls by its power 3/2 after as many at which it was not. When memory runs out, the batch is halved.
    """
    with classifier.encoder.frozen():
        inversion: MaskInversion = halving(_invert_masks, BATCH_SIZE)(classifier, pixels, seed)
    return inversion


def _invert_masks(batch_size: int, classifier: ZeroShotClassifier, pixels: Tensor, seed: int) -> MaskInversion:
    encoder, generator, count = classifier.encoder, torch.Generator().manual_seed(seed), len(classifier)
    device = encoder.device
    labels, size = list(range(count)), pixels.shape[-2:]
    logits = [
        torch.randn(count, 1, channels, *size, generator=generator).to(device).requires_grad_() for channels in (1, 3)
    ]
    optimizer = torch.optim.Adam(logits, lr=0.1, betas=(0.5, 0.9))
    wanted = torch.arange(count, device=device).unsqueeze(1)
    cost, hits = torch.full((count,), FIRST_COST, device=device), torch.zeros(count, device=device)
    streaks = torch.zeros(2, count, device=device)
    best, best_sizes = [torch.ones_like(logits[0]), logits[1].detach().sigmoid()], torch.ones(count, device=device)
    for step in progress(range(1, UPDATES + 1), f"Inverting {count} masks"):
        chosen = torch.randint(len(pixels), (batch_size,), generator=generator)
        mask, pattern = (value.sigmoid() for value in logits)
        embeddings = encoder.embed_images(
            MaskedTrigger(mask, pattern).stamp(as_float(pixels[chosen]).to(device)[None])
        )
        similarities = classifier.logits(embeddings)
        loss = info_nce(similarities, labels) + cost * mask.flatten(1).mean(1)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        hits = hits + (similarities.argmax(-1) == wanted).float().mean(1) / LOOK
        if step % LOOK == 0:
            succeeded, sizes = hits >= SUCCESS, mask.detach().flatten(1).mean(1)
            better = succeeded & (sizes < best_sizes)
            best_sizes = torch.where(better, sizes, best_sizes)
            for kept, value in zip(best, (mask, pattern), strict=True):
                kept[better] = value.detach()[better]
            streaks = (streaks + 1) * torch.stack([succeeded, ~succeeded])
            up, down = streaks >= PATIENCE
            cost = torch.where(up, cost * COST_MULTIPLIER, torch.where(down, cost / COST_MULTIPLIER**1.5, cost))
            streaks, hits = streaks * ~(up | down), torch.zeros_like(hits)
    triggers = [MaskedTrigger(mask[0].cpu(), pattern[0].cpu()) for mask, pattern in zip(*best, strict=True)]
    return MaskInversion(triggers, best_sizes.tolist())


def anomaly_indices(sizes: Sequence[float]) -> list[float]:
    """How many 1.4826 MAD each size lies below the median of all; negative above it, 0 when the MAD is 0."""
    values = torch.tensor(sizes, dtype=torch.float64)
    below = values.quantile(0.5) - values
    spread = 1.4826 * below.abs().quantile(0.5)
    return (below / spread if spread > 0 else torch.zeros_like(below)).tolist()


def stamp_some(data: CaptionedPixels, trigger: MaskedTrigger, seed: int, share: float = STAMPED) -> CaptionedPixels:
    """The same pairs with the trigger on a share of the pictures; captions and groups stay."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data), generator=generator)[: round(share * len(data))]
    pixels = data.pixels.clone()
    pixels[chosen] = as_uint8(trigger(as_float(pixels[chosen])))
    return replace(data, pixels=pixels)


class NeuralCleanseUnlearning(Defence):
    """Neural Cleanse (Wang et al., IEEE S&P 2019) and its patching by unlearning, with the CLIP loss.

    It always unlearns: the label with the smallest mask, even when no label is anomalous.
    """

    name = "Neural Cleanse unlearning"
    grid = LEARNING_RATES
    minimum_images = MINIMAL_PAIRS

    def examine(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str]) -> MaskInversion:
        return invert_masks(ZeroShotClassifier(clip.encoder, class_names), data.pixels, self.seed)

    def treat(
        self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str], found: MaskInversion
    ) -> Defended:
        indices = anomaly_indices(found.sizes)
        target = min(range(len(class_names)), key=found.sizes.__getitem__)
        trigger = found.triggers[target]
        model = tune_on_captions(clip, stamp_some(data, trigger, self.seed), self.learning_rate, self.seed)
        return Defended(
            model,
            verdict=Verdict.BACKDOORED if indices[target] > ANOMALOUS else Verdict.CLEAN,
            target=class_names[target],
            trigger=trigger,
            details={
                "anomaly_index": indices[target],
                "mask_size": found.sizes[target],
            },
        )
