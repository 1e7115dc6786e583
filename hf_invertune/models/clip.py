"""CLIP: the one place that knows how `CLIPModel` is called, and what its parts are called."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self, cast

from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPProcessor, CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..errors import InputError
from .encoder import DualEncoder
from .stored import load_weights, refusing


class CLIPEncoder(DualEncoder):
    """A `CLIPModel` (arXiv 2103.00020) with a vision transformer."""

    model_type = "clip"
    tower: ClassVar[type[nn.Module]] = CLIPVisionModel
    formats: ClassVar[tuple[str, ...]] = ("transformers", "open_clip")

    @classmethod
    def read(cls, folder: Path, name: str) -> tuple[Self, list[str]]:
        processor = _read_processor(folder, name)
        model, absent = load_weights(CLIPModel, folder, name)
        return cls(model, processor), absent

    @property
    def _vision(self) -> CLIPVisionConfig:
        return cast(CLIPVisionConfig, self.model.config.vision_config)

    @property
    def image_size(self) -> int:
        return int(self._vision.image_size)  # type: ignore[arg-type]

    @property
    def layers(self) -> int:
        return self._vision.num_hidden_layers

    @property
    def scale(self) -> Tensor:
        return self.model.logit_scale.exp()

    def image_features(self, pixel_values: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixel_values).pooler_output

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self.model.get_text_features(**self.tokenize(texts)).pooler_output

    def activations(self, pixels: Tensor) -> list[Tensor]:
        features = self.model.get_image_features(pixel_values=self.pixel_values(pixels), output_hidden_states=True)
        return list(features.hidden_states[1:])

    def outputs(self, model: nn.Module, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        # Only `forward` passes through a wrapper, and CLIP's wants a text as well.
        prompt = self.tokenize(["a"])
        outputs = model(pixel_values=self.pixel_values(pixels), output_hidden_states=True, **prompt)
        return normalize(outputs.image_embeds, dim=-1), list(outputs.vision_model_output.hidden_states[1:])

    def linear_modules(self, layers: Sequence[int]) -> list[str]:
        prefixes = tuple(f"vision_model.encoder.layers.{layer}." for layer in layers)
        modules = self.model.named_modules()
        return [name for name, module in modules if isinstance(module, nn.Linear) and name.startswith(prefixes)]

    def freeze_for_tuning(self) -> None:
        self.model.logit_scale.requires_grad_(False)


def _read_processor(folder: Path, name: str) -> CLIPProcessor:
    files = ("processor_config.json", "preprocessor_config.json")
    if not any((folder / file).is_file() for file in files):
        raise InputError(f"`processor`: {name} holds neither {' nor '.join(files)}; save its CLIPProcessor there.")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise InputError(f"`processor`: {name} holds no tokenizer.json; save its CLIPProcessor there.")
    with refusing(f"`processor`: the {', '.join(files)} or tokenizer.json of {name} cannot be used"):
        processor = CLIPProcessor.from_pretrained(folder, trust_remote_code=False)  # or it asks at the terminal
        processor.image_processor = CLIPImageProcessorPil.from_pretrained(folder)
    return processor
