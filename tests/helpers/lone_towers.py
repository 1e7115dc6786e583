"""Image towers without text towers, tiny and random: alone, or in a model that talks about pictures."""

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from tiny import TEXT
from tiny_families import DIMENSION
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, set_seed


LLAVA = "LlavaForConditionalGeneration"
KINDS = {
    # name: the class, and the class of the model whose image tower it is like
    "CLIPVisionModel": ("CLIPVisionModel", "CLIPModel"),
    "CLIPVisionModelWithProjection": ("CLIPVisionModelWithProjection", "CLIPModel"),
    "MetaClip2VisionModelWithProjection": ("MetaClip2VisionModelWithProjection", "MetaClip2Model"),
    "SiglipVisionModel": ("SiglipVisionModel", "SiglipModel"),
    "Siglip2VisionModel": ("Siglip2VisionModel", "Siglip2Model"),
    "LLaVA": (LLAVA, "CLIPModel"),
    "LLaVA of SigLIP": (LLAVA, "SiglipModel"),
}


def save_tower(folder: Path, kind: str, whole: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a tower of one of [`KINDS`] into `folder`: that of the model in `whole`, with weights that differ a little."""
    name, like = KINDS[kind]
    model: Any = getattr(transformers, like).from_pretrained(whole)
    set_seed(1)
    config = copy.deepcopy(model.config.vision_config)
    config.projection_dim = DIMENSION
    if name == LLAVA:
        config.vision_use_head = False
        text = LlamaConfig(**TEXT, vocab_size=40, num_key_value_heads=2)
        made: Any = LlavaForConditionalGeneration(LlavaConfig(vision_config=config, text_config=text))
        tower = made.model.vision_tower
    else:
        made = getattr(transformers, name)(config)
        tower = made.vision_model if hasattr(made, "visual_projection") else made
    tower.load_state_dict(model.vision_model.state_dict(), strict=not (name == LLAVA and "Siglip" in like))
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    made.to(dtype).save_pretrained(folder, max_shard_size="40KB" if name == LLAVA else "1GB")


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All weights in `folder`, whatever they are of."""
    parts = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return {name: tensor for part in parts for name, tensor in part.items()}


@torch.no_grad()
def image_embeddings(folder: Path, kind: str, whole: Path, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Unit embeddings by the tower's own class in transformers, with what it lacks of the model in `whole`."""
    name, like = KINDS[kind]
    if like == "Siglip2Model":
        inputs = {**inputs, "pixel_attention_mask": torch.ones(inputs["pixel_values"].shape[:2])}
    made: Any = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32)
    model: Any = getattr(transformers, like).from_pretrained(whole)
    if hasattr(made, "visual_projection"):
        features = made(**inputs).image_embeds
    elif kind == "LLaVA of SigLIP":
        features = model.vision_model.head(made.model.vision_tower(**inputs).last_hidden_state)
    else:
        features = (made.model.vision_tower if name == LLAVA else made)(**inputs).pooler_output
        features = model.visual_projection(features) if like == "CLIPModel" else features
    return torch.nn.functional.normalize(features, dim=-1)
