"""PAR, Perturb and Recover: drive the embeddings away from the poisoned model's, and let the CLIP loss lead them back."""

import copy
from collections.abc import Sequence
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ...models.encoder import DualEncoder
from ...models.loading import LoadedModel
from ..contrastive import CaptionedPixels, ContrastiveCollator, ContrastiveTrainer, contrastive_loss
from .augmentations import brighten_with_noise, erase_squares
from .defence import Defence, Defended
from .fine_tuning import LEARNING_RATES, MINIMAL_PAIRS, tune_on_captions


THRESHOLD = 2.15
"""tau: from this mean squared distance on, embeddings are driven no further."""


class NoisyCollator(ContrastiveCollator):
    """Noise before the normalisation, erased squares after it, as in PAR's code."""

    def pixel_values(self, pixels: Tensor) -> Tensor:
        return erase_squares(super().pixel_values(brighten_with_noise(pixels)))


def perturbation(embeddings: Tensor, original: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """S 1[S <= tau], where S is the mean over N of the squared distance of unit embeddings (N x D), from 0 to 4."""
    distance = (embeddings - original).square().sum(-1).mean()
    return distance * (distance <= threshold)


def par_loss(
    images: Tensor, original_images: Tensor, texts: Tensor, original_texts: Tensor, scale: Tensor, groups: Tensor
) -> Tensor:
    """CLIP(I, T) - (S_img 1[S_img <= tau] + S_txt 1[S_txt <= tau]) / 2, the loss of PAR.

    Args:
        images, texts (`torch.Tensor`): N x D unit embeddings.
        original_images, original_texts (`torch.Tensor`): those of the model as it came, without gradients.
        scale (`torch.Tensor`): factor of the similarities.
        groups (`torch.Tensor`): N numbers, see [`contrastive_loss`].
    """
    away = perturbation(images, original_images) + perturbation(texts, original_texts)
    return contrastive_loss(scale * images @ texts.T, groups) - away / 2


def rate_factor(progress: float) -> float:
    """The share of the peak rate at `progress` in [0, 1]: a line from 1 to 1/10 at the middle, then a cosine to 0."""
    if progress < 0.5:
        return 1 - 0.9 * progress / 0.5
    return 0.1 * (1 + cos(pi * (progress - 0.5) / 0.5)) / 2


class PARTrainer(ContrastiveTrainer):
    """Training with [`par_loss`] against a frozen copy of the model; the logit scale gets no gradient."""

    def __init__(self, encoder: DualEncoder, *args: Any, **kwargs: Any):
        super().__init__(encoder, *args, **kwargs)
        self.original = copy.deepcopy(encoder.model).eval().requires_grad_(False)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        weights = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
        return [name for name in super().get_decay_parameter_names(model) if name in weights]

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        assert self.optimizer is not None
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: rate_factor(step / num_training_steps))
        return self.lr_scheduler

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        groups = inputs.pop("groups")
        with torch.no_grad():
            original = self.outputs(self.original, inputs)
        outputs = self.outputs(model, inputs)
        scale = self.original.logit_scale.exp()
        return par_loss(
            outputs.image_embeds, original.image_embeds, outputs.text_embeds, original.text_embeds, scale, groups
        )


class PAR(Defence):
    """PAR (arXiv 2412.00727), on noisy pictures."""

    name = "PAR"
    grid = LEARNING_RATES
    minimum_images = MINIMAL_PAIRS

    def treat(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        settings = {"trainer": PARTrainer, "collator": NoisyCollator, "adam_beta2": 0.98, "weight_decay": 1e-4}
        return Defended(tune_on_captions(clip, data, self.learning_rate, self.seed, **settings))
