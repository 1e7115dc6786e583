"""Options of `scan` that stand in a file of the project: hf-invertune.toml, or pyproject.toml under [tool.hf-invertune]."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from ..errors import InputError, nearest
from ..utils.project import folders
from ..utils.settings import load_file


OWN, SHARED, TABLE = "hf-invertune.toml", "pyproject.toml", "hf-invertune"
IN_SETTINGS = "write what it would set into the table [settings]"
NOT_IN_FILES = {
    "token": "a file is no place for a secret; set HF_TOKEN",
    "json": 'write format = "json"',
    **dict.fromkeys(("config", "preset", "set"), IN_SETTINGS),
}
"""Options that are no keys, and what to do instead."""
PATHS = ("baseline", "models", "output", "output-dir", "templates")
"""Keys whose values are paths, from the folder of the file."""
SOURCES = ("class-names", "images", "reference")
"""Keys whose values are such paths where there is something there, and else names or an id."""


@dataclass
class ProjectFile:
    """What the nearest file says, from the working directory up to the root of its repository.

    Attributes:
        path (`Path`, *optional*): that file; none when there is none.
        options (`dict`): values by the names of options, without the dashes in front.
        settings (`dict`): those of a removal, as in a file for `--config`.
    """

    path: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def find(cls) -> "ProjectFile":
        """Read the nearest file.

        Raises:
            InputError: when it cannot be read.
        """
        for folder in folders():
            for path in (folder / OWN, folder / SHARED):
                table = _table(path) if path.is_file() else None
                if table is not None:
                    return cls(path, table, _settings(table, path))
        return cls()

    def placed(self, key: str, value: Any) -> Any:
        """The value of a key, with a path as it is seen from the working directory."""
        folder = self.path.parent if self.path else Path.cwd()
        if key not in PATHS + SOURCES or not isinstance(value, str) or folder == Path.cwd():
            return value
        return value if key in SOURCES and not (folder / value).exists() else str(folder / value)


class Configured(TyperCommand):
    """A command whose options have the project's values unless the command line has others; its `ctx.obj` is the file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if set(args) & set(ctx.help_option_names):
            return super().parse_args(ctx, args)
        project = ctx.obj = ProjectFile.find()
        known = {max(one.opts, key=len)[2:]: one for one in self.params if one.param_type_name == "option"}
        ctx.default_map = {}
        for key, value in project.options.items():
            if key in NOT_IN_FILES:
                raise InputError(f"{project.path}: {key} is no key: {NOT_IN_FILES[key]}.")
            if key not in known:
                keys = [*(known.keys() - NOT_IN_FILES.keys()), "settings"]
                raise InputError(f"{project.path}: {key} is no known key; {nearest(key, keys, 1)}.")
            if not isinstance(value, (str, int, float)):
                raise InputError(f"{project.path}: {key} is {value!r:.60}; write one value, as on the command line.")
            ctx.default_map[known[key].name] = project.placed(key, value)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            source = error.param and ctx.get_parameter_source(error.param.name)
            if source is None or source.name != "DEFAULT_MAP":
                raise
            key = next(key for key, option in known.items() if option is error.param)
            raise InputError(f"{project.path}: {key}: {error.message.removeprefix('Value error, ')}") from error


def _table(path: Path) -> dict[str, Any] | None:
    value = load_file(path, path.name)
    if path.name == SHARED:
        tools = value.get("tool")
        value = tools.get(TABLE) if isinstance(tools, dict) else None
    if value is not None and not isinstance(value, dict):
        raise InputError(f"{path}: [tool.{TABLE}] is {value!r:.60}; it must be a table of options.")
    return value


def _settings(table: dict[str, Any], path: Path) -> dict[str, Any]:
    value = table.pop("settings", {})
    if not isinstance(value, dict):
        raise InputError(f"{path}: settings is {value!r:.60}; it must be a table, as in a file for --config.")
    return value
