"""A SigLIP small enough to be trained on two cores, with the tokenizer of a small CLIP."""

import copy
from math import log

import torch
from transformers import CLIPProcessor, CLIPTokenizer, SiglipConfig, SiglipModel, SiglipProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from .small_clip import text_settings


def without_mask(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """The same tokenizer as the checkpoints of SigLIP have it: it gives no mask, since none was trained with."""
    other = copy.deepcopy(tokenizer)
    other.model_input_names = other.init_kwargs["model_input_names"] = ["input_ids"]
    return other


def make_siglip(
    processor: CLIPProcessor, vision: dict[str, int], text: dict[str, int], projection_dim: int
) -> tuple[SiglipModel, SiglipProcessor]:
    """A SigLIP with fresh weights, and its processor, for the pictures and the texts that `processor` is for.

    Args:
        processor ([`~transformers.CLIPProcessor`]): gives tokenizer and size.
        vision, text (`dict[str, int]`): settings of its two configs.
        projection_dim (`int`): size of the embeddings, which has to be the image tower's width.
    """
    tokenizer = without_mask(processor.tokenizer)
    size = processor.image_processor.crop_size
    config = SiglipConfig(
        text_config={**text, **text_settings(tokenizer), "projection_size": projection_dim},
        vision_config={**vision, "image_size": size["height"]},
    )
    model = SiglipModel(config)
    with torch.no_grad():  # arXiv 2303.15343, section 3.2: most pairs are negatives
        model.logit_scale.fill_(log(10))
        model.logit_bias.fill_(-10)
    image_processor = SiglipImageProcessorPil(size={"height": size["height"], "width": size["width"]})
    return model, SiglipProcessor(image_processor=image_processor, tokenizer=tokenizer)
