"""The family of CLIPs with a ResNet for their image tower, which are stored in the format of open_clip alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from torch import nn

from ...errors import InputError
from ..clip import CLIPEncoder
from .resnet import ResNetCLIP, ResNetCLIPConfig, ResNetTower


class ResNetEncoder(CLIPEncoder):
    """A [`ResNetCLIP`]; its layers are the bottlenecks and the attention that pools."""

    model_type = ResNetCLIPConfig.model_type
    model_classes = (ResNetCLIP,)
    tower = ResNetTower
    formats = ("open_clip",)

    @classmethod
    def read(cls, folder: Path, name: str) -> tuple[Self, list[str]]:
        raise InputError(f"`model`: {name} has a config.json, and such models are read from an open_clip_config.json.")

    @property
    def image_size(self) -> int:
        return int(self.model.config.image_size)

    @property
    def layers(self) -> int:
        return len(self.model.visual.layers)

    def linear_modules(self, layers: Sequence[int]) -> list[str]:
        """Its convolutions too, which are linear in their maps."""
        names = list(self.model.visual.layers)
        prefixes = tuple(f"visual.{names[layer]}." for layer in layers)
        modules = self.model.named_modules()
        linear = (nn.Conv2d, nn.Linear)
        return [name for name, module in modules if isinstance(module, linear) and name.startswith(prefixes)]
