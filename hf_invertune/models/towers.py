"""An image tower without its text tower, alone or within a model that talks about pictures: read, judged, put back.

It is judged in the model whose text tower it was trained with, of which it takes the image tower's place. It goes back into a
copy of the files that it came in, where nothing but its own tensors changes.
"""

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PretrainedConfig

from ..errors import InputError
from .encoder import DualEncoder
from .fetching import SETTINGS
from .processor import SETTINGS as PICTURES
from .processor import read_image_processor, says_how_to_read_pictures
from .stored import FLOATS, INDEX, entries, files, read_object, refusing, weights_digest


PATCHES = "embeddings.patch_embedding.weight"
"""What the name of one tensor ends with in any image tower, and in nothing else."""
PROJECTION = "visual_projection.weight"
WITHIN = "vision_model."
"""Where the image tower is in a model with both towers."""
BORROWED = "head."
"""What models that talk leave out of SigLIP's tower, the head that pools; it is then the text model's, as the projection is."""
ALIKE = (
    *("image_size", "num_patches", "patch_size", "num_channels", "hidden_size", "intermediate_size"),
    *("num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps"),
)
"""Settings that a tower has in common with the image tower beside which its text tower was trained."""


@dataclass(frozen=True)
class Tower:
    """An image tower as it is stored.

    Attributes:
        name (`str`): what errors call it.
        architecture (`str`): the class that its config.json names: `"CLIPVisionModel"`, or that of the model which it is in.
        files (`dict[str, Path]`): the files that it came in, by the names that they are saved by.
        weights (`dict[str, tuple[str, str]]`): its tensors by the names that they have in its class: the file of each, and
            the name there.
        dtype (`torch.dtype`): of all of them.
        projected (`bool`): whether its own projection into the space of texts is among them.
    """

    name: str
    architecture: str
    files: dict[str, Path]
    weights: dict[str, tuple[str, str]]
    dtype: torch.dtype
    projected: bool

    @property
    def lead(self) -> str:
        """What stands before the names of its tensors in a model with both towers."""
        return "" if self.projected else WITHIN

    def of(self, model: torch.nn.Module) -> dict[str, Tensor]:
        """Its tensors as they are in a model with both towers, or in one of its own class, by their names there."""
        state = model.state_dict()
        lead = "" if state.keys() >= self.weights.keys() else self.lead
        return {name: state[lead + name] for name in self.weights}

    def read(self) -> dict[str, Tensor]:
        """Its tensors as they are stored; nothing else of its files is loaded."""
        found: dict[str, Tensor] = {}
        for file in {file for file, _ in self.weights.values()}:
            with safe_open(self.files[file], framework="pt") as stored:
                found |= {name: stored.get_tensor(key) for name, (there, key) in self.weights.items() if there == file}
        return found

    def digest(self) -> str:
        """The [`weights_digest`] of its tensors as they are stored."""
        return weights_digest(self.read(), self.dtype)

    def write(self, model: torch.nn.Module, folder: Path) -> None:
        """Copy its files into `folder`, with its tensors as they are in a model with both towers.

        Raises:
            InputError: when a file has gone or changed since it was loaded.
        """
        gone = next((path for path in self.files.values() if not path.is_file()), None)
        if gone is not None:
            raise InputError(
                f"`model`: {gone} has gone, into a copy of which the tower of {self.name} would be saved."
            )
        state = self.of(model)
        for file, path in self.files.items():
            shutil.copyfile(path, folder / file)
            own = {key: state[name].to(self.dtype) for name, (there, key) in self.weights.items() if there == file}
            if own and not _replace(folder / file, own):
                raise InputError(
                    f"`model`: {path} has changed since the tower of {self.name} was loaded; load it anew."
                )


def tower_family(config: PretrainedConfig) -> type[DualEncoder] | None:
    """The family whose image tower a model with this `config` is, or has in it, without its text tower; else none."""
    if config.model_type in DualEncoder.families:
        return None
    kind = getattr(getattr(config, "vision_config", config), "model_type", None)
    configs = {family: getattr(family.tower, "config_class", None) for family in DualEncoder.families.values()}
    return next((family for family, own in configs.items() if own is not None and own.model_type == kind), None)


