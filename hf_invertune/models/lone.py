"""An image tower that is looked at without any text tower: it embeds pictures, and reads no names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

from torch import Tensor, nn
from transformers import (
    AltCLIPVisionModel,
    ChineseCLIPVisionModel,
    CLIPSegVisionModel,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    MetaClip2VisionModel,
    MetaClip2VisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    SiglipVisionModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..errors import InputError
from ..utils.progress import without_bars_of_transformers
from .encoder import DualEncoder
from .processor import SETTINGS, read_image_processor, says_how_to_read_pictures
from .stored import refusing
from .towers import Tower


PROJECTED: dict[Any, type[PreTrainedModel]] = {
    CLIPVisionModel: CLIPVisionModelWithProjection,
    MetaClip2VisionModel: MetaClip2VisionModelWithProjection,
}
"""The classes of towers that bring their own projection into the space of texts."""


class PictureProcessor(ProcessorMixin):
    """What makes a tower's pictures; it has no tokenizer, and is stored as the image processor that it holds."""

    def __init__(self, image_processor: Any):
        super().__init__(image_processor)

    def save_pretrained(self, save_directory: str | Path, **settings: Any) -> Any:  # type: ignore[override]
        return self.image_processor.save_pretrained(save_directory, **settings)


class LoneTower(DualEncoder):
    """An image tower alone.

    Its embeddings are those that pictures share with texts where it has its own projection, and else what goes into that.
    """

    model_classes: ClassVar[tuple[type[PreTrainedModel], ...]] = (
        *PROJECTED.values(),
        *PROJECTED,
        AltCLIPVisionModel,
        ChineseCLIPVisionModel,
        CLIPSegVisionModel,
        SiglipVisionModel,
    )
    processor_class = PictureProcessor

    @classmethod
    def read(cls, folder: Path, name: str) -> tuple[Self, list[str]]:
        raise InputError(f"`model`: {name} is an image tower alone; it is read by its weights, see `read_alone`.")

    @property
    def reads_text(self) -> bool:
        return False

    @property
    def image_size(self) -> int:
        return int(self.model.config.image_size)

    @property
    def layers(self) -> int:
        return int(self.model.config.num_hidden_layers)

    @property
    def scale(self) -> Tensor:
        self._refuse_text()

    @property
    def context(self) -> int:
        self._refuse_text()

    def text_features(self, texts: Sequence[str]) -> Tensor:
        self._refuse_text()

    def image_outputs(self, pixel_values: Tensor, hidden_states: bool = False) -> Any:
        outputs = self.base(pixel_values, output_hidden_states=hidden_states)
        if isinstance(self.base, tuple(PROJECTED.values())):
            return BaseModelOutputWithPooling(pooler_output=outputs.image_embeds, hidden_states=outputs.hidden_states)
        return outputs

    def linear_modules(self, layers: Sequence[int]) -> list[str]:
        parts = tuple(f"encoder.layers.{layer}." for layer in layers)
        modules = self.model.named_modules()
        return [
            name
            for name, module in modules
            if isinstance(module, nn.Linear) and name.removeprefix("vision_model.").startswith(parts)
        ]

    def _refuse_text(self) -> NoReturn:
        self.require_text()
        raise AssertionError


def read_alone(tower: Tower, family: type[DualEncoder], config: PretrainedConfig, folder: Path) -> LoneTower:
    """The image tower, in its dtype, with the image processor in `folder`.

    Args:
        tower ([`Tower`]): where its weights are.
        family (`type[DualEncoder]`): the family of the models that it is trained in.
        config ([`~transformers.PretrainedConfig`]): of the tower, or of the model that it is in.
        folder (`Path`): holds its settings.

    Raises:
        InputError: when it gives no embeddings, weights are missing, or there is no image processor.
    """
    kind: Any = PROJECTED.get(family.tower) if tower.projected else family.tower
    settings: Any = getattr(config, "vision_config", config)
    headless = kind is SiglipVisionModel and not settings.vision_use_head
    if kind not in LoneTower.model_classes or headless:
        raise InputError(
            f"`text_model`: got none, and the image tower of {tower.name} gives no embeddings of its own; pass the "
            f"{family.model_classes[0].__name__} that it was trained in."
        )
    if not says_how_to_read_pictures(folder):
        raise InputError(
            f"`processor`: {tower.name} holds neither {' nor '.join(SETTINGS)}; save its image processor there, or pass the "
            "`text_model` that it was trained in, whose processor is taken then."
        )
    settings._attn_implementation = None
    given: dict[str, Any] = {"config": settings, "state_dict": tower.read(), "dtype": tower.dtype}
    with without_bars_of_transformers():
        model, loading = kind.from_pretrained(None, output_loading_info=True, **given)
    absent = sorted(loading["missing_keys"])
    if absent:
        raise InputError(f"`model`: the weights of {tower.name} lack {', '.join(absent[:3])} ({len(absent)} in all).")
    with refusing(f"`processor`: the {' or '.join(SETTINGS)} of {tower.name} cannot be used"):
        pictures = read_image_processor(folder)
    return LoneTower(model, PictureProcessor(pictures))
