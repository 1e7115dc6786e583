"""What open_clip's config says as config and processor of transformers, and back."""

from pathlib import Path
from typing import Any, cast

from huggingface_hub import try_to_load_from_cache
from PIL.Image import Resampling
from transformers import CLIPConfig, CLIPProcessor, CLIPTokenizer, PreTrainedConfig, ProcessorMixin
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ...errors import InputError
from .config import OpenCLIPConfig, parse_config
from .resnet import ResNetCLIPConfig


TOKENIZERS = ("openai/clip-vit-large-patch14", "openai/clip-vit-base-patch32")
"""Where the one tokenizer lies that belongs to every model of open_clip without one of its own."""
VOCABULARY = 49408
"""How many entries that one has."""
FILES = ("tokenizer.json", "tokenizer_config.json")

EPSILON = 1e-5
"""Of all layer norms of open_clip."""
ACTIVATIONS = {"quick_gelu": True, "gelu": False}
INTERPOLATIONS = {"bicubic": Resampling.BICUBIC, "bilinear": Resampling.BILINEAR, "random": Resampling.BICUBIC}


def text_config(config: OpenCLIPConfig, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Settings of the `CLIPTextConfig`."""
    text = config.text
    return {
        "hidden_size": text.width,
        "intermediate_size": int(text.width * text.mlp_ratio),
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "max_position_embeddings": text.context_length,
        "vocab_size": text.vocab_size,
        "hidden_act": _activation(config),
        "layer_norm_eps": EPSILON,
        "projection_dim": config.embed_dim,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def model_config(config: OpenCLIPConfig, tokenizer: CLIPTokenizer) -> CLIPConfig | ResNetCLIPConfig:
    """The config of a `CLIPModel`, or of a [`ResNetCLIP`]."""
    vision, text_tower = config.vision, text_config(config, tokenizer)
    if config.stages is not None:
        return ResNetCLIPConfig(
            text_config=text_tower,
            stages=tuple(config.stages),
            width=vision.width,
            heads=vision.attention[1],
            image_size=vision.size,
            projection_dim=config.embed_dim,
        )
    image_tower = {
        "hidden_size": vision.width,
        "intermediate_size": int(vision.width * vision.mlp_ratio),
        "num_hidden_layers": vision.layers,
        "num_attention_heads": vision.attention[1],
        "image_size": vision.size,
        "patch_size": vision.patch,
        "hidden_act": _activation(config),
        "layer_norm_eps": EPSILON,
        "projection_dim": config.embed_dim,
    }
    return CLIPConfig(text_config=text_tower, vision_config=image_tower, projection_dim=config.embed_dim)


def _activation(config: OpenCLIPConfig) -> str:
    return next(name for name, quick in ACTIVATIONS.items() if quick is config.quick_gelu)


def make_processor(config: OpenCLIPConfig, tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """The processor that does what open_clip does to pictures at inference, and this tokenizer."""
    size, preprocess = config.vision.size, config.preprocess
    square = {"height": size, "width": size}
    cropped = preprocess.resize_mode == "shortest"
    mean, std = preprocess.normalization
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": size} if cropped else square,
        do_center_crop=cropped,
        crop_size=square,
        resample=INTERPOLATIONS[preprocess.interpolation],
        image_mean=mean,
        image_std=std,
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def read_tokenizer(folder: Path, config: OpenCLIPConfig, name: str) -> CLIPTokenizer:
    """The tokenizer in `folder`, or CLIP's own from the cache; errors call the model `name`.

    Raises:
        InputError: when there is none, or one that does not go with the model.
    """
    if any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        place = folder
    else:
        own = TOKENIZERS if config.text.vocab_size == VOCABULARY else ()
        found = [path for path in (try_to_load_from_cache(one, FILES[0]) for one in own) if isinstance(path, str)]
        if not found:
            elsewhere = f", or fetch CLIP's: hf download {TOKENIZERS[0]} {' '.join(FILES)}" if own else ""
            raise InputError(
                f"`processor`: {name} holds no tokenizer; add {' and '.join(FILES)} to its folder{elsewhere}."
            )
        place = Path(found[0]).parent
    try:
        tokenizer = CLIPTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # what tokenizers finds wrong with a file has no class of its own
        reason = str(error).partition("\n")[0]
        raise InputError(f"`processor`: that of {name} cannot be used ({reason}).") from error
    check_tokenizer(tokenizer, config.text.vocab_size, name)
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.text.context_length)
    return tokenizer


def check_tokenizer(tokenizer: CLIPTokenizer, vocab_size: int, name: str) -> None:
    """Refuse a tokenizer by which open_clip, which pools at the largest id, would not pool at the end of the text."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if tokenizer.eos_token_id != largest or largest >= vocab_size:
        raise InputError(
            f"`processor`: the tokenizer of {name} ends texts with the id {tokenizer.eos_token_id} and goes up to "
            f"{largest}, in a model of {vocab_size}; open_clip needs the end to be the largest id. Add the right one."
        )


def config_for(config: PreTrainedConfig, processor: ProcessorMixin) -> dict[str, Any]:
    """The open_clip_config.json of a `CLIPModel`: the one that it came with, while that still describes it.

    Raises:
        InputError: when open_clip cannot do what the model or its processor does.
    """
    described = describe(config, processor)
    came: Any = kept(config, "config")
    try:
        if _means(came, processor.tokenizer) == _means(described, processor.tokenizer):
            return cast(dict[str, Any], came)
    except InputError:  # it came with none
        pass
    return described


def kept(config: PreTrainedConfig, key: str) -> dict[str, Any]:
    """What the config of a model that came in the format of open_clip keeps of that, under `key`."""
    origin = getattr(config, "open_clip", None)
    part = origin.get(key) if isinstance(origin, dict) else None
    return part if isinstance(part, dict) else {}


def _means(written: Any, tokenizer: CLIPTokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a config says, in the terms of transformers."""
    config = parse_config(written)
    image_processor = make_processor(config, tokenizer).image_processor
    return model_config(config, tokenizer).to_dict(), image_processor.to_dict()


def describe(config: Any, processor: ProcessorMixin) -> dict[str, Any]:
    """An open_clip_config.json for a model that came without one.

    Raises:
        InputError: when open_clip cannot do what the model or its processor does.
    """
    text, image = config.text_config, processor.image_processor
    transformers = [text, config.vision_config] if isinstance(config, CLIPConfig) else [text]
    image_size = getattr(transformers[-1], "image_size", None) or config.image_size
    check_tokenizer(processor.tokenizer, text.vocab_size, "the model")
    resampling = next((name for name, method in INTERPOLATIONS.items() if method == image.resample), None)
    size = dict(image.size)
    needed = {
        "one activation, GELU or QuickGELU": {one.hidden_act for one in transformers}
        in [{act} for act in ACTIVATIONS],
        f"layer norms with an epsilon of {EPSILON}": {one.layer_norm_eps for one in transformers} == {EPSILON},
        "bicubic or bilinear resizing": resampling is not None,
        "pictures that are resized to the size of the image tower": set(size.values()) == {image_size},
    }
    absent = [what for what, there in needed.items() if not there]
    if absent:
        raise InputError(
            f"`format`: open_clip needs {', and '.join(absent)}, which this model has not; save it as 'transformers'."
        )
    text_tower = {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
        "mlp_ratio": _ratio(text.intermediate_size, text.hidden_size),
    }
    model = {
        "embed_dim": config.projection_dim,
        "quick_gelu": ACTIVATIONS[text.hidden_act],
        "vision_cfg": {"image_size": image_size, **_image_tower(config)},
        "text_cfg": text_tower,
    }
    preprocess = {
        "size": image_size,
        "mode": "RGB",
        "mean": list(image.image_mean) if image.do_normalize else [0.0] * 3,
        "std": list(image.image_std) if image.do_normalize else [1.0] * 3,
        "interpolation": resampling,
        "resize_mode": "shortest" if "shortest_edge" in size else "squash",
    }
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def _image_tower(config: Any) -> dict[str, Any]:
    if isinstance(config, ResNetCLIPConfig):
        head_width = 32 * config.width // config.heads
        return {"layers": list(config.stages), "width": config.width, "head_width": head_width}
    vision = config.vision_config
    return {
        "layers": vision.num_hidden_layers,
        "width": vision.hidden_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
        "patch_size": vision.patch_size,
        "mlp_ratio": _ratio(vision.intermediate_size, vision.hidden_size),
    }


def _ratio(hidden: int, width: int) -> float:
    """A ratio from which open_clip computes `hidden` again, rounding down."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
