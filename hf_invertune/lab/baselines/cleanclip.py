"""CleanCLIP: fine-tuning in which each modality must also recognise its own augmented view."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...data.pixels import as_float
from ...models.loading import LoadedModel
from ..contrastive import CaptionedPixels, ContrastiveCollator, contrastive_loss, group_targets
from .augmentations import AutoAugment, swap_or_delete_words
from .defence import Defence, Defended
from .fine_tuning import LEARNING_RATES, MINIMAL_PAIRS, FineTuningTrainer, tune_on_captions


class TwoViewsCollator(ContrastiveCollator):
    """The pairs of a batch as they are, then each of them again with picture and caption augmented."""

    auto_augment = AutoAugment()

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, Tensor]:
        pixels = as_float(torch.stack([pair["pixels"] for pair in pairs]))
        captions = [pair["caption"] for pair in pairs]
        return {
            "pixel_values": self.pixel_values(torch.cat([pixels, self.auto_augment(pixels)])),
            **self.tokens(captions + [swap_or_delete_words(caption) for caption in captions]),
            "groups": torch.stack([pair["group"] for pair in pairs]),
        }


def cleanclip_loss(
    images: Tensor, augmented_images: Tensor, texts: Tensor, augmented_texts: Tensor, scale: Tensor, groups: Tensor
) -> Tensor:
    """CLIP(I, T) + (CE(I, I') + CE(T, T')) / 2, equation 4 of CleanCLIP with both weights 1.

    Args:
        images, augmented_images, texts, augmented_texts (`torch.Tensor`): N x D unit embeddings.
        scale (`torch.Tensor`): factor of all similarities.
        groups (`torch.Tensor`): N numbers. Captions of one group may stand for one another, as in the CLIP term; a
            picture's only positive is its own augmented view.
    """
    own = torch.arange(len(images), device=images.device)
    in_modal = cross_entropy(scale * images @ augmented_images.T, own)
    in_modal = in_modal + cross_entropy(scale * texts @ augmented_texts.T, group_targets(groups))
    return contrastive_loss(scale * images @ texts.T, groups) + in_modal / 2


class CleanCLIPTrainer(FineTuningTrainer):
    """Fine-tuning with [`cleanclip_loss`] on the batches of a [`TwoViewsCollator`]."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        groups = inputs.pop("groups")
        outputs = self.outputs(model, inputs)
        scale = self.accelerator.unwrap_model(model).logit_scale.exp()
        images, augmented_images = outputs.image_embeds.chunk(2)
        texts, augmented_texts = outputs.text_embeds.chunk(2)
        return cleanclip_loss(images, augmented_images, texts, augmented_texts, scale, groups)


class CleanCLIP(Defence):
    """CleanCLIP (arXiv 2303.03323): the CLIP loss with self-supervision within pictures and within captions."""

    name = "CleanCLIP"
    grid = LEARNING_RATES
    minimum_images = MINIMAL_PAIRS

    def treat(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        views = {"trainer": CleanCLIPTrainer, "collator": TwoViewsCollator}
        return Defended(tune_on_captions(clip, data, self.learning_rate, self.seed, **views))
