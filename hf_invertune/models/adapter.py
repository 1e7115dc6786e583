"""A LoRA adapter apart from the model that it was trained on, or merged into it."""

import copy
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ..errors import InputError
from .encoder import DualEncoder


@dataclass
class Adapter:
    """What the tuning changed, before it was merged.

    Attributes:
        config (`peft.LoraConfig`): names its base model, and the base's commit, as PEFT records them.
        weights (`dict[str, torch.Tensor]`): float32, by the names that PEFT gives them in a file.
        base_class (`str`), base_module (`str`): what the base model is an instance of, and where that is defined.
    """

    config: LoraConfig
    weights: dict[str, Tensor]
    base_class: str
    base_module: str

    @classmethod
    def of(cls, model: PeftModel, base: str, revision: str | None) -> "Adapter":
        """A copy of the adapter in `model`, made for the model `base` at the commit `revision`."""
        config = copy.deepcopy(model.active_peft_config)
        config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
        config.target_modules = sorted(config.target_modules)  # a set would be written in another order each time
        weights = {name: tensor.detach().cpu().clone() for name, tensor in get_peft_model_state_dict(model).items()}
        kind = type(model.get_base_model())
        return cls(config, weights, kind.__name__, kind.__module__)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors, which `PeftModel.from_pretrained` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(
            str(folder),
            auto_mapping_dict={"base_model_class": self.base_class, "parent_library": self.base_module},
        )
        save_file(self.weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merge(model: PeftModel, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The adapter merged into its model, with that model's own `config`, and rounded to `dtype`, though in float32.

    What is measured on it is then what gets saved in `dtype`.
    """
    tuner: Any = model.base_model
    adapted = list(tuner.targeted_module_names)
    merged: Any = model.merge_and_unload(safe_merge=True)
    merged.config = config
    for name in adapted:  # the rest is as it came
        merged.get_submodule(name).to(dtype).float()
    return merged.requires_grad_(True).eval()


class TunedTower(PeftModel):
    """An encoder's model with an adapter on its image tower, called as the encoder is.

    A training wraps a model, so as to share gradients between processes, and what it wraps is `forward`: this one takes
    pixels through the image tower alone, whatever the model's own wants.
    """

    def __init__(self, encoder: DualEncoder, config: LoraConfig):
        super().__init__(encoder.model, config)
        self._encoder = weakref.ref(encoder)  # which holds this

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See [`DualEncoder.forward`]."""
        encoder = self._encoder()
        assert encoder is not None
        return encoder(pixels)


def add_adapter(
    encoder: DualEncoder, layers: Sequence[int], leaves: Sequence[str] | None, rank: int, alpha: int
) -> TunedTower:
    """The encoder's model with a fresh LoRA adapter on its image tower, which does nothing yet.

    Args:
        encoder ([`DualEncoder`]): the model; it holds the adapted one afterwards.
        layers (`Sequence[int]`): the layers that get an adapter.
        leaves (`Sequence[str]`, *optional*): leaf names of the linear modules to adapt; all when not given.
        rank (`int`), alpha (`int`): of the adapter, whose scale is alpha / rank.

    Raises:
        InputError: when no module matches.
    """
    modules = encoder.linear_modules(layers)
    names = [name for name in modules if leaves is None or name.split(".")[-1] in leaves]
    if not names:
        raise InputError(f"`lora_modules`: no linear module named {leaves} in vision layers {list(layers)}.")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5 for an attribute that was renamed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        adapted = TunedTower(encoder, config)
    encoder.model = adapted
    return adapted
