"""open_clip_config.json: what it may say of a model that can be converted, and what holds when it says nothing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ...errors import InputError
from ...utils.settings import Settings, read, setting


CONFIG = "open_clip_config.json"

PLAIN = {
    "pool_type": ("tok", "argmax"),
    "pos_embed_type": ("learnable",),
    "block_type": ("default",),
    "proj_type": ("linear",),
}
"""What some settings may say beside nothing; the others must say nothing."""
IDLE = ("patch_dropout", "output_tokens", "init_logit_scale", "hf_tokenizer_name", "pad_id", "eos_id")
"""Settings that change nothing in a model that is not trained, comes with its tokenizer, and pools at the largest id."""
IDLE_OF_PARTS = ("attn_pooler_", "timm_", "hf_")
"""How settings begin that belong to parts which other settings name."""
PARTS = {
    "timm_model_name": "an image tower of timm",
    "hf_model_name": "a text tower of transformers",
    "multimodal_cfg": "the text decoder of CoCa",
    "custom_text": "a text tower of its own",
    "init_logit_bias": "the bias of SigLIP",
}
"""What settings name that cannot be converted."""

T = TypeVar("T", bound=Settings)


@dataclass
class VisionConfig(Settings):
    """The image tower: a vision transformer, or a ResNet when `layers` are the blocks of its four stages."""

    layers: int | list[int] = setting(12, least=1, most=1024)
    width: int = setting(768, least=2, most=2**20)
    head_width: int = setting(64, least=1, most=2**20)
    mlp_ratio: float = setting(4.0, above=0, most=1024)
    patch_size: int | list[int] = setting(16, least=1, most=2**20)
    image_size: int | list[int] = setting(224, least=1, most=2**20)

    @property
    def size(self) -> int:
        """Height and width of its pictures."""
        return _side(self.image_size, "image_size")

    @property
    def patch(self) -> int:
        """Height and width of the patches of a vision transformer."""
        return _side(self.patch_size, "patch_size")

    @property
    def attention(self) -> tuple[int, int]:
        """Width and heads of the attention: of each layer, or where a ResNet pools."""
        width = 32 * self.width if isinstance(self.layers, list) else self.width
        return width, width // self.head_width


@dataclass
class TextConfig(Settings):
    """The text tower."""

    context_length: int = setting(77, least=2, most=2**20)
    vocab_size: int = setting(49408, least=2, most=2**24)
    width: int = setting(512, least=1, most=2**20)
    heads: int = setting(8, least=1, most=2**20)
    layers: int = setting(12, least=1, most=1024)
    mlp_ratio: float = setting(4.0, above=0, most=1024)


@dataclass
class PreprocessConfig(Settings):
    """What is done to pictures; their size is that of the image tower, whatever stands here."""

    mode: Literal["RGB"] = "RGB"
    mean: float | list[float] = setting(factory=lambda: list(OPENAI_CLIP_MEAN), least=-1e6, most=1e6)
    std: float | list[float] = setting(factory=lambda: list(OPENAI_CLIP_STD), above=0, most=1e6)
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"

    @property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the three colours; open_clip takes a single 0 for nothing said."""
        return _colours(self.mean or OPENAI_CLIP_MEAN, "mean"), _colours(self.std, "std")


@dataclass
class OpenCLIPConfig:
    """All of the file.

    Attributes:
        embed_dim (`int`), quick_gelu (`bool`): of both towers.
        vision ([`VisionConfig`]), text ([`TextConfig`]), preprocess ([`PreprocessConfig`]): the parts.
        source (`dict`): what stands in the file.
    """

    embed_dim: int
    quick_gelu: bool
    vision: VisionConfig
    text: TextConfig
    preprocess: PreprocessConfig
    source: dict[str, Any]

    @property
    def stages(self) -> list[int] | None:
        """The blocks of a ResNet's four stages; `None` for a vision transformer."""
        return self.vision.layers if isinstance(self.vision.layers, list) else None


