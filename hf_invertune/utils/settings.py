"""Settings: dataclasses that say the range of each field, and are read from YAML, TOML or `key=value`.

A field made by [`setting`] has a help text and a range. A class with several kinds, such as a family of triggers, lists them
in `kinds`, and plain values name one: `{"kind": "masked", "mask_weight": 50}`, or `"masked"` when nothing else is set.
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

import yaml

from ..errors import InputError, nearest


T = TypeVar("T")


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    factory: Any = MISSING,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of [`Settings`]: its default, a sentence of help, and the range that its numbers must be in."""
    bounds = {"least": least, "above": above, "most": most, "below": below}
    metadata = {"help": help, "range": {name: bound for name, bound in bounds.items() if bound is not None}}
    return field(default=default, default_factory=factory, metadata=metadata)


class Settings:
    """Mixin for dataclasses of settings, which are checked when they are made.

    Attributes:
        ranges (`dict[str, dict[str, float]]`): for each field that has one, its range.
    """

    ranges: ClassVar[dict[str, dict[str, float]]] = {}

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        made = {name: item for name, item in vars(cls).items() if isinstance(item, Field)}
        cls.ranges = cls.ranges | {name: item.metadata.get("range", {}) for name, item in made.items()}
        for item in made.values():  # transformers' HfArgumentParser hands all that it finds there to argparse
            item.metadata = MappingProxyType({key: value for key, value in item.metadata.items() if key != "range"})

    def __post_init__(self) -> None:
        check(self)

    def plain(self) -> dict[str, Any]:
        """The settings as what JSON holds; [`Settings.of`] reads them."""
        return typing.cast(dict[str, Any], plain(self))

    @classmethod
    def of(cls, value: Any, argument: str = "config") -> Self:
        """The settings that plain values describe; what is not named keeps its default.

        Args:
            value: nested dictionaries.
            argument (`str`): what errors call them.

        Raises:
            InputError: an unknown key (with the nearest), a value of the wrong type or out of its range.
        """
        return read(cls, value, argument=argument)

    @classmethod
    def load(cls, path: str | Path, argument: str = "config") -> Self:
        """Read a .yaml, .yml or .toml file.

        Raises:
            InputError: a file that cannot be read, besides the errors of [`Settings.of`].
        """
        return cls.of(load_file(path, argument), argument)

    def assign(self, assignments: Sequence[str], argument: str = "config") -> Self:
        """The same settings with some changed, each named as `tuning.lora_r=16`, values as in YAML.

        Raises:
            InputError: what is no assignment, besides the errors of [`Settings.of`].
        """
        value = self.plain()
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            if not equals:
                raise InputError(f"`{argument}`: got {assignment!r}; pass name=value, such as seed=1.")
            try:
                new = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise InputError(f"`{argument}`: the value of {assignment!r} is no YAML.") from error
            *way, last = path.strip().split(".")
            place: Any = value
            for key in way:
                place = _step(place, key, path, argument)
            if not isinstance(place, dict):
                raise InputError(f"`{argument}`: {path} cannot be set; {'.'.join(way)} is one value.")
            place[last] = new
        return self.of(value, argument)


def _step(place: Any, key: str, path: str, argument: str) -> Any:
    """What lies under `key`: in a list, the item of that kind."""
    if isinstance(place, list):
        place = {item.get("kind"): item for item in place if isinstance(item, dict)}
    if not isinstance(place, dict) or key not in place:
        known = nearest(key, place, 1) if isinstance(place, dict) else "it is one value"
        raise InputError(f"`{argument}`: {path} names no setting: {key!r} is unknown; {known}.")
    return place[key]


def check(settings: Settings, kind: type[Settings] | None = None) -> None:
    """Make sure that numbers are in their ranges.

    Args:
        settings ([`Settings`]): the settings.
        kind (`type[Settings]`, *optional*): a base of their class, when only that one's fields are to be checked.

    Raises:
        InputError: the first that is not, with its range.
    """
    for name, bounds in (kind or type(settings)).ranges.items():
        value = getattr(settings, name)
        if not _fits(value, bounds):
            raise InputError(f"`{name}`: got {value!r}; it must be {_range(bounds)}.")


def _fits(value: Any, bounds: dict[str, float]) -> bool:
    """Whether a number, or each of several, is in its range; nothing is in every range."""
    if not bounds or value is None:
        return True
    numbers = value if isinstance(value, (list, tuple)) else [value]
    return all(type(number) in (int, float) and _inside(number, bounds) for number in numbers)