def check_text_model(
    config: PretrainedConfig, text: DualEncoder, family: type[DualEncoder], names: tuple[str, str]
) -> None:
    """Look whether a tower with this `config` can take the place of the image tower of the model in `text`.

    Args:
        config ([`~transformers.PretrainedConfig`]): of the tower, or of the model that it is in.
        text ([`DualEncoder`]): the model with the text tower.
        family (`type[DualEncoder]`): the tower's, by [`tower_family`].
        names (`tuple[str, str]`): what errors call the two.

    Raises:
        InputError: when it cannot.
    """
    name, text_name = names
    wanted = family.model_classes[0]
    if type(text.model) is not wanted:
        raise InputError(
            f"`text_model`: {text_name} is a {type(text.model).__name__}, and the image tower of {name} is one of a "
            f"{wanted.__name__}; pass the one that it was trained in."
        )
    own, other = getattr(config, "vision_config", config), text.model.config.vision_config
    for field in ALIKE:
        here, there = getattr(own, field, None), getattr(other, field, None)
        if here != there:
            raise InputError(
                f"`text_model`: the image tower of {text_name} has the {field} {there!r}, and that of {name} {here!r}; pass "
                "the model that it was trained in."
            )


def find_tower(folder: Path, name: str) -> Tower:
    """The image tower among the weights in `folder`; errors call it `name`.

    Raises:
        InputError: when there is not one, it is not stored as floats of one dtype, or a file is damaged.
    """
    named = read_object(folder, "config.json", "model", name)
    architecture = str(next(iter(named.get("architectures") or []), ""))
    architecture = architecture if architecture.isidentifier() else ""  # it goes into the code on a card
    stored = dict(entries(folder, name))
    prefixes = [key.removesuffix(PATCHES) for key in stored if key.endswith(PATCHES)]
    if len(prefixes) != 1:
        raise InputError(f"`model`: the weights of {name} hold {len(prefixes)} image towers; it must be one.")
    projection = prefixes[0].removesuffix(WITHIN) + PROJECTION
    projected = architecture.endswith("WithProjection") or (not architecture and projection in stored)
    lead = WITHIN if projected else ""
    own = {
        lead + key.removeprefix(prefixes[0]): key
        for key, (_, dtype, _) in stored.items()
        if key.startswith(prefixes[0]) and key != projection and dtype in FLOATS  # older ones have positions, integers
    }
    if projected and projection in stored:
        own[PROJECTION] = projection
    dtypes = sorted({stored[key][1] for key in own.values()})
    if len(dtypes) != 1:
        raise InputError(
            f"`model`: the image tower of {name} is stored as {', '.join(dtypes) or 'no floats'}; save it in one dtype."
        )
    beside = (path for path in folder.iterdir() if any(map(path.match, SETTINGS)) and ".index." not in path.name)
    kept = [path for path in beside if path.is_file()]
    kept += [folder / file for file in (*files(folder, name), INDEX) if (folder / file).is_file()]
    return Tower(
        name=name,
        architecture=architecture or str(named.get("model_type")),
        files={path.name: path.resolve() for path in sorted(kept)},
        weights={one: (stored[key][0], key) for one, key in own.items()},
        dtype=FLOATS[dtypes[0]],
        projected=projected,
    )


@torch.no_grad()
def put_in(tower: Tower, text: DualEncoder, folder: Path) -> DualEncoder:
    """The model of `text`, in which the tower now has the image tower's place; it takes pictures as `folder` says, if it does.

    Raises:
        InputError: when the tensors of the tower do not fit in there, or its image processor cannot be used.
    """
    there = text.model.state_dict()
    wanted = {name for name in there if name.startswith(WITHIN) or (tower.projected and name == PROJECTION)}
    own = {tower.lead + name: tensor for name, tensor in tower.read().items()}
    lacking = {name for name in wanted - own.keys() if not name.startswith(WITHIN + BORROWED)}
    for what, names in (("lacks", lacking), ("has", own.keys() - wanted)):
        if names:
            shown = ", ".join(sorted(names)[:3])
            raise InputError(
                f"`text_model`: the image tower of {tower.name} {what} {shown} ({len(names)} in all), other than that of the "
                "text model; pass the model that it was trained in."
            )
    for name, tensor in own.items():
        if there[name].shape != tensor.shape:
            raise InputError(
                f"`text_model`: {name} is of shape {list(tensor.shape)} in {tower.name}, and of {list(there[name].shape)} in "
                "the text model; pass the model that it was trained in."
            )
        there[name].copy_(tensor)
    processor: Any = text.processor
    if says_how_to_read_pictures(folder):
        with refusing(f"`processor`: the {' or '.join(PICTURES)} of {tower.name} cannot be used"):
            processor.image_processor = read_image_processor(folder)
    return DualEncoder.of(text.model, processor)


def _replace(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Put `tensors` where those of their names are in a .safetensors file; whether it has them all, as long as they are."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(length))
        for key, tensor in tensors.items():
            content = tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().tobytes()
            begin, end = head.get(key, {}).get("data_offsets", (0, 0))
            if end - begin != len(content):
                return False
            file.seek(8 + length + begin)
            file.write(content)
    return True
