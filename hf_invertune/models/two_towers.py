"""The models of transformers that have an image tower and a text tower and give the features of each; most families are such."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from .encoder import DualEncoder
from .processor import read_processor
from .stored import load_weights


class TwoTowerEncoder(DualEncoder):
    """A model with `get_image_features`, `get_text_features` and a `logit_scale`; a family says in what it differs from CLIP."""

    @classmethod
    def read(cls, folder: Path, name: str) -> tuple[Self, list[str]]:
        processor = read_processor(folder, cls.processor_class, name)
        first: Any = cls.model_classes[0]
        architectures = first.config_class.from_pretrained(folder).architectures or []
        kind = next((kind for kind in cls.model_classes if kind.__name__ in architectures), first)
        model, absent = load_weights(kind, folder, name)
        return cls(model, processor), absent

    @property
    def _dual(self) -> Any:
        """What has both towers and gives their features."""
        return self.base

    @property
    def _layers(self) -> str:
        """The name of the list of the image tower's layers, in a model without an adapter."""
        return "vision_model.encoder.layers"

    @property
    def image_size(self) -> int:
        return int(self.model.config.vision_config.image_size)

    @property
    def layers(self) -> int:
        return int(self.model.config.vision_config.num_hidden_layers)

    @property
    def scale(self) -> Tensor:
        return self._dual.logit_scale.exp().squeeze()

    @property
    def context(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    def image_outputs(self, pixel_values: Tensor, hidden_states: bool = False) -> Any:
        return self._dual.get_image_features(**self.image_inputs(pixel_values), output_hidden_states=hidden_states)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        tokens = {name: values.to(self.device) for name, values in self.tokenize(texts).items()}
        return self._dual.get_text_features(**tokens).pooler_output

    def linear_modules(self, layers: Sequence[int]) -> list[str]:
        prefixes = tuple(f"{self._layers}.{layer}." for layer in layers)
        modules = self.model.named_modules()
        return [name for name, module in modules if isinstance(module, nn.Linear) and name.startswith(prefixes)]
