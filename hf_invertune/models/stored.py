"""The files of a model as they lie in its folder: looked at before anything is made of them."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import InputError
from ..utils.progress import without_bars_of_transformers


WHOLE, INDEX = ("model.safetensors", "model.safetensors.index.json")
"""The file that holds all weights, or else the index of those that hold a part each."""
SETTINGS = {
    "config.json": "model",
    **dict.fromkeys(
        ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "vocab.json"), "processor"
    ),
    **dict.fromkeys(("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"), "processor"),
}
"""Files that hold one JSON object each, and the argument that errors in them are put to."""
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What weights may be stored as."""
POINTER = b"version https://git-lfs.github.com/spec/"


def check_settings(folder: Path, name: str) -> None:
    """Look at the [`SETTINGS`] that are in `folder`; errors call the model `name`.

    Raises:
        InputError: when one is damaged, or config.json asks for what cannot be trained.
    """
    for file, argument in SETTINGS.items():
        if (folder / file).is_file():
            read_object(folder, file, argument, name)
    if (folder / "config.json").is_file():
        quantised = read_object(folder, "config.json", "model", name).get("quantization_config")
        if quantised is not None:
            method = quantised.get("quant_method") if isinstance(quantised, dict) else None
            raise InputError(
                f"`model`: the weights of {name} are quantised, by its config.json"
                f"{f' with {method}' if isinstance(method, str) else ''}; gradients need the float weights that they were "
                "made of: pass that model."
            )


def load_weights(kind: type[PreTrainedModel], folder: Path, name: str) -> tuple[PreTrainedModel, list[str]]:
    """The model of class `kind` in `folder`, and the names of the weights that it lacks.

    Its dtype is that of the stored weights, the widest of several, and its attention is the one that this installation has
    for it, whatever its config.json says of either.

    Raises:
        InputError: when its weights are damaged, are no floats, or are not those that its config.json describes.
    """
    config: Any = kind.config_class.from_pretrained(folder)  # type: ignore[union-attr]
    config._attn_implementation = None
    stored = dict(entries(folder, name))
    deepest = max(_values(config.to_dict(), "num_hidden_layers"), default=0)
    if deepest > len(stored):
        raise InputError(
            f"`model`: by its config.json {name} has {deepest} layers, and its weights are {len(stored)}; one of the two "
            "is of another model."
        )
    with torch.device("meta"):
        empty: dict[str, Any] = kind(config).state_dict()
    for key, (file, dtype, shape) in stored.items():
        wanted = empty.get(key)
        if wanted is not None and (
            list(wanted.shape) != shape or (wanted.is_floating_point() and dtype not in FLOATS)
        ):
            raise InputError(
                f"`model`: {key} in {file} of {name} is {dtype} of shape {shape}, and by its config.json it should be "
                f"floats of shape {list(wanted.shape)}; one of the two is of another model, or it is quantised."
            )
    described, there = (sum(map(math.prod, shapes)) for shapes in ((t.shape for t in empty.values()), _shapes(stored)))
    if described > 2 * there:
        raise InputError(
            f"`model`: by its config.json {name} has {described:,} parameters, and its weights have {there:,}; one of the "
            "two is of another model, or some weights are missing."
        )
    floats = [FLOATS[dtype] for _, dtype, _ in stored.values() if dtype in FLOATS] or [torch.float32]
    widest = reduce(torch.promote_types, floats)
    settings: dict[str, Any] = {"dtype": widest, "use_safetensors": True, "output_loading_info": True}
    with without_bars_of_transformers():
        loaded: Any = kind.from_pretrained(folder, config=config, **settings)
    model, loading = loaded
    return model, sorted(loading["missing_keys"])


def weights_digest(weights: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of `weights` as stored in `dtype`, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def parts(folder: Path, index: str, name: str) -> list[str]:
    """The names of the files of weights that an index in `folder` lists; errors call the model `name`.

    Raises:
        InputError: when it is damaged, or lists what is no .safetensors file beside it.
    """
    listed = read_object(folder, index, "model", name).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(file, str) for file in listed.values()):
        raise InputError(f"`model`: the {index} of {name} has no weight_map of names to files; fetch or save it anew.")
    files = sorted(set(listed.values()))
    for file in files:
        if Path(file).name != file or Path(file).suffix != ".safetensors":
            raise InputError(
                f"`model`: the {index} of {name} lists {file!r}, which is no .safetensors file beside it."
            )
    return files


@contextmanager
def refusing(message: str) -> Iterator[None]:
    """Whatever libraries raise on files that are damaged in a way that nothing here looks for: an `InputError`.

    They raise errors of any kind then, among them one of Rust's that is no `Exception`.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{message} ({_reason(error)}); it may be damaged, or of another model.") from error


def read_object(folder: Path, file: str, argument: str, name: str) -> dict[str, Any]:
    """The JSON object in a file of `folder`; errors put it to `argument`, and call the model `name`.

    Raises:
        InputError: when it is damaged, or holds something else.
    """
    try:
        content = (folder / file).read_bytes()
        if content.startswith(POINTER):
            raise InputError(_pointer(file, argument, name))
        value = json.loads(content.decode())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"`{argument}`: the {file} of {name} is damaged ({_reason(error)}); fetch or save it anew."
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            f"`{argument}`: the {file} of {name} holds a {type(value).__name__}; it must be a JSON object."
        )
    return value


def files(folder: Path, name: str) -> list[str]:
    """The names of the files of weights: one, or those that the index lists; errors call the model `name`.

    Raises:
        InputError: when the index is damaged, or a file is missing.
    """
    if (folder / WHOLE).is_file():
        return [WHOLE]
    files = parts(folder, INDEX, name)
    for file in files:
        if not (folder / file).is_file():
            raise InputError(f"`model`: {name} lacks {file}, which its {INDEX} lists; fetch or save it anew.")
    return files


def entries(folder: Path, name: str) -> Iterator[tuple[str, tuple[str, str, list[int]]]]:
    """Each stored weight: its name, and its file, dtype and shape; errors call the model `name`.

    Raises:
        InputError: when a file is missing or damaged.
    """
    for file in files(folder, name):
        path = folder / file
        try:
            with path.open("rb") as content:
                start = content.read(len(POINTER))
            if not start:
                raise InputError(f"`model`: the {file} of {name} is empty; fetch or save it anew.")
            if start == POINTER:
                raise InputError(_pointer(file, "model", name))
            with safe_open(path, framework="pt") as weights:
                for key in weights.keys():  # noqa: SIM118
                    entry = weights.get_slice(key)
                    yield key, (file, entry.get_dtype(), entry.get_shape())
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"`model`: the {file} of {name} is cut off or damaged ({_reason(error)}); fetch or save it anew."
            ) from error


def _pointer(file: str, argument: str, name: str) -> str:
    return (
        f"`{argument}`: the {file} of {name} is a pointer of Git LFS, not the file itself; run `git lfs pull` there, or pass "
        "the Hub id."
    )


def _shapes(stored: dict[str, tuple[str, str, list[int]]]) -> Iterator[list[int]]:
    return (shape for _, _, shape in stored.values())


def _values(settings: dict[str, Any], name: str) -> Iterator[int]:
    """The values of that name in nested settings."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _values(value, name)
        elif key == name and isinstance(value, int):
            yield value


def _reason(error: BaseException) -> str:
    """What `error` says, in one line of at most 200 letters."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 200 else f"{said[:199]}…"
