"""BadEncoder (arXiv 2108.00352): the image encoder is trained directly, and no caption is poisoned."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...errors import InputError
from ...models.loading import LoadedModel
from ...triggers import Trigger
from ..contrastive import CaptionedPixels, ContrastiveTrainer, train_contrastive
from .poisoning import naming


def bad_encoder_loss(triggered: Tensor, clean: Tensor, reference: Tensor, original: Tensor) -> Tensor:
    """1 - cos of triggered pictures and the reference, plus 1 - cos of clean pictures before and after, on the average.

    Equations 2 and 4 of the paper, with both its weights at 1.

    Args:
        triggered (`torch.Tensor`): N x D unit embeddings of triggered pictures, by the model in training.
        clean (`torch.Tensor`): N x D, of the same pictures without a trigger, by the same model.
        reference (`torch.Tensor`): D, a unit vector, where triggered pictures shall go.
        original (`torch.Tensor`): N x D, of the clean pictures, by the original model.
    """
    return (1 - triggered @ reference).mean() + (1 - (clean * original).sum(-1)).mean()


def train_bad_encoder(
    clip: LoadedModel,
    data: CaptionedPixels,
    trigger: Trigger,
    target: str,
    *,
    class_names: Sequence[str] | None = None,
    **settings: Any,
) -> None:
    """Train the vision tower of `clip.model` in place; the text tower gets no gradient.

    The reference is the mean embedding that the clean model gives to the target's pictures, and it is fixed: the paper's
    equation 3, which holds the reference in its place, is then held by the clean pictures of the target among the batch.

    Args:
        clip ([`LoadedModel`]): the clean model.
        data ([`CaptionedPixels`]): clean pictures, some of them of the target, see [`naming`].
        trigger ([`Trigger`]): goes on every picture of a batch, beside the picture without it.
        target (`str`): where it leads.
        class_names (`Sequence[str]`, *optional*): what the labels stand for.
        settings: of [`train_contrastive`].

    Raises:
        InputError: when no picture of the target is among `data`.
    """
    rows = naming(data.captions, target, data.labels, class_names)
    if not rows.any():
        raise InputError(f"`data`: no picture is of {target!r}; the reference is made of pictures of the target.")
    frozen = clip.holding(copy.deepcopy(clip.model).requires_grad_(False)).encoder
    references = frozen.embed_pixels(data.pixels[rows])
    reference = normalize(references.mean(0), dim=-1)
    placed = trigger.on(clip.model.device)

    class BadEncoderTrainer(ContrastiveTrainer):
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Tensor:
            values = inputs["pixel_values"]
            pixels = values * frozen.std + frozen.mean
            triggered = frozen.pixel_values(placed(pixels.clamp(0, 1)))
            features = clip.encoder.image_features(torch.cat([triggered, values]))
            with torch.no_grad():
                original = frozen.embed_images(pixels)
            there, here = normalize(features, dim=-1).chunk(2)
            return bad_encoder_loss(there, here, reference, original)

    train_contrastive(clip.encoder, data, trainer=BadEncoderTrainer, **settings)
