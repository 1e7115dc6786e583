"""Dataclasses that save and load themselves."""

import dataclasses
import enum
import functools
import json
import math
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..errors import InputError
from .files import finite, write_bytes, write_json
from .settings import Settings
from .tensor_file import TensorFile


T = TypeVar("T")


class Saved:
    """Mixin for result dataclasses: `save(folder)` and `load(folder)`.

    Plain fields, nested dataclasses, lists and dicts go to `<name>.json`, tensors to `<name>.safetensors`, and a
    [`TensorFile`], such as a trigger, that is a field of its own to a safetensors file named after it.
    """

    file_name: ClassVar[str] = ""
    """Stem of the files; the class's name in snake case when empty."""

    def save(self, folder: str | Path) -> None:
        """Write this result into `folder`."""
        self._write(Path(folder))

    def tensor_names(self) -> set[str]:
        """The names of the tensors in `<name>.safetensors`."""
        tensors: dict[str, Any] = {}
        _pack(self, "", tensors)
        return set(tensors)

    def _write(self, folder: Path) -> list[str]:
        """Write this result into `folder`; the names of the files."""
        name = self._name()
        tensors: dict[str, Any] = {}
        value = _pack(self, "", tensors)
        triggers = {f"{key}.safetensors": item for key, item in vars(self).items() if isinstance(item, TensorFile)}
        for file, trigger in triggers.items():
            trigger.save(folder / file)
        if tensors:
            write_bytes(folder / f"{name}.safetensors", save(tensors))
        write_json(folder / f"{name}.json", value)
        return [*triggers, *[f"{name}.safetensors"] * bool(tensors), f"{name}.json"]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read the result that `save` wrote into `folder`.

        Raises:
            InputError: when `folder` holds no such result, or one of another shape.
        """
        folder, name = Path(folder), cls._name()
        if not (folder / f"{name}.json").is_file():
            raise InputError(f"`folder`: {folder} holds no {name}.json, which {cls.__name__}.save would have written.")
        stored = folder / f"{name}.safetensors"
        try:
            value = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            return typing.cast(Self, _unpack(cls, value, load_file(stored) if stored.is_file() else {}, folder))
        except InputError:
            raise
        except _OtherShapeError as error:
            raise InputError(f"`folder`: {folder} holds {error}; make it anew.") from error
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError, SafetensorError) as error:
            raise InputError(
                f"`folder`: {folder} holds a damaged {cls.__name__} ({error!r}); make it anew."
            ) from error

    @classmethod
    def is_saved(cls, folder: str | Path) -> bool:
        """Whether `folder` holds such a result."""
        return (Path(folder) / f"{cls._name()}.json").is_file()

    @classmethod
    def _name(cls) -> str:
        return cls.file_name or "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")


def to_plain(value: Any) -> Any:
    """A result without tensors as what JSON holds: for a line of a file that holds many."""
    return finite(_pack(value, "", {}))


class _OtherShapeError(ValueError):
    """Other fields than those of a dataclass: what another version wrote."""


def from_plain(kind: type[T], value: Any, source: Path, argument: str = "source") -> T:
    """The result of type `kind` that [`to_plain`] made `value` of.

    Args:
        kind (`type`): what it is.
        value: its plain values.
        source (`Path`): where they were read, for the message.
        argument (`str`): what the message calls that.

    Raises:
        InputError: when `value` is of another shape.
    """
    try:
        return typing.cast(T, _unpack(kind, value, {}, source))
    except _OtherShapeError as error:
        raise InputError(f"`{argument}`: {source} holds {error}; another version wrote it.") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"`{argument}`: {source} holds a damaged {kind.__name__} ({error}).") from error


_type_hints = functools.cache(typing.get_type_hints)


def _pack(value: Any, key: str, tensors: dict[str, Any]) -> Any:
    if isinstance(value, TensorFile):
        if key.count(".") == 1:
            return f"{key[1:]}.safetensors"
        return {"kind": value.kind, **value.parts(), **_pack(dict(value.named_buffers()), key, tensors)}
    if isinstance(value, torch.Tensor):
        tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)  # one may stand in two places
        return key
    if isinstance(value, Settings):
        return value.plain()
    if dataclasses.is_dataclass(value):
        return {f.name: _pack(getattr(value, f.name), f"{key}.{f.name}", tensors) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): _pack(v, f"{key}.{k}", tensors) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(v, f"{key}.{i}", tensors) for i, v in enumerate(value)]
    return value.value if isinstance(value, enum.Enum) else value


def _unpack(kind: Any, value: Any, tensors: dict[str, Any], folder: Path) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (kind,) = [a for a in arguments if a is not type(None)]
        return _unpack(kind, value, tensors, folder)
    if origin in (list, tuple):
        items = [_unpack(arguments[0], item, tensors, folder) for item in _checked(value, list)]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        items = _checked(value, dict).items()
        return {arguments[0](_checked(k, str)): _unpack(arguments[1], v, tensors, folder) for k, v in items}
    if origin is typing.Literal and value not in arguments:
        raise ValueError(f"{value!r} is none of {arguments}")
    if not isinstance(kind, type):
        return value
    if issubclass(kind, TensorFile):
        if isinstance(value, str):
            if Path(value).name != value:
                raise ValueError(f"{value!r} is no file of that folder")
            return kind.load(folder / value)
        known = kind.kinds[_checked(value, dict)["kind"]]
        scalars = {name: value[name] for name in known.scalars}
        buffers = {name: tensors[key] for name, key in value.items() if name != "kind" and name not in scalars}
        return known.of(buffers, scalars)
    if issubclass(kind, torch.Tensor):
        return tensors[value]
    if issubclass(kind, Settings):
        settings = kind.of(_checked(value, dict), "folder")
        if finite(settings.plain()) != value:
            raise _OtherShapeError(f"other settings than those of a {kind.__name__}")
        return settings
    if dataclasses.is_dataclass(kind):
        hints = _type_hints(kind)
        missing = {f.name for f in dataclasses.fields(kind)} ^ set(_checked(value, dict))
        if missing:
            raise _OtherShapeError(f"a {kind.__name__} of another shape: {sorted(missing)} differ")
        build: Callable[..., Any] = kind
        return build(**{name: _unpack(hints[name], value[name], tensors, folder) for name in value})
    if kind is float:
        return math.nan if value is None else float(value if type(value) is int else _checked(value, float))
    return kind(value) if issubclass(kind, enum.Enum) else _checked(value, kind)


def _checked(value: Any, kind: Any) -> Any:
    """`value`, when it is of that kind: an integer of 64 bits, text that UTF-8 can hold."""
    if kind is not Any and type(value) is not kind:
        raise ValueError(f"{value!r:.40} is no {kind.__name__}")
    if kind is int and abs(value) >= 2**63:
        raise ValueError("an integer is too large")
    if kind is str:
        value.encode()  # a lone surrogate raises a ValueError
    return value
