"""Pull a model from a folder or the Hub, safely: safetensors only, no code of the model's own."""

import copy
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
import yaml
from huggingface_hub import metadata_load
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, ProcessorMixin

from ..errors import InputError
from ..utils.files import whole_folder
from ..utils.sharing import this_process
from ..utils.tokens import usable_token
from .clip import AltCLIPEncoder, ChineseCLIPEncoder, CLIPEncoder, MetaClip2Encoder
from .clipseg import CLIPSegEncoder
from .encoder import DualEncoder
from .fetching import Format, Origin, TowerOrigin, find_model, format_of
from .fit import check_fit
from .lone import read_alone
from .open_clip import ResNetEncoder, read_open_clip, write_open_clip
from .refusals import refuse_own_code
from .siglip import Siglip2Encoder, SiglipEncoder
from .stored import check_settings, refusing, weights_digest
from .towers import Tower, check_text_model, find_tower, put_in, tower_family
from .vision_text import VisionTextEncoder


logger = logging.getLogger(__name__)


ENCODERS = (
    CLIPEncoder,
    ResNetEncoder,
    SiglipEncoder,
    Siglip2Encoder,
    MetaClip2Encoder,
    AltCLIPEncoder,
    ChineseCLIPEncoder,
    CLIPSegEncoder,
    VisionTextEncoder,
)
"""The families of models; a new one is a file beside this one, and a name here."""


@dataclass
class LoadedModel:
    """A model and where it came from.

    Attributes:
        encoder ([`DualEncoder`]): the model, in float32 so that gradients are exact, and its processor.
        name (`str`): the folder's name or the Hub id.
        revision (`str`, *optional*): the Hub commit.
        dtype (`torch.dtype`): dtype of the stored weights, in which a cleaned model is saved again.
        license (`dict[str, str]`): what its card says of its license, see [`read_license`].
        format (`str`): whose files it came in: `"transformers"` or `"open_clip"`.
        origin ([`Origin`]): what else tells where it came from.
        tower ([`Tower`], *optional*): the image tower alone that came; then the rest of the model is of the one that it is
            judged in, and is not saved.
    """

    encoder: DualEncoder
    name: str
    revision: str | None
    dtype: torch.dtype
    license: dict[str, str] = field(default_factory=dict)
    format: Format = "transformers"
    origin: Origin = field(default_factory=Origin)
    tower: Tower | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model itself."""
        model: PreTrainedModel = self.encoder.model
        return model

    @property
    def processor(self) -> ProcessorMixin:
        """Its processor."""
        processor: ProcessorMixin = self.encoder.processor
        return processor

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is saved of it, by its names: all of its state, or that of the tower which came."""
        return self.model.state_dict() if self.tower is None else self.tower.of(self.model)

    @property
    def parameters(self) -> int:
        """How many parameters are saved."""
        saved = self.model.parameters() if self.tower is None else self.weights.values()
        return sum(tensor.numel() for tensor in saved)

    def holding(self, model: PreTrainedModel) -> "LoadedModel":
        """The same origin with another model of the family, such as a cleaned one."""
        return replace(self, encoder=type(self.encoder)(model, self.processor))

    def save_pretrained(self, folder: str | Path, format: str | None = None) -> None:
        """Save the model in `dtype`, and its processor; `folder` is made whole or not at all.

        An image tower that came without a text tower goes into a copy of the files that it came in, as whatever it was.

        Args:
            folder (`str` or `Path`): where to.
            format (`str`, *optional*): whose files: `"transformers"` or `"open_clip"`, which a model comes back in with
                the config that it had; by default transformers' own, where the family has a class there.

        Raises:
            InputError: when `folder` exists and is not empty, or the model cannot be saved in that format.
        """
        folder, formats = Path(folder), self.encoder.formats if self.tower is None else ("transformers",)
        format = format or formats[0]
        if format not in formats:
            raise InputError(
                f"`format`: got {format!r}; this model can be saved as {' or '.join(map(repr, formats))}."
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"`folder`: {folder} exists and is not empty; name another one.")
        with whole_folder(folder) as whole:
            if self.tower is not None:
                self.tower.write(self.model, whole)
            elif format == "open_clip":
                write_open_clip(self.model, self.processor, whole, self.dtype)
            else:
                stored: Any = copy.deepcopy(self.model)
                stored.to(self.dtype).save_pretrained(whole)
                self.processor.save_pretrained(whole)

    def digest(self) -> str:
        """The [`weights_digest`] of the weights as they are saved."""
        return weights_digest(self.weights, self.dtype)


class LoadOptions(TypedDict, total=False):
    """Which version of a model to load, and where to; see [`load_model`]."""

    text_model: str | Path | None
    revision: str | None
    subfolder: str | None
    variant: str | None
    token: str | bool | None
    device: str | torch.device | None


