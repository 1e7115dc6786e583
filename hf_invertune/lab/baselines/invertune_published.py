"""InverTune as its authors published it: no verdict, no verification, no embedding term, all the weights."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments, default_data_collator, set_seed

from ...data.pixels import as_float
from ...models.classifier import ZeroShotClassifier
from ...models.encoder import DualEncoder
from ...models.loading import LoadedModel
from ...stages.configs import LocalizationConfig, ScanConfig
from ...stages.families import MaskedFamily
from ...stages.inversion import dissimilarity, info_nce
from ...stages.localization import CriticalNeurons, NeuronLocalizer
from ...stages.simulation import Simulator
from ...triggers import MaskedTrigger, Trigger
from ...tuning.callbacks import show_one_bar
from ...utils.progress import progress
from ..contrastive import CaptionedPixels
from .defence import Defence, Defended
from .fine_tuning import LEARNING_RATES


BATCH_SIZE, UPDATES = 64, 200
"""Images of a batch of the simulation and of the inversion, and of the one that the tuning sees; updates of each."""
PATCH = (172, 38, 224)
"""First row and column of the universal patch, its side, and the side of the image for which these were chosen."""
INFO_NCE_WEIGHT, EMBEDDING_WEIGHT, SSIM_WEIGHT, MASK_WEIGHT = 5.0, 0.5, 1.0, 0.01
"""Weights of the inversion's terms."""
PRESERVE_WEIGHT = 0.5


def patch_place(size: int) -> Tensor:
    """Mask (1 x 1 x 1 x size x size) of the universal patch: 3 % of the image, near the lower right corner."""
    first, side, published = PATCH
    start, side = round(first / published * size), round(side / published * size)
    place = torch.zeros(1, 1, 1, size, size)
    place[..., start : start + side, start : start + side] = 1
    return place


class PublishedPatch(MaskedFamily):
    """The masked family with its universal perturbation at the [`patch_place`]."""

    def perturbations(
        self, size: torch.Size, generator: torch.Generator
    ) -> tuple[Tensor, Callable[[Tensor], Trigger]]:
        place = patch_place(size[-1])
        first = torch.randn(1, 1, 3, *size, generator=generator)
        return first, lambda variable: MaskedTrigger(place.to(variable.device), variable.sigmoid())


def images_of_target(classifier: ZeroShotClassifier, pixels: Tensor, target: int) -> Tensor:
    """Which of the images (N x 3 x H x W) stand for the target's: those that are read as it, or the one nearest to it."""
    labels, encoder = classifier.predict(pixels), classifier.encoder
    with encoder.frozen():
        similarity = encoder.embed_pixels(pixels) @ classifier.head[target]
    return (labels == target).cpu() if (labels == target).any() else (similarity == similarity.max()).cpu()


def inversion_loss(
    embeddings: Tensor,
    logits: Tensor,
    target: int,
    target_embeddings: Tensor,
    triggered: Tensor,
    clean: Tensor,
    mask: Tensor,
) -> Tensor:
    """5 InfoNCE + 0.5 ||f(x') - f(x_y)|| + (1 - SSIM(x', x)) + 0.01 ||m||_1, each as in the authors' code.

    Args:
        embeddings (`torch.Tensor`): N x D, of the triggered images.
        logits (`torch.Tensor`): N x K, of the same images.
        target (`int`): index of the target label.
        target_embeddings (`torch.Tensor`): N x D, of images of the target; the norm is over the whole batch.
        triggered, clean (`torch.Tensor`): N x 3 x H x W in [0, 1].
        mask (`torch.Tensor`): 1 x H x W; its norm is that of the three equal channels that the authors' mask has.
    """
    return (
        INFO_NCE_WEIGHT * info_nce(logits[None], [target])[0]
        + EMBEDDING_WEIGHT * (embeddings - target_embeddings).norm()
        + SSIM_WEIGHT * dissimilarity(triggered[None], clean[None])[0]
        + MASK_WEIGHT * 3 * mask.abs().sum()
    )


