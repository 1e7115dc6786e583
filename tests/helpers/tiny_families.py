"""Tiny random models of every family, each with a processor of its own class, made without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from tiny import CLASS_NAMES, TEXT, VISION, WORDS
from transformers import BertTokenizer, PreTrainedTokenizerBase, Siglip2Tokenizer, XLMRobertaTokenizer, set_seed
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_invertune.data.prompts import TEMPLATES
from hf_invertune.lab.zoo.small_clip import make_tokenizer, text_settings
from hf_invertune.lab.zoo.small_siglip import without_mask
from hf_invertune.models.clip import ChineseCLIPEncoder


SIDE, PATCH, CONTEXT, WIDTH, DIMENSION = 32, VISION["patch_size"], 40, VISION["hidden_size"], 16
SQUARE = {"height": SIDE, "width": SIDE}
CHARACTERS = sorted(set("".join([*CLASS_NAMES, *TEMPLATES, *ChineseCLIPEncoder.templates, "{}"])) - {" "})


def clip_words() -> PreTrainedTokenizerBase:
    return make_tokenizer(WORDS, CONTEXT)


def siglip_words() -> PreTrainedTokenizerBase:
    return without_mask(clip_words())


def gemma_letters() -> PreTrainedTokenizerBase:
    entries = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *CHARACTERS]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return Siglip2Tokenizer(vocabulary, [], padding_side="right", model_input_names=["input_ids"])


def roberta_letters() -> PreTrainedTokenizerBase:
    entries = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "▁", *CHARACTERS]
    return XLMRobertaTokenizer([(entry, -1.0) for entry in entries], model_max_length=512)


def bert_characters() -> PreTrainedTokenizerBase:
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *(f"##{one}" for one in CHARACTERS)]
    return BertTokenizer({entry: index for index, entry in enumerate(entries)}, model_max_length=512)


def pictures(kind: Callable[..., Any]) -> Any:
    cropped = {"crop_size": SQUARE} if kind in (CLIPImageProcessorPil, ChineseCLIPImageProcessorPil) else {}
    return kind(size={"shortest_edge": SIDE} if kind is CLIPImageProcessorPil else SQUARE, **cropped)


def patches(kind: Callable[..., Any]) -> Any:
    return kind(patch_size=PATCH, max_num_patches=(SIDE // PATCH) ** 2)


FAMILIES: dict[str, tuple[str, Callable[[], Any], Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    # class: its processor's class, tokenizer, image processor, more of the text config, more of the whole config
    "CLIPModel": ("CLIPProcessor", clip_words, CLIPImageProcessorPil, {}, {}),
    "SiglipModel": ("SiglipProcessor", siglip_words, SiglipImageProcessorPil, {"projection_size": WIDTH}, {}),
    "Siglip2Model": ("Siglip2Processor", gemma_letters, Siglip2ImageProcessorPil, {"projection_size": WIDTH}, {}),
    "MetaClip2Model": ("CLIPProcessor", roberta_letters, CLIPImageProcessorPil, {}, {}),
    "AltCLIPModel": ("AltCLIPProcessor", roberta_letters, CLIPImageProcessorPil, {"project_dim": DIMENSION}, {}),
    "ChineseCLIPModel": ("ChineseCLIPProcessor", bert_characters, ChineseCLIPImageProcessorPil, {}, {}),
    "CLIPSegModel": ("CLIPSegProcessor", clip_words, ViTImageProcessorPil, {}, {}),
    "CLIPSegForImageSegmentation": (
        *("CLIPSegProcessor", clip_words, ViTImageProcessorPil, {}),
        {"extract_layers": [0, 1], "reduce_dim": 8, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16},
    ),
    "VisionTextDualEncoderModel": ("VisionTextDualEncoderProcessor", bert_characters, ViTImageProcessorPil, {}, {}),
}
"""How each class is made."""


def save_family(folder: Path, name: str, vision: Any = (), text: Any = ()) -> None:
    """Write a model of the class `name` and its processor into `folder`, as `save_pretrained` does.

    `vision` and `text` are more settings of the configs of its towers.
    """
    set_seed(0)
    processor_class, make, image_processor_class, own, whole = FAMILIES[name]
    tokenizer = make()
    tokenizer.model_max_length = min(tokenizer.model_max_length, 512)
    places = CONTEXT + 2 if name == "AltCLIPModel" else CONTEXT  # RoBERTa's begin behind its pad
    text_config = {**TEXT, **text_settings(tokenizer), "max_position_embeddings": places, **own}
    vision_config = {**VISION, "image_size": SIDE}
    model_class = getattr(transformers, name)
    if name == "Siglip2Model":
        vision_config = {**VISION, "num_patches": (SIDE // PATCH) ** 2}
    if name == "VisionTextDualEncoderModel":
        text_config["model_type"], vision_config["model_type"] = "bert", "vit"
    if "Siglip" not in name:
        whole = {"projection_dim": DIMENSION, **whole}
    towers = {"text_config": {**text_config, **dict(text)}, "vision_config": {**vision_config, **dict(vision)}}
    config = model_class.config_class(**towers, **whole)
    image_processor = (patches if name == "Siglip2Model" else pictures)(image_processor_class)
    model_class(config).save_pretrained(folder)
    getattr(transformers, processor_class)(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(
        folder
    )
