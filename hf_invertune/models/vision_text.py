"""VisionTextDualEncoder: any image tower beside any text tower."""

from typing import ClassVar

from torch import nn
from transformers import (
    BertModel,
    CLIPTextModel,
    CLIPVisionModel,
    DeiTModel,
    Dinov2Model,
    PreTrainedModel,
    ProcessorMixin,
    RobertaModel,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
    ViTModel,
    XLMRobertaModel,
)

from ..errors import InputError
from .two_towers import TwoTowerEncoder


TEXT_TOWERS = (BertModel, RobertaModel, XLMRobertaModel, CLIPTextModel)


class VisionTextEncoder(TwoTowerEncoder):
    """A `VisionTextDualEncoderModel` of a vision transformer and a BERT, RoBERTa or CLIP's text tower.

    Raises:
        InputError: other towers.
    """

    model_type = "vision-text-dual-encoder"
    model_classes = (VisionTextDualEncoderModel,)
    processor_class: ClassVar[type[ProcessorMixin]] = VisionTextDualEncoderProcessor
    tower = (ViTModel, DeiTModel, Dinov2Model, CLIPVisionModel)

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        super().__init__(model, processor)
        for part, kinds in (("vision_model", self.tower), ("text_model", TEXT_TOWERS)):
            found = getattr(self._dual, part)
            if not isinstance(found, kinds):
                known = ", ".join(kind.__name__ for kind in kinds)
                raise InputError(
                    f"`model`: its {part} is a {type(found).__name__}; of this family one of {known} can be used."
                )

    @property
    def context(self) -> int:
        modules = self._dual.text_model.named_modules()
        places = next(module for name, module in modules if name.split(".")[-1].startswith("position_embedding"))
        return places.num_embeddings - (0 if places.padding_idx is None else places.padding_idx + 1)

    @property
    def _layers(self) -> str:
        lists = [name for name, module in self.model.named_modules() if isinstance(module, nn.ModuleList)]
        (name,) = [
            n for n in lists if n.startswith("vision_model.") and len(self.model.get_submodule(n)) == self.layers
        ]
        return name