def invert(classifier: ZeroShotClassifier, pixels: Tensor, target: int, seed: int) -> MaskedTrigger:
    """Optimise mask and pattern themselves by Adam, clamped to [0, 1] after each update; the mask starts from 1."""
    encoder, generator = classifier.encoder, torch.Generator().manual_seed(seed)
    device = encoder.device
    of_target = images_of_target(classifier, pixels, target)
    others, examples = pixels[~of_target] if not of_target.all() else pixels, pixels[of_target][:BATCH_SIZE]
    count = min(BATCH_SIZE, len(others))
    mask = torch.ones(1, *pixels.shape[-2:], device=device, requires_grad=True)
    pattern = torch.rand(3, *pixels.shape[-2:], generator=generator).to(device).requires_grad_()
    optimizer = torch.optim.Adam([mask, pattern], lr=0.01)
    with encoder.frozen():
        anchors = encoder.embed_batches([as_float(examples)])[torch.arange(count) % len(examples)]
        for _ in progress(range(UPDATES), "Inverting as published"):
            clean = as_float(others[torch.randperm(len(others), generator=generator)[:count]]).to(device)
            triggered = MaskedTrigger(mask, pattern).stamp(clean)
            embeddings = encoder.embed_images(triggered)
            logits = classifier.logits(embeddings)
            loss = inversion_loss(embeddings, logits, target, anchors, triggered, clean, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
                pattern.clamp_(0, 1)
    return MaskedTrigger(mask.detach().cpu(), pattern.detach().cpu())


def published_alignment(triggered: Tensor, clean: Tensor, neurons: Sequence[int]) -> Tensor:
    """||m * (a(x') - a(x))|| / ||m * a(x)|| of activations averaged over the batch, N x tokens x width each."""
    triggered, clean = triggered.mean(0)[:, neurons], clean.mean(0)[:, neurons]
    return (triggered - clean).norm() / clean.norm()


class ActivationTuner(Trainer):
    """Tunes all the weights with align + 0.5 preserve, on one batch of clean images and the same images triggered.

    Both activations are those of the model that is tuned; preserve is the norm over the whole batch of the change of
    its unit embeddings, as in the authors' code.
    """

    def __init__(self, encoder: DualEncoder, *args: Any, critical: CriticalNeurons, **kwargs: Any):
        super().__init__(encoder, *args, **kwargs)
        self.critical = critical

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        pixels = torch.cat([inputs["triggered"], inputs["clean"]])
        embeddings, hidden = model(pixels)
        align = torch.zeros((), device=pixels.device)
        for layer, neurons in self.critical.neurons.items():
            triggered, clean = hidden[layer].chunk(2)
            align = align + published_alignment(triggered, clean, neurons)
        return align + PRESERVE_WEIGHT * (embeddings[len(inputs["triggered"]) :] - inputs["original"]).norm()


@dataclass
class Findings:
    """What the published method knows before it tunes.

    Attributes:
        target (`int`): index of the label that the universal patch moves most images to.
        trigger ([`MaskedTrigger`]): the inverted trigger.
        batch (`torch.Tensor`): uint8, N x 3 x H x W: all the images that the tuning sees.
        critical ([`CriticalNeurons`]): what it aligns.
        details (`dict`): figures for a result file.
    """

    target: int
    trigger: MaskedTrigger
    batch: Tensor
    critical: CriticalNeurons
    details: dict[str, Any]


class InverTunePublished(Defence):
    """InverTune (arXiv 2506.12411) with the settings of the paper and of the released code."""

    name = "InverTune (published)"
    grid = LEARNING_RATES
    revision = 1

    def examine(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str]) -> Findings:
        classifier, pixels = ZeroShotClassifier(clip.encoder, class_names), data.pixels
        settings = ScanConfig(simulation_steps=UPDATES, simulation_batch_size=BATCH_SIZE)
        simulation = Simulator(classifier, settings, self.seed).simulate(pixels, PublishedPatch())
        target = simulation.suspect
        trigger = invert(classifier, pixels, target, self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        batch = pixels[torch.randperm(len(pixels), generator=generator)[:BATCH_SIZE]]
        localizer = NeuronLocalizer(clip.encoder, LocalizationConfig(images=BATCH_SIZE), self.seed)
        critical = localizer.localize(batch, [trigger])
        read = classifier.predict(batch, trigger.on(clip.encoder.device))
        details = {
            "shift": simulation.shift[target],
            "inverted_success": float((read == target).float().mean()),
            "coverage": float(trigger.mask.mean()),
            "critical_neurons": {str(layer): len(neurons) for layer, neurons in critical.neurons.items()},
        }
        return Findings(target, trigger, batch, critical, details)

    def treat(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str], found: Findings) -> Defended:
        self._tune(clip, found)
        return Defended(clip.model, target=class_names[found.target], trigger=found.trigger, details=found.details)

    def _tune(self, clip: LoadedModel, found: Findings) -> None:
        encoder = clip.encoder
        trigger, clean = found.trigger.on(encoder.device), as_float(found.batch).to(encoder.device)
        with torch.no_grad():
            tensors = {
                "clean": clean.cpu(),
                "triggered": trigger(clean).cpu(),
                "original": encoder.embed_images(clean).cpu(),
            }
        rows = [{name: tensor[index] for name, tensor in tensors.items()} for index in range(len(clean))]
        set_seed(self.seed)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=UPDATES,
                per_device_train_batch_size=len(rows),
                learning_rate=self.learning_rate or 0.0,
                weight_decay=1e-4,
                lr_scheduler_type="cosine",
                max_grad_norm=1.0,
                logging_steps=100,
                save_strategy="no",
                report_to="none",
                remove_unused_columns=False,
                use_cpu=encoder.device.type == "cpu",
                seed=self.seed,
            )
            tuner = ActivationTuner(
                encoder, arguments, default_data_collator, train_dataset=rows, critical=found.critical
            )
            show_one_bar(tuner, "Tuning as published")
            tuner.train()
        clip.model.eval()