@dataclass
class _Both(Settings):
    embed_dim: int = setting(least=1, most=2**20)
    quick_gelu: bool = False


def read_config(folder: Path, name: str) -> OpenCLIPConfig:
    """The config in `folder`; errors call the model `name`.

    Raises:
        InputError: when it cannot be read, or describes what cannot be converted.
    """
    try:
        written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"`model`: the {CONFIG} of {name} cannot be read ({error}).") from error
    try:
        return parse_config(written)
    except InputError as error:
        raise InputError(f"`model`: the {CONFIG} of {name} cannot be used: {error}") from error


def parse_config(written: Any) -> OpenCLIPConfig:
    """What the file holds, as JSON gives it.

    Raises:
        InputError: when it describes what cannot be converted.
    """
    model = _mapping(written, "model_cfg")
    vision, text = _mapping(model, "vision_cfg"), _mapping(model, "text_cfg")
    foreign = [*_foreign(model, _Both, ("vision_cfg", "text_cfg"))]
    foreign += [*_foreign(vision, VisionConfig), *_foreign(text, TextConfig)]
    if foreign:
        raise InputError(
            f"it has {', '.join(foreign)}. ViT and ResNet image towers with CLIP's own text tower can be converted; of "
            "others, pass a version for transformers, such as a SiglipModel, where there is one."
        )
    both = _part(_Both, model, "model_cfg")
    preprocess = _part(PreprocessConfig, written.get("preprocess_cfg") or {}, "preprocess_cfg")
    towers = _part(VisionConfig, vision, "vision_cfg"), _part(TextConfig, text, "text_cfg")
    config = OpenCLIPConfig(both.embed_dim, both.quick_gelu, *towers, preprocess, written)
    if config.stages is not None and (len(config.stages) != 4 or config.vision.size % 32 or config.vision.width % 2):
        raise InputError(
            f"`layers`: got {config.stages} of width {config.vision.width} for {config.vision.size} pixels; a ResNet has "
            "four stages, an even width, and pixels by the 32."
        )
    for width, heads in (config.vision.attention, (config.text.width, config.text.heads)):
        if heads < 1 or width % heads:
            raise InputError(f"`heads`: {heads} cannot share a width of {width}.")
    _ = config.vision.size, config.vision.patch, config.preprocess.normalization  # which raise what is wrong with them
    return config


def _foreign(part: dict[str, Any], kind: type[Settings], parts: tuple[str, ...] = ()) -> Iterator[str]:
    """The settings of a part by which a model is none that can be converted, in words."""
    read_here = {field.name for field in fields(kind)} | {*parts, *IDLE}  # type: ignore[arg-type]
    for key, value in part.items():
        if key in PARTS and value:
            yield f"{PARTS[key]} ({key}{f' {value}' if isinstance(value, str) else ''})"
        elif value and key not in read_here and value not in PLAIN.get(key, ()) and not key.startswith(IDLE_OF_PARTS):
            yield f"{key} {value!r:.60}"


def _part(kind: type[T], value: Any, path: str) -> T:
    if not isinstance(value, dict):
        raise InputError(f"{path} is {value!r:.60}; it must hold keys and values.")
    known = {field.name: value.get(field.name) for field in fields(kind)}  # type: ignore[arg-type]
    return read(kind, {key: item for key, item in known.items() if item is not None}, path, argument="model")


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get(key), dict):
        raise InputError(f"it holds no {key}.")
    return cast(dict[str, Any], value[key])


def _side(value: int | list[int], name: str) -> int:
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise InputError(f"`{name}`: got {value}; only squares can be used.")
    return sides.pop()


def _colours(value: float | list[float], name: str) -> list[float]:
    values = [float(item) for item in value] if isinstance(value, list) else [float(value)] * 3
    if len(values) != 3:
        raise InputError(f"`{name}`: got {value}; give one number, or three.")
    return values
