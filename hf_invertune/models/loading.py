"""Pull a model from a folder or the Hub, safely: safetensors only, no code of the model's own."""

import copy
import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import yaml
from accelerate import PartialState
from huggingface_hub import list_repo_files, metadata_load, snapshot_download
from transformers import AutoConfig, PreTrainedModel, ProcessorMixin

from ..errors import InputError
from ..utils.files import whole_folder
from ..utils.hub_errors import hub_errors
from .clip import AltCLIPEncoder, ChineseCLIPEncoder, CLIPEncoder, MetaClip2Encoder
from .clipseg import CLIPSegEncoder
from .encoder import DualEncoder
from .open_clip import WEIGHTS as OPEN_CLIP_WEIGHTS
from .open_clip import ResNetEncoder, is_open_clip, read_open_clip, write_open_clip
from .refusals import refuse_own_code
from .siglip import Siglip2Encoder, SiglipEncoder
from .vision_text import VisionTextEncoder


logger = logging.getLogger(__name__)


Format: TypeAlias = Literal["transformers", "open_clip"]
"""Whose files a model is read from and saved in."""

WEIGHTS: dict[Format, tuple[str, ...]] = {
    "transformers": ("model.safetensors", "model.safetensors.index.json"),
    "open_clip": OPEN_CLIP_WEIGHTS,
}
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
NEEDED = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md")

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
    """

    encoder: DualEncoder
    name: str
    revision: str | None
    dtype: torch.dtype
    license: dict[str, str] = field(default_factory=dict)
    format: Format = "transformers"

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

    def holding(self, model: PreTrainedModel) -> "LoadedModel":
        """The same origin with another model of the family, such as a cleaned one."""
        return replace(self, encoder=type(self.encoder)(model, self.processor))

    def save_pretrained(self, folder: str | Path, format: str | None = None) -> None:
        """Save the model in `dtype`, and its processor; `folder` is made whole or not at all.

        Args:
            folder (`str` or `Path`): where to.
            format (`str`, *optional*): whose files: `"transformers"` or `"open_clip"`, which a model comes back in with
                the config that it had; by default transformers' own, where the family has a class there.

        Raises:
            InputError: when `folder` exists and is not empty, or the model cannot be saved in that format.
        """
        folder, formats = Path(folder), self.encoder.formats
        format = format or formats[0]
        if format not in formats:
            raise InputError(
                f"`format`: got {format!r}; this model can be saved as {' or '.join(map(repr, formats))}."
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"`folder`: {folder} exists and is not empty; name another one.")
        with whole_folder(folder) as whole:
            if format == "open_clip":
                write_open_clip(self.model, self.processor, whole, self.dtype)
            else:
                stored: Any = copy.deepcopy(self.model)
                stored.to(self.dtype).save_pretrained(whole)
                self.processor.save_pretrained(whole)

    def digest(self) -> str:
        """The [`state_digest`] of the weights as they are saved."""
        return state_digest(self.model, self.dtype)


def load_model(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    device: str | torch.device | None = None,
) -> LoadedModel:
    """Load a model and its processor from a folder or a Hub id, onto the process's own device by default.

    Raises:
        InputError: when there is no such model, it has no safetensors, is of no family of [`ENCODERS`], lacks its
            processor, or holds weights that are not finite.
    """
    place = _usable(device)
    folder, commit = _fetch(str(name_or_path), revision, token)
    name = str(name_or_path) if commit else folder.resolve().name
    format = format_of(folder)
    family = _family(folder, str(name_or_path)) if format == "transformers" else None
    weights = WEIGHTS[format]
    if not any((folder / file).is_file() for file in weights):
        pickles = _pickles(folder, name, commit, token)
        found = f"only pickled weights ({', '.join(pickles)}), which are never opened" if pickles else "no weights"
        raise InputError(
            f"`model`: {name_or_path} holds {found}; it needs {weights[0]}. Convert pickles in a sandbox, "
            "e.g. with https://huggingface.co/spaces/safetensors/convert."
        )
    if family is None:
        encoder = read_open_clip(folder, str(name_or_path))
    else:
        encoder, absent = family.read(folder, str(name_or_path))
        if absent:
            raise InputError(
                f"`model`: the weights of {name_or_path} lack {', '.join(absent[:3])} ({len(absent)} in all)."
            )
    dtype = encoder.model.dtype
    for parameter_name, tensor in encoder.model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"`model`: {name_or_path} has NaN or infinite values in {parameter_name}.")
    encoder.float().to(place).eval()
    return LoadedModel(encoder, name, commit, dtype, read_license(folder), format)


def format_of(folder: Path) -> Format:
    """The format of the model in `folder`; of one that has both, transformers' own."""
    own = (folder / "config.json").is_file() and any((folder / file).is_file() for file in WEIGHTS["transformers"])
    return "open_clip" if is_open_clip(folder) and not own else "transformers"


def _family(folder: Path, name: str) -> type[DualEncoder]:
    """The family of the model in `folder`, by its config.json."""
    if not (folder / "config.json").is_file():
        raise InputError(f"`model`: {name} holds no config.json; pass a folder made by `save_pretrained`.")
    refuse_own_code(folder / "config.json", DualEncoder.by_class(), name)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"`model`: the config.json of {name} cannot be used ({reason}).") from error
    return DualEncoder.family_of(config, name)


def state_digest(model: PreTrainedModel, dtype: torch.dtype) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all weights as stored in `dtype`, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_license(folder: Path) -> dict[str, str]:
    """`license`, `license_name` and `license_link`, as far as the front matter of the folder's README.md has them."""
    card = folder / "README.md"
    try:
        metadata = (metadata_load(card) if card.is_file() else None) or {}
    except (ValueError, yaml.YAMLError):
        logger.warning("The front matter of %s cannot be read; its license is unknown.", card)
        return {}
    return {key: str(metadata[key]) for key in ("license", "license_name", "license_link") if key in metadata}


def _fetch(name_or_path: str, revision: str | None, token: str | None) -> tuple[Path, str | None]:
    """The local folder of a model, and its commit when it came from the Hub."""
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder, None
    if folder.exists() or name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") != 1:
        raise InputError(f"`model`: {name_or_path} is no folder; pass a folder or a Hub id such as 'org/name'.")
    with hub_errors(name_or_path, argument="model", revision=revision):
        snapshot = Path(
            snapshot_download(
                name_or_path, revision=revision, token=token, allow_patterns=list(NEEDED), ignore_patterns="*/*"
            )
        )
    return snapshot, snapshot.name


def _pickles(folder: Path, name: str, commit: str | None, token: str | None) -> list[str]:
    """Pickles in a local folder, or beside what was fetched from the Hub: they are seen in its list of files alone."""
    if commit is None:
        files = [path.name for path in folder.iterdir()]
    else:
        with hub_errors(name, argument="model", revision=commit):
            files = list_repo_files(name, revision=commit, token=token)
    return sorted(file for file in files if Path(file).suffix in PICKLES)


def _usable(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the process's own."""
    if device is None:
        return PartialState().device
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"`device`: {device} cannot be used here ({str(error).splitlines()[0]}).") from error
