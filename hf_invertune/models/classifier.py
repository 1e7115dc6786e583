"""A dual encoder and the names of classes make a classifier."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..data.prompts import check_class_names, prompts
from ..errors import InputError, nearest
from .encoder import DualEncoder


TEMPERATURE = 0.07
"""Temperature of every softmax over cosine similarities in the method (InverTune; He et al., arXiv 1911.05722)."""


class ZeroShotClassifier:
    """Reads images as one of K classes: the one whose text embedding is nearest (CLIP, arXiv 2103.00020, section 3.1).

    Args:
        encoder ([`DualEncoder`]): the model.
        class_names (`Sequence[str]`): K names.
        templates (`Sequence[str]`, *optional*): prompt templates, each with `{}` for the name; by default those of the
            model's family.

    Attributes:
        head (`torch.Tensor`): K x D: per class the mean of its prompts' unit embeddings, made a unit again.

    Raises:
        InputError: names or templates that cannot be used.
    """

    def __init__(self, encoder: DualEncoder, class_names: Sequence[str], templates: Sequence[str] | None = None):
        self.encoder, self.templates = encoder, tuple(encoder.templates if templates is None else templates)
        self.class_names = check_class_names(class_names)
        texts = [text for name in self.class_names for text in prompts(name, self.templates)]
        embeddings = encoder.embed_texts(texts).unflatten(0, (len(self.class_names), len(self.templates)))
        self.head = normalize(embeddings.mean(1), dim=-1)

    def __len__(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def with_names(self, class_names: Sequence[str]) -> "ZeroShotClassifier":
        """The same model and templates with other classes."""
        return ZeroShotClassifier(self.encoder, class_names, self.templates)

    def with_templates(self, templates: Sequence[str]) -> "ZeroShotClassifier":
        """The same model and classes with other templates."""
        return ZeroShotClassifier(self.encoder, self.class_names, templates)

    def after(self, word: str | None) -> "ZeroShotClassifier":
        """The same with `word` before every prompt, as a trigger in the text stands there; none: this very one."""
        return self if word is None else self.with_templates([f"{word} {template}" for template in self.templates])

    def logits(self, embeddings: Tensor) -> Tensor:
        """cos / 0.07 of unit embeddings (... x D) with each class, ... x K."""
        return embeddings @ self.head.T / TEMPERATURE

    @torch.no_grad()
    def predict(
        self, pixels: Tensor, transform: Callable[[Tensor], Tensor] | None = None, batch_size: int = 256
    ) -> Tensor:
        """Labels (N) of pixels (N x 3 x H x W, float in [0, 1] or uint8), through `transform` when given."""
        with self.encoder.frozen():
            embeddings = self.encoder.embed_pixels(pixels, transform, batch_size)
        return self.read(embeddings)

    def read(self, embeddings: Tensor) -> Tensor:
        """Labels (N), on the CPU, of unit embeddings (N x D) of pictures."""
        return (embeddings @ self.head.T).argmax(-1).cpu()

    def shares(self, embeddings: Tensor) -> list[float]:
        """The share of pictures with these unit embeddings (N x D) that is read as each class."""
        return (torch.bincount(self.read(embeddings), minlength=len(self)) / len(embeddings)).tolist()

    def kinship(self, label: int) -> list[float]:
        """Cosine of each class's text embedding with that of `label`, both centred over all classes."""
        centred = normalize(self.head - self.head.mean(0), dim=-1)
        return (centred @ centred[label]).tolist()

    def label_of(self, target: str | int | None) -> int | None:
        """The label that a user names, by its name or by its index.

        Raises:
            InputError: when there is no such label.
        """
        if isinstance(target, str):
            if target not in self.class_names:
                raise InputError(
                    f"`target`: {target!r} is not among the {len(self)} class names; {nearest(target, self.class_names)}."
                )
            return self.class_names.index(target)
        if target is not None and not 0 <= target < len(self):
            raise InputError(f"`target`: got {target}; it must lie between 0 and {len(self) - 1}.")
        return target