def _inside(number: float, bounds: dict[str, float]) -> bool:
    return (
        bounds.get("least", -math.inf) <= number <= bounds.get("most", math.inf)
        and bounds.get("above", -math.inf) < number < bounds.get("below", math.inf)
        and math.isfinite(number)
    )


def _range(bounds: dict[str, float]) -> str:
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    return " and ".join(f"{words[name]} {bound:.10g}" for name, bound in bounds.items())


def plain(value: Any) -> Any:
    """Nested settings as dictionaries, lists and scalars; an instance of a class with kinds names its own."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": getattr(value, "kind")} if hasattr(value, "kinds") else {}  # noqa: B009 - of some classes alone
        return {**kind, **{item.name: plain(getattr(value, item.name)) for item in fields(value)}}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def load_file(path: str | Path, argument: str) -> Any:
    """The plain values in a .yaml, .yml or .toml file.

    Raises:
        InputError: when it cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"`{argument}`: {path} cannot be read ({error}).") from error
    form = "TOML" if Path(path).suffix.lower() == ".toml" else "YAML"
    try:
        return tomllib.loads(text) if form == "TOML" else yaml.safe_load(text)
    except Exception as error:  # besides their own errors, what dates, numbers and depths beyond Python's raise
        raise InputError(f"`{argument}`: {path} is no {form} ({' '.join(str(error).split())}).") from error


def read(kind: type[T], value: Any, path: str = "", *, argument: str) -> T:
    """`value`, as a file gives it, as an instance of `kind`.

    Args:
        kind (`type`): a dataclass, or what an annotation of its fields may be.
        value: plain values.
        path (`str`): where they stand, for messages.
        argument (`str`): what messages call the whole.

    Raises:
        InputError: an unknown or missing key, or a value of another type.
    """
    return typing.cast(T, _read(kind, value, path, argument))


def _read(kind: Any, value: Any, path: str, argument: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        choices = [choice for choice in arguments if choice is not type(None)]
        fitting = [c for c in choices if (typing.get_origin(c) or c) in (type(value), {list: tuple}.get(type(value)))]
        return _read((fitting or choices)[0], value, path, argument)
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"`{argument}`: {path} is {value!r}; it must be a list.")
        items = [_read(arguments[0], item, f"{path}[{index}]", argument) for index, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        mapping = _mapping(value, path, argument)
        return {key: _read(arguments[1], item, _join(path, key), argument) for key, item in mapping.items()}
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"`{argument}`: {path} is {value!r}; choose {' or '.join(map(repr, arguments))}.")
        return value
    if hasattr(kind, "kinds"):
        value = {"kind": value} if isinstance(value, str) else dict(_mapping(value, path, argument))
        name = value.pop("kind", None)
        if not isinstance(name, str) or name not in kind.kinds:
            known = nearest(str(name), kind.kinds, 1)
            raise InputError(f"`{argument}`: {_join(path, 'kind')} is {name!r}; {known}.")
        kind = kind.kinds[name]
    if is_dataclass(kind):
        return _read_dataclass(kind, _mapping(value, path, argument), path, argument)
    if kind is float and type(value) in (int, str):  # YAML takes 1e-3 for a string
        try:
            return float(value)
        except ValueError:
            pass
    if type(value) is not kind:
        raise InputError(f"`{argument}`: {path} is {value!r}; it must be of type {kind.__name__}.")
    return value


def _read_dataclass(kind: Any, value: dict[str, Any], path: str, argument: str) -> Any:
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in value:
        if key not in known:
            raise InputError(f"`{argument}`: {_join(path, key)} is no known key; {nearest(str(key), known, 1)}.")
    for name, item in known.items():
        if name not in value and item.default is item.default_factory is MISSING:
            raise InputError(f"`{argument}`: the key {_join(path, name)} is missing.")
    hints = typing.get_type_hints(kind)
    given = {name: _read(hints[name], item, _join(path, name), argument) for name, item in value.items()}
    for name, bounds in kind.ranges.items() if issubclass(kind, Settings) else ():
        if not _fits(given.get(name), bounds):
            raise InputError(f"`{argument}`: {_join(path, name)} is {given[name]!r}; it must be {_range(bounds)}.")
    return kind(**given)


def _mapping(value: Any, path: str, argument: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"`{argument}`: {path or 'the file'} holds {value!r:.60}; it must hold keys and values.")
    return value


def _join(path: str, key: object) -> str:
    return f"{path}.{key}".lstrip(".")
