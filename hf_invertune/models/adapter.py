"""A LoRA adapter apart from the model that it was trained on, or merged into it."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel


@dataclass
class Adapter:
    """What the tuning changed, before it was merged.

    Attributes:
        config (`peft.LoraConfig`): names its base model, and the base's commit, as PEFT records them.
        weights (`dict[str, torch.Tensor]`): float32, by the names that PEFT gives them in a file.
    """

    config: LoraConfig
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, model: PeftModel, base: str, revision: str | None) -> "Adapter":
        """A copy of the adapter in `model`, made for the model `base` at the commit `revision`."""
        config = copy.deepcopy(model.active_peft_config)
        config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
        config.target_modules = sorted(config.target_modules)  # a set would be written in another order each time
        weights = {name: tensor.detach().cpu().clone() for name, tensor in get_peft_model_state_dict(model).items()}
        return cls(config, weights)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors, which `PeftModel.from_pretrained` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(
            str(folder),
            auto_mapping_dict={
                "base_model_class": "CLIPModel",
                "parent_library": "transformers.models.clip.modeling_clip",
            },
        )
        save_file(self.weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merge(model: PeftModel, config: CLIPConfig, dtype: torch.dtype) -> CLIPModel:
    """The adapter merged into its model, with that model's own `config`, and rounded to `dtype`, though in float32.

    What is measured on it is then what gets saved in `dtype`.
    """
    merged: Any = model.merge_and_unload(safe_merge=True)
    merged.config = config
    return merged.to(dtype).float().requires_grad_(True).eval()
