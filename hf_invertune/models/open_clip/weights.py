"""The tensors of open_clip by the names that they have in transformers, and back, bit by bit."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPModel, PreTrainedModel


@dataclass(frozen=True)
class Entry:
    """A tensor of open_clip.

    Attributes:
        stored (`str`): its name there.
        parts (`tuple[str, ...]`): the names of the equal parts, one below the other, that transformers cuts it in.
        transposed (`bool`): whether transformers holds it transposed.
    """

    stored: str
    parts: tuple[str, ...]
    transposed: bool = False


def to_transformers(stored: Mapping[str, Tensor], entries: Iterable[Entry]) -> dict[str, Tensor]:
    """The tensors of `entries` under the names of transformers."""
    named: dict[str, Tensor] = {}
    for entry in entries:
        tensor = stored[entry.stored].T if entry.transposed else stored[entry.stored]
        cut = tensor.chunk(len(entry.parts)) if len(entry.parts) > 1 else (tensor,)
        named |= zip(entry.parts, cut, strict=True)
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in named.items()}


def to_open_clip(named: Mapping[str, Tensor], entries: Iterable[Entry]) -> dict[str, Tensor]:
    """The tensors of `entries` under the names of open_clip."""
    stored = {}
    for entry in entries:
        parts = [named[part] for part in entry.parts]
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        stored[entry.stored] = (tensor.T if entry.transposed else tensor).contiguous()
    return stored


def entries(model: PreTrainedModel) -> list[Entry]:
    """All tensors of a `CLIPModel`, or of a [`ResNetCLIP`], whose image tower has them by the names of open_clip."""
    config: Any = model.config
    text = text_entries(config.text_config.num_hidden_layers)
    if isinstance(model, CLIPModel):
        return [*text, *vision_entries(config.vision_config.num_hidden_layers)]
    return [*text, *(Entry(name, (name,)) for name in model.state_dict() if name.startswith("visual."))]


def text_entries(layers: int) -> Iterator[Entry]:
    """CLIP's text tower with its projection, and the temperature."""
    yield Entry("positional_embedding", ("text_model.embeddings.position_embedding.weight",))
    yield Entry("text_projection", ("text_projection.weight",), transposed=True)
    yield Entry("logit_scale", ("logit_scale",))
    yield Entry("token_embedding.weight", ("text_model.embeddings.token_embedding.weight",))
    yield from _pair("ln_final", "text_model.final_layer_norm")
    yield from _blocks("transformer.", "text_model.", layers)


def vision_entries(layers: int) -> Iterator[Entry]:
    """The vision transformer with its projection."""
    yield Entry("visual.class_embedding", ("vision_model.embeddings.class_embedding",))
    yield Entry("visual.positional_embedding", ("vision_model.embeddings.position_embedding.weight",))
    yield Entry("visual.proj", ("visual_projection.weight",), transposed=True)
    yield Entry("visual.conv1.weight", ("vision_model.embeddings.patch_embedding.weight",))
    yield from _pair("visual.ln_pre", "vision_model.pre_layrnorm")
    yield from _pair("visual.ln_post", "vision_model.post_layernorm")
    yield from _blocks("visual.transformer.", "vision_model.", layers)


def _blocks(stored: str, named: str, layers: int) -> Iterator[Entry]:
    for layer in range(layers):
        there, here = f"{stored}resblocks.{layer}", f"{named}encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            parts = tuple(f"{here}.self_attn.{part}_proj.{kind}" for part in "qkv")
            yield Entry(f"{there}.attn.in_proj_{kind}", parts)
        yield from _pair(f"{there}.attn.out_proj", f"{here}.self_attn.out_proj")
        yield from _pair(f"{there}.ln_1", f"{here}.layer_norm1")
        yield from _pair(f"{there}.ln_2", f"{here}.layer_norm2")
        yield from _pair(f"{there}.mlp.c_fc", f"{here}.mlp.fc1")
        yield from _pair(f"{there}.mlp.c_proj", f"{here}.mlp.fc2")


def _pair(stored: str, named: str) -> Iterator[Entry]:
    for kind in ("weight", "bias"):
        yield Entry(f"{stored}.{kind}", (f"{named}.{kind}",))
