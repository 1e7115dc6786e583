"""CLIP, and the families that differ from it in their text tower alone: MetaCLIP 2, AltCLIP, Chinese-CLIP."""

from typing import ClassVar

from torch import nn
from transformers import (
    AltCLIPModel,
    AltCLIPProcessor,
    AltCLIPVisionModel,
    ChineseCLIPModel,
    ChineseCLIPProcessor,
    ChineseCLIPVisionModel,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionModel,
    MetaClip2Model,
    MetaClip2VisionModel,
    PreTrainedModel,
)

from .two_towers import TwoTowerEncoder


class CLIPEncoder(TwoTowerEncoder):
    """A `CLIPModel` (arXiv 2103.00020) with a vision transformer."""

    model_type = "clip"
    model_classes: ClassVar[tuple[type[PreTrainedModel], ...]] = (CLIPModel,)
    processor_class = CLIPProcessor
    tower: ClassVar[type[nn.Module]] = CLIPVisionModel
    formats: ClassVar[tuple[str, ...]] = ("transformers", "open_clip")


class MetaClip2Encoder(TwoTowerEncoder):
    """A `MetaClip2Model` (arXiv 2507.22062): 300 languages, pooled at the first end of text."""

    model_type = "metaclip_2"
    model_classes = (MetaClip2Model,)
    processor_class = CLIPProcessor
    tower = MetaClip2VisionModel


class AltCLIPEncoder(TwoTowerEncoder):
    """An `AltCLIPModel` (arXiv 2211.06679): an XLM-RoBERTa, pooled at its first token."""

    model_type = "altclip"
    model_classes = (AltCLIPModel,)
    processor_class = AltCLIPProcessor
    tower = AltCLIPVisionModel

    @property
    def context(self) -> int:
        return super().context - self.model.config.text_config.pad_token_id - 1  # where RoBERTa's places begin


class ChineseCLIPEncoder(TwoTowerEncoder):
    """A `ChineseCLIPModel` (arXiv 2211.01335): a Chinese BERT, which makes nothing of English prompts."""

    model_type = "chinese_clip"
    model_classes = (ChineseCLIPModel,)
    processor_class = ChineseCLIPProcessor
    tower = ChineseCLIPVisionModel
    templates = (
        "一张{}的照片",
        "一张{}的图片",
        "一幅{}的画",
        "一张质量好的{}的照片",
        "一张{}的特写照片",
        "一张模糊的{}的照片",
        "{}",
    )
