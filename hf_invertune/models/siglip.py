"""SigLIP and SigLIP 2: a sigmoid loss, texts that are always padded, and with NaFlex pictures that come as patches."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Siglip2Model,
    Siglip2Processor,
    Siglip2VisionModel,
    SiglipModel,
    SiglipProcessor,
    SiglipVisionModel,
)

from ..data.naflex import square_side
from ..errors import InputError
from .two_towers import TwoTowerEncoder


class SiglipEncoder(TwoTowerEncoder):
    """A `SiglipModel`: SigLIP (arXiv 2303.15343), and SigLIP 2 (arXiv 2502.14786) of a fixed resolution.

    The text tower pools its last token, mostly a pad, and was trained without a mask, on lower case: texts that are padded
    to the longest, or masked, get other embeddings without any error.
    """

    model_type = "siglip"
    model_classes: ClassVar[tuple[type[PreTrainedModel], ...]] = (SiglipModel,)
    processor_class: ClassVar[type[ProcessorMixin]] = SiglipProcessor
    tower: ClassVar[type[nn.Module]] = SiglipVisionModel
    padding = "max_length"
    text_inputs = ("input_ids",)
    sigmoid = True

    def tokenize(self, texts: Sequence[str], padding: bool | str | None = None) -> dict[str, Tensor]:
        return super().tokenize([text.lower() for text in texts], padding)


class Siglip2Encoder(SiglipEncoder):
    """A `Siglip2Model` (NaFlex), which takes pictures of any shape as patches; here they are squares, see `data/naflex.py`."""

    model_type = "siglip2"
    model_classes = (Siglip2Model,)
    processor_class = Siglip2Processor
    tower = Siglip2VisionModel
    picture_settings = ("max_num_patches", "patch_size")

    @property
    def image_size(self) -> int:
        side = square_side(self.processor.image_processor)
        if side is None:
            raise InputError(
                f"`processor`: a {type(self.processor.image_processor).__name__} gives no patches; save the model's own."
            )
        return side

    def image_inputs(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Patches, N x places x (patch * patch * 3), and the grid that they form; no mask, as nothing is padded."""
        patch = self.model.config.vision_config.patch_size
        cut = pixel_values.unflatten(3, (-1, patch)).unflatten(
            2, (-1, patch)
        )  # N x 3 x rows x patch x columns x patch
        rows, columns = cut.shape[2], cut.shape[4]
        return {
            "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2),
            "spatial_shapes": torch.tensor([[rows, columns]]).expand(len(cut), 2),
        }
