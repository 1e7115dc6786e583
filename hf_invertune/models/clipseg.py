"""CLIPSeg: a CLIP of its own, alone or with a decoder that segments pictures."""

from typing import Any

from transformers import CLIPSegForImageSegmentation, CLIPSegModel, CLIPSegProcessor, CLIPSegVisionModel

from .two_towers import TwoTowerEncoder


class CLIPSegEncoder(TwoTowerEncoder):
    """A `CLIPSegModel`, or the one within a `CLIPSegForImageSegmentation` (arXiv 2112.10003), whose decoder stays as it is."""

    model_type = "clipseg"
    model_classes = (CLIPSegModel, CLIPSegForImageSegmentation)
    processor_class = CLIPSegProcessor
    tower = CLIPSegVisionModel

    @property
    def _dual(self) -> Any:
        return self.base.clip if isinstance(self.base, CLIPSegForImageSegmentation) else self.base

    @property
    def _layers(self) -> str:
        within = "clip." if isinstance(self.model, CLIPSegForImageSegmentation) else ""
        return within + super()._layers

    @property
    def image_size(self) -> int:
        """That of its processor; positions are interpolated to it."""
        return int(self.processor.image_processor.size["height"])
