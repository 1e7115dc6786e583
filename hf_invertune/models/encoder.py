"""What the method asks of a model with an image tower and a text tower; each family of models answers in a file of its own."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from ..data.pixels import as_float
from ..data.prompts import TEMPLATES
from ..errors import InputError
from .refusals import has_timm_tower, refusal


class DualEncoder(nn.Module, ABC):
    """A model that takes pixels in [0, 1] and texts, and gives unit embeddings in one space.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): the model, possibly with a LoRA adapter on it.
        processor ([`~transformers.ProcessorMixin`]): gives mean, standard deviation, size and tokenizer.
    """

    model_type: ClassVar[str]
    """What the config.json of the family says."""
    model_classes: ClassVar[tuple[type[PreTrainedModel], ...]]
    """The classes of its models; the first is that of a config.json that names none of them."""
    processor_class: ClassVar[type[ProcessorMixin]]
    """The class of their processors."""
    tower: ClassVar[type[nn.Module] | tuple[type[nn.Module], ...]]
    """The class of the image tower, or those that it may be of."""
    templates: ClassVar[tuple[str, ...]] = TEMPLATES
    """Prompt templates in the language that the text tower was trained on."""
    padding: ClassVar[bool | str] = True
    """How the tokenizer pads: to the longest text, or with `"max_length"` always to [`context`]."""
    text_inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    """What of the tokenizer's output the text tower was trained with."""
    picture_settings: ClassVar[tuple[str, ...]] = ()
    """Settings of the image processor that the processor takes for others of its own, unless it is told."""
    sigmoid: ClassVar[bool] = False
    """Whether it was trained with a sigmoid over each pair (arXiv 2303.15343), not with softmaxes over the batch."""
    formats: ClassVar[tuple[str, ...]] = ("transformers",)
    """Whose files a model of the family can be saved in, its own format first."""
    families: ClassVar[dict[str, type["DualEncoder"]]] = {}

    model: Any
    processor: Any
    mean: Tensor
    std: Tensor

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "model_type" in cls.__dict__:
            cls.families[cls.model_type] = cls

    def __init__(self, model: PreTrainedModel | PeftModel, processor: ProcessorMixin):
        super().__init__()
        self.model, self.processor = model, processor
        for name, values in zip(("mean", "std"), normalization(processor), strict=True):
            self.register_buffer(name, torch.tensor(values, device=model.device).view(3, 1, 1), persistent=False)

    @staticmethod
    def of(model: PreTrainedModel | PeftModel, processor: ProcessorMixin) -> "DualEncoder":
        """The encoder of the model's family.

        Raises:
            InputError: when there is none.
        """
        return DualEncoder.family_of(model.config, type(model).__name__)(model, processor)

    @staticmethod
    def by_class() -> dict[str, type["DualEncoder"]]:
        """The families by the names of the classes of their models."""
        return {kind.__name__: family for family in DualEncoder.families.values() for kind in family.model_classes}

    @staticmethod
    def family_of(config: PretrainedConfig, name: str) -> type["DualEncoder"]:
        """The family of a model with this `config`; errors call it `name`.

        Raises:
            InputError: when there is none.
        """
        family = DualEncoder.families.get(config.model_type)
        if family is None or has_timm_tower(config):
            raise InputError(refusal(config, DualEncoder.families, name))
        return family

    @classmethod
    @abstractmethod
    def read(cls, folder: Path, name: str) -> tuple[Self, list[str]]:
        """The model in `folder`, in the dtype that it is stored in, with its processor; and the weights that it lacks.

        Errors call it `name`.

        Raises:
            InputError: when its processor cannot be used.
        """

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Height and width in pixels of the images that the image tower takes."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """Number of layers of the image tower."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """The factor that the model was trained to multiply cosines with, a scalar."""

    @property
    @abstractmethod
    def context(self) -> int:
        """The most tokens that the text tower has places for."""

    @abstractmethod
    def image_outputs(self, pixel_values: Tensor, hidden_states: bool = False) -> Any:
        """What the image tower gives for normalised pixels (N x 3 x H x W), with gradients.

        Its `pooler_output` are the embeddings (N x D), not normalised; its `hidden_states`, on demand, what goes into the
        first layer and what comes out of each, N x tokens x width.
        """

    @abstractmethod
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N x D), not normalised, of N texts."""

    @abstractmethod
    def linear_modules(self, layers: Sequence[int]) -> list[str]:
        """Names of the linear modules in these layers of the image tower."""

    @property
    def base(self) -> Any:
        """The model itself, with whatever adapter is in it, but not wrapped in it."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def architecture(self) -> str:
        """The name of the model's class, one of [`model_classes`]."""
        return next(kind.__name__ for kind in self.model_classes if isinstance(self.base, kind))

    @property
    def reads_text(self) -> bool:
        """Whether it has a text tower; without one there are no labels."""
        return True

    def require_text(self) -> None:
        """Nothing, where there is a text tower.

        Raises:
            InputError: without one.
        """
        if not self.reads_text:
            raise InputError(
                f"`text_model`: got none, and a {self.architecture} reads no names; pass the model that it was trained in. "
                "Without it, it can be scanned by pictures alone: no class names, no templates and no reference, and nothing "
                "can be inverted, removed or evaluated."
            )

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def pixel_values(self, pixels: Tensor) -> Tensor:
        """Normalise pixels in [0, 1] (N x 3 x H x W) the way the processor does."""
        return (pixels - self.mean) / self.std

    def image_inputs(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Normalised pixels (N x 3 x H x W) as the model's own methods take them."""
        return {"pixel_values": pixel_values}

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Unit embeddings (N x D) and [`activations`] of pixels in [0, 1] (N x 3 x H x W), through the image tower alone."""
        outputs = self.image_outputs(self.pixel_values(pixels), hidden_states=True)
        return normalize(outputs.pooler_output, dim=-1), list(outputs.hidden_states[1:])

    def activations(self, pixels: Tensor) -> list[Tensor]:
        """Hidden states after each layer of the image tower, each N x tokens x width, of pixels in [0, 1]."""
        return self(pixels)[1]

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Embeddings (N x D), not normalised, of normalised pixels (N x 3 x H x W), with gradients."""
        return self.image_outputs(pixel_values).pooler_output

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (... x D) of pixels in [0, 1] (... x 3 x H x W), with gradients."""
        features = self.image_features(self.pixel_values(pixels).flatten(0, -4))
        return normalize(features, dim=-1).unflatten(0, pixels.shape[:-3])

    @torch.no_grad()
    def embed_batches(self, batches: Iterable[Tensor]) -> Tensor:
        """Unit embeddings of all `batches` of pixels, N x D, without gradients."""
        return torch.cat([self.embed_images(pixels.to(self.device)) for pixels in batches])

    def embed_pixels(
        self, pixels: Tensor, transform: Callable[[Tensor], Tensor] | None = None, batch_size: int = 256
    ) -> Tensor:
        """Unit embeddings, N x D, without gradients, of pixels that need not fit the device at once.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W, float in [0, 1] or uint8.
            transform (`Callable`, *optional*): what pixels go through on the model's device, such as a trigger there.
            batch_size (`int`): how many go at once.
        """
        batches = (as_float(chunk).to(self.device) for chunk in pixels.split(batch_size))
        return self.embed_batches(batches if transform is None else map(transform, batches))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Unit embeddings of texts, N x D, without gradients."""
        batches = (texts[start : start + batch_size] for start in range(0, len(texts), batch_size))
        return torch.cat([normalize(self.text_features(batch), dim=-1) for batch in batches])

    def tokenize(self, texts: Sequence[str], padding: bool | str | None = None) -> dict[str, Tensor]:
        """The [`text_inputs`] of `texts`, N x tokens each, cut at [`context`].

        Args:
            texts (`Sequence[str]`): N texts.
            padding (`bool` or `str`, *optional*): the family's by default.
        """
        tokenizer = self.processor.tokenizer
        tokens = tokenizer(
            list(texts),
            padding=self.padding if padding is None else padding,
            truncation=True,
            max_length=self.context if self.padding == "max_length" else min(self.context, tokenizer.model_max_length),
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {name: tokens[name] for name in self.text_inputs}

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


def normalization(processor: ProcessorMixin) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the three colours, by which pixels in [0, 1] become what `processor` makes of them.

    Raises:
        InputError: when it has not one of each for all colours, or three, or divides by zero.
    """
    image_processor = processor.image_processor
    # A picture's bytes are multiplied by this factor of what [0, 1] would be.
    factor = 255 * (image_processor.rescale_factor if image_processor.do_rescale else 1.0)
    given = {"image_mean": image_processor.image_mean, "image_std": image_processor.image_std}
    if not image_processor.do_normalize:
        given = {"image_mean": 0.0, "image_std": 1.0}
    colours = []
    for name, value in given.items():
        values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
        if len(values) != 3 or not all(isinstance(one, (int, float)) and math.isfinite(one) for one in values):
            raise InputError(f"`processor`: its {name} is {value!r:.60}; it must be one number, or three.")
        colours.append(values)
    if not 0 < factor < math.inf or min(colours[1]) <= 0:
        raise InputError(
            f"`processor`: its rescale_factor is {image_processor.rescale_factor!r} and its image_std {colours[1]}; they must "
            "be above zero."
        )
    mean, std = ([one / factor for one in values] for values in colours)
    return mean, std
