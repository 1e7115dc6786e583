"""The one place that knows what a CLIP is: normalisation, features, hidden states, the zero-shot head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPProcessor, CLIPVisionConfig

from ..data.prompts import TEMPLATES, prompts


TEMPERATURE = 0.07
"""Temperature of every softmax over cosine similarities in the method (InverTune; He et al., arXiv 1911.05722)."""


class DualEncoder(nn.Module):
    """A CLIP that takes pixels in [0, 1] and class names, and gives unit embeddings.

    Args:
        model ([`~transformers.CLIPModel`] or [`~peft.PeftModel`]): the model, possibly with a LoRA adapter on it.
        processor ([`~transformers.CLIPProcessor`]): gives mean, standard deviation, size and tokenizer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: CLIPModel | PeftModel, processor: CLIPProcessor):
        super().__init__()
        self.model, self.processor = model, processor
        image_processor = processor.image_processor
        device = model.device
        self.register_buffer("mean", torch.tensor(image_processor.image_mean, device=device).view(3, 1, 1), False)
        self.register_buffer("std", torch.tensor(image_processor.image_std, device=device).view(3, 1, 1), False)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def _vision(self) -> CLIPVisionConfig:
        return cast(CLIPVisionConfig, self.model.config.vision_config)

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images that the vision tower takes."""
        return int(self._vision.image_size)  # type: ignore[arg-type]

    @property
    def layers(self) -> int:
        """Number of layers of the vision tower."""
        return self._vision.num_hidden_layers

    def pixel_values(self, pixels: Tensor) -> Tensor:
        """Normalise pixels in [0, 1] (N x 3 x H x W) the way the processor does."""
        return (pixels - self.mean) / self.std

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (... x D) of pixels in [0, 1] (... x 3 x H x W), with gradients."""
        flat = self.pixel_values(pixels).flatten(0, -4)
        features = self.model.get_image_features(pixel_values=flat).pooler_output
        return normalize(features, dim=-1).unflatten(0, pixels.shape[:-3])

    def activations(self, pixels: Tensor) -> list[Tensor]:
        """Hidden states after each vision layer, each N x tokens x width."""
        features = self.model.get_image_features(pixel_values=self.pixel_values(pixels), output_hidden_states=True)
        return list(features.hidden_states[1:])

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and attention mask of `texts` on the model's device."""
        tokens = self.processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}

    @torch.no_grad()
    def zero_shot_head(self, class_names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Tensor:
        """The K x D classifier: per class the mean of its prompts' unit embeddings, made a unit again."""
        rows = []
        for name in class_names:
            features = self.model.get_text_features(**self.tokenize(prompts(name, templates))).pooler_output
            rows.append(normalize(normalize(features, dim=-1).mean(0), dim=-1))
        return torch.stack(rows)

    @torch.no_grad()
    def embed_batches(self, batches: Iterator[Tensor]) -> Tensor:
        """Unit embeddings of all `batches` of pixels, N x D, without gradients."""
        return torch.cat([self.embed_images(pixels.to(self.device)) for pixels in batches])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, no parameter of the model takes a gradient and the model is in evaluation mode."""
        training = self.model.training
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in trainable:
            parameter.requires_grad_(False)
        self.model.eval()
        try:
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            self.model.train(training)
