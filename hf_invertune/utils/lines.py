"""A file of JSON lines, each with a key, which several processes may append to at once."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from .files import finite, write_bytes
from .locks import locked, waiting_for


_BEGIN = b'{"key": "'
"""How each line begins."""


class LinesFile:
    """JSON objects, one a line, safe to append to from several processes and to be killed at.

    Args:
        path (`str` or `Path`): a .jsonl file; it is made with the first line.
        argument (`str`): what errors call it.
    """

    noun: ClassVar[str] = "line"
    """What errors call that which a line holds."""

    def __init__(self, path: str | Path, argument: str):
        self.path, self.argument = Path(path), argument

    def check(self) -> None:
        """Find out before any long work whether lines can be appended.

        Raises:
            InputError: when it cannot be written to.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"`{self.argument}`: {self.path} cannot be written to ({error.strerror}).") from error
        place = self.path if self.path.exists() else self.path.parent
        if self.path.is_dir() or not os.access(place, os.W_OK):
            reason = "is a folder" if self.path.is_dir() else "is not yours to write to"
            raise InputError(f"`{self.argument}`: {self.path} cannot be written to ({place} {reason}).")

    def append(self, value: dict[str, Any]) -> None:
        """Add `value`, whose first entry is its "key", as one line in one write; what a write cut short has left before it
        is cut off."""
        line = _line(value)
        with waiting_for(self._beside("lock")), self.path.open("a+b", buffering=0) as file:
            file.truncate(self._whole(self.path.read_bytes()))
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file)

    def lines(self) -> dict[str, dict[str, Any]]:
        """What the file says, by key; of lines with one key the last. A half-written last line is passed over.

        Raises:
            InputError: when a line is none of ours.
        """
        content = self.path.read_bytes() if self.path.is_file() else b""
        lines: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(content[: self._whole(content)].splitlines(), 1):
            try:
                value = json.loads(line)
                lines.pop(value["key"], None)
                lines[value["key"]] = value
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"`{self.argument}`: line {number} of {self.path} is no {self.noun} ({error!r})."
                ) from error
        return lines

    def put_first(self, values: Sequence[dict[str, Any]]) -> None:
        """Write the file anew, whole or not at all: `values` in their order, then what else it holds."""
        with waiting_for(self._beside("lock")):
            first = {value["key"]: value for value in values}
            others = [value for key, value in self.lines().items() if key not in first]
            write_bytes(self.path, b"".join(map(_line, [*first.values(), *others])))

    def _whole(self, content: bytes) -> int:
        """How many bytes there are up to the end of the last finished line; what is behind it must be half a line."""
        end = content.rfind(b"\n") + 1
        if content[end:][: len(_BEGIN)] != _BEGIN[: len(content) - end]:
            raise InputError(f"`{self.argument}`: {self.path} ends with what is no {self.noun}; name another file.")
        return end

    def _beside(self, name: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{name}")

    @contextmanager
    def claim(self, key: str, wait: bool = False) -> Iterator[bool]:
        """Whether the work of a line is this process's own while the block lasts; the system frees it when a process dies.

        Args:
            key (`str`): of the line.
            wait (`bool`, *optional*): wait until no other process has it; it may have done the work then.
        """
        path = self._beside("claims") / key
        with waiting_for(path) if wait else locked(path) as ours:
            yield ours
            if ours:
                path.unlink(missing_ok=True)  # after the line is in the file: whoever opened it sees the line then


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(finite(value), allow_nan=False).encode() + b"\n"