def load_model(
    name_or_path: str | Path,
    *,
    text_model: str | Path | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    device: str | torch.device | None = None,
) -> LoadedModel:
    """Load a model and its processor, onto the process's own device by default.

    Args:
        name_or_path (`str` or `Path`): a folder, a Hub id, or the address of a model's page on the Hub.
        text_model (`str` or `Path`, *optional*): for an image tower that comes without a text tower, alone or in a model that
            talks about pictures: the whole model whose text tower it was trained with, likewise. Without it such a tower reads
            no names: it can be scanned without labels, and nothing else.
        revision (`str`, *optional*): branch, tag, commit or pull request (`refs/pr/N`) on the Hub.
        subfolder (`str`, *optional*): the folder in the repository, or in the folder, that holds the model.
        variant (`str`, *optional*): which weights to take of a model that has several, such as `"fp16"`.
        token (`str` or `bool`, *optional*): access token of the Hub; by default the one that is logged in.
        device (`str` or `torch.device`, *optional*): where to.

    Raises:
        InputError: when there is no such model, it has no safetensors, is of no family of [`ENCODERS`], lacks its
            processor, or is damaged in whatever way; or when a tower and `text_model` do not fit.
        HubError: when the Hub does not hand it out.
    """
    there = usable_device(device)
    which: Any = {"text_model": text_model, "revision": revision, "subfolder": subfolder, "variant": variant}
    return tried(read_model(name_or_path, token=token, **which), str(name_or_path), there)


def read_model(
    name_or_path: str | Path,
    *,
    text_model: str | Path | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
) -> LoadedModel:
    """Read a model and its processor into memory; nothing goes through it, so whether its parts fit is for [`tried`] to say.

    The arguments and errors are those of [`load_model`].
    """
    token = usable_token(token)
    place = find_model(name_or_path, revision, subfolder, variant, token)
    shown = place.name if place.revision else str(name_or_path)
    format = format_of(place.files, variant)
    config = _config(place.folder, shown) if format == "transformers" else None
    apart = None if config is None else tower_family(config)
    text = _text_model(text_model, config, apart, shown, token)
    place.fetch(shown, token)
    with refusing(f"`model`: {shown} cannot be loaded by its config.json"), place.plain() as folder:
        tower = None
        if config is None:
            encoder = read_open_clip(folder, shown)
        elif apart is not None and text is None:
            tower = find_tower(folder, shown)
            encoder = read_alone(tower, apart, config, folder)
            place.origin.tower = TowerOrigin(tower.architecture)
        elif text is not None:
            tower, sha256 = find_tower(folder, shown), text.digest()
            encoder = put_in(tower, text.encoder, folder)
            place.origin.tower = TowerOrigin(tower.architecture, text.name, text.revision, sha256)
        else:
            encoder, absent = DualEncoder.family_of(config, shown).read(folder, shown)
            encoder.model.name_or_path = str(place.folder)
            if absent:
                raise InputError(
                    f"`model`: the weights of {shown} lack {', '.join(absent[:3])} ({len(absent)} in all)."
                )
        dtype = encoder.model.dtype if tower is None else tower.dtype
        for parameter_name, tensor in encoder.model.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise InputError(f"`model`: {shown} has NaN or infinite values in {parameter_name}.")
        encoder.float().eval()
    license = read_license(place.card)
    return LoadedModel(encoder, place.name, place.revision, dtype, license, format, place.origin, tower)


def tried(source: LoadedModel, given: str, device: torch.device) -> LoadedModel:
    """`source`, moved to `device` once a try has shown that its parts fit; see [`check_fit`].

    Args:
        source ([`LoadedModel`]): what [`read_model`] read, on the CPU.
        given (`str`): the name that it was read by.
        device (`torch.device`): where to.

    Raises:
        InputError: when they do not.
    """
    shown = source.name if source.revision else given
    with refusing(f"`model`: {shown} cannot be loaded by its config.json"):
        check_fit(source.encoder, shown)
    source.encoder.to(device)
    return source


def _config(folder: Path, name: str) -> PretrainedConfig:
    """The config of the model in `folder`, if it is of a family, or is an image tower of one."""
    if not (folder / "config.json").is_file():
        raise InputError(f"`model`: {name} holds no config.json; pass a folder made by `save_pretrained`.")
    check_settings(folder, name)
    with refusing(f"`model`: the config.json of {name} cannot be used"):
        refuse_own_code(folder / "config.json", DualEncoder.by_class(), name)
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if tower_family(config) is None:
        DualEncoder.family_of(config, name)
    return config


def _text_model(
    text_model: str | Path | None,
    config: PretrainedConfig | None,
    family: type[DualEncoder] | None,
    name: str,
    token: str | bool | None,
) -> LoadedModel | None:
    """The model in which the tower with this `config`, of this `family`, is to be judged, where one is named.

    Raises:
        InputError: when it is not wanted, or does not fit.
    """
    if text_model is None:
        return None
    if config is None or family is None:
        raise InputError(f"`text_model`: {name} has a text tower of its own; leave it out.")
    try:
        text = load_model(text_model, token=token, device="cpu")
    except InputError as error:
        raise InputError(f"`text_model`: {str(error).removeprefix('`model`: ')}") from error
    check_text_model(config, text.encoder, family, (name, text.name))
    return text


def state_digest(model: PreTrainedModel, dtype: torch.dtype) -> str:
    """The [`weights_digest`] of all weights of a model."""
    return weights_digest(model.state_dict(), dtype)


def read_license(card: Path) -> dict[str, str]:
    """`license`, `license_name` and `license_link`, as far as the front matter of a model's README.md, `card`, has them."""
    try:
        metadata = (metadata_load(card) if card.is_file() else None) or {}
    except (ValueError, yaml.YAMLError):
        logger.warning("The front matter of %s cannot be read; its license is unknown.", card)
        return {}
    return {key: str(metadata[key]) for key in ("license", "license_name", "license_link") if key in metadata}


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the process's own.

    Raises:
        InputError: when it cannot be used.
    """
    if device is None:
        return this_process().device
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"`device`: {device} cannot be used here ({str(error).splitlines()[0]}).") from error
