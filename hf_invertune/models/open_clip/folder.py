"""A model in open_clip's own format: `open_clip_config.json`, one file of weights, a tokenizer."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel, PreTrainedModel, ProcessorMixin

from ...errors import InputError
from ...utils.files import write_json
from ...utils.progress import without_bars_of_transformers
from ..encoder import DualEncoder
from .config import CONFIG, read_config
from .conversion import config_for, kept, make_processor, model_config, read_tokenizer
from .resnet import ResNetCLIP
from .weights import entries, to_open_clip, to_transformers


WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""The names of its weights, in the order in which open_clip prefers them."""
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
"""Those that weights may have, by name."""


def read_open_clip(folder: Path, name: str) -> DualEncoder:
    """The model in `folder`, in the widest dtype of its weights, with its processor; errors call it `name`.

    Its config keeps as `open_clip` what stands in open_clip's, and the dtype of each weight that has another.

    Raises:
        InputError: when it is of a kind that cannot be converted, or a file is damaged or missing.
    """
    written = read_config(folder, name)
    tokenizer = read_tokenizer(folder, written, name)
    config: Any = model_config(written, tokenizer)
    kind: type[PreTrainedModel] = CLIPModel if written.stages is None else ResNetCLIP
    stored = _load(folder, name)
    with torch.device("meta"):
        empty = kind(config)
    _check(stored, to_open_clip(empty.state_dict(), entries(empty)), name)
    floats = {key: tensor.dtype for key, tensor in stored.items() if tensor.is_floating_point()}
    dtype = reduce(torch.promote_types, floats.values())
    dtypes = {key: str(own).removeprefix("torch.") for key, own in floats.items() if own is not dtype}
    config.open_clip = {"config": written.source, "dtypes": dtypes}
    state = to_transformers(stored, entries(empty))
    with without_bars_of_transformers():
        model: Any = kind.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
    model.name_or_path = ""  # PEFT would ask the Hub for a config.json there
    return DualEncoder.of(model, make_processor(written, tokenizer))


def write_open_clip(model: PreTrainedModel, processor: ProcessorMixin, folder: Path, dtype: torch.dtype) -> None:
    """Write a model into `folder` as open_clip reads it, in `dtype`, with its tokenizer.

    One that came in this format gets the config back that it came with, and a weight that had another dtype has it still,
    unless that would round it.

    Raises:
        InputError: when open_clip cannot do what the model or its processor does.
    """
    config = config_for(model.config, processor)
    dtypes = kept(model.config, "dtypes")
    stored = to_open_clip(model.state_dict(), entries(model))
    for key, tensor in stored.items():
        if tensor.is_floating_point():
            own = DTYPES.get(str(dtypes.get(key)), dtype)
            stored[key] = tensor.to(own if torch.equal(tensor.to(own).to(tensor.dtype), tensor) else dtype)
    write_json(folder / CONFIG, config)
    save_file(stored, folder / WEIGHTS[0], metadata={"format": "pt"})
    processor.tokenizer.save_pretrained(folder)


def _load(folder: Path, name: str) -> dict[str, Tensor]:
    file = next(file for file in WEIGHTS if (folder / file).is_file())
    try:
        return load_file(folder / file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"`model`: the {file} of {name} cannot be read ({error}); fetch it again.") from error


def _check(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are not those of the config."""
    for kind, keys in (("lack", expected.keys() - stored), ("hold an unknown", stored.keys() - expected)):
        if keys:
            raise InputError(
                f"`model`: the weights of {name} {kind} {', '.join(sorted(keys)[:3])} ({len(keys)} in all), by its {CONFIG}."
            )
    for key, tensor in stored.items():
        wanted = expected[key]
        if tensor.shape != wanted.shape or tensor.dtype not in (*DTYPES.values(), wanted.dtype):
            raise InputError(
                f"`model`: {key} of {name} is {tensor.dtype} of shape {tuple(tensor.shape)}, and by its {CONFIG} "
                f"{wanted.dtype} of shape {tuple(wanted.shape)}; one of the two is of another model."
            )
