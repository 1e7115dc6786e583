"""Modules of named tensors and scalars, each of which saves to one safetensors file."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import InputError
from .files import write_bytes


class TensorFile(nn.Module):
    """A module that is fully described by its kind, its tensors and its scalars.

    A subclass with a `kind` registers its tensors as buffers and names them in `tensors`, with their channels where they
    are as large as the first one and with their shape otherwise, and its scalars in `scalars`, with their types. Its
    constructor takes all of them by name. From then on [`TensorFile.load`] knows the kind.
    """

    kind: ClassVar[str]
    tensors: ClassVar[dict[str, int | tuple[int, ...]]]
    scalars: ClassVar[dict[str, type[int] | type[float]]] = {}
    kinds: ClassVar[dict[str, type["TensorFile"]]] = {}

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "kind" in cls.__dict__:
            cls.kinds[cls.kind] = cls

    def parts(self) -> dict[str, Any]:
        """The scalars by name."""
        return {name: getattr(self, name) for name in self.scalars}

    def on(self, device: torch.device) -> Self:
        """This module on `device`; unlike `to`, it leaves the caller's where it is."""
        return type(self)(**{name: tensor.to(device) for name, tensor in self.named_buffers()}, **self.parts())

    def to_bytes(self) -> bytes:
        """The content of its file; equal modules give the same bytes, wherever they lie."""
        metadata = {"kind": self.kind, **{name: json.dumps(value) for name, value in self.parts().items()}}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        return _in_order(save(tensors, metadata=metadata))

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the file that `save` writes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        write_bytes(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: when there is no such file, or it holds no trigger, or a damaged one.
        """
        if not Path(path).is_file():
            raise InputError(f"`trigger`: there is no file {path}.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"`trigger`: {path} is no safetensors file ({error}).") from error
        kind = cls.kinds.get(metadata.get("kind", ""))
        if kind is None or not issubclass(kind, cls):
            raise InputError(f"`trigger`: {path} holds no trigger of a known kind ({', '.join(sorted(cls.kinds))}).")
        try:
            scalars = {name: json.loads(value) for name, value in metadata.items() if name != "kind"}
            return kind.of(tensors, scalars)
        except ValueError as error:
            raise InputError(f"`trigger`: {path} holds a damaged {kind.kind} trigger ({error}).") from error

    @classmethod
    def of(cls, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> Self:
        """The module with these parts.

        Raises:
            ValueError: unless they are what `save` writes of a module of this kind.
        """
        differing = (tensors.keys() ^ cls.tensors.keys()) | (scalars.keys() ^ cls.scalars.keys())
        if differing:
            raise ValueError(f"{', '.join(sorted(differing))}: missing, or too much")
        size = tensors[next(iter(cls.tensors))].shape[-2:]
        for name, wanted in cls.tensors.items():
            shape = list(tensors[name].shape)
            full = [wanted, *size] if isinstance(wanted, int) else list(wanted)
            if shape != full or not tensors[name].is_floating_point():
                needed = f"{wanted} x H x W" if isinstance(wanted, int) else " x ".join(map(str, wanted))
                raise ValueError(f"{name}: {tensors[name].dtype} of shape {shape}, not floats of {needed}")
        for name, kind in cls.scalars.items():
            if type(scalars[name]) not in (kind, int) or not abs(scalars[name]) < 2**63:
                raise ValueError(f"{name}: got {scalars[name]!r:.40}, not a number of type {kind.__name__}")
        return cls(**tensors, **scalars)


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with the keys of its header sorted; the library shuffles those of the metadata."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    return data[:8] + header.ljust(end - 8) + data[end:]
