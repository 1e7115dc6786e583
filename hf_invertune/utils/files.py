"""Files and folders that are either whole or absent, and the checksums that tell."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


CHECKSUMS = "SHA256SUMS"
"""The file that `sha256sum -c` reads."""


def given_path(given: str | os.PathLike[str]) -> Path:
    """The path that a user gives, with `~` for a home; where there is no such home it stays as it is written.

    Ask `os.path.isdir` and `os.path.isfile` what is there: they say no to a name that is too long for the system.
    """
    return Path(os.path.expanduser(given))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then rename, so that a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, made [`finite`]."""
    write_bytes(path, (json.dumps(finite(value), indent=2, allow_nan=False) + "\n").encode())


def json_digest(value: Any) -> str:
    """SHA-256 of `value` as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def finite(value: Any) -> Any:
    """`value` with null for every NaN and infinity in it, since JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the name `folder`, in place of what is there, once the block is through.

    A crash leaves what was there, or nothing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)


def write_checksums(folder: Path, names: Sequence[str]) -> None:
    """Write the SHA-256 of these files of `folder` into its [`CHECKSUMS`]."""
    write_bytes(folder / CHECKSUMS, _checksums(folder, names))


def is_intact(folder: Path) -> bool:
    """Whether `folder` has its [`CHECKSUMS`] and every file that they name, byte by byte."""
    path = folder / CHECKSUMS
    stored = path.read_bytes() if path.is_file() else b""
    names = [line.partition("  ")[2] for line in stored.decode(errors="replace").splitlines()]
    try:
        return bool(names) and _checksums(folder, names) == stored
    except (FileNotFoundError, IsADirectoryError):
        return False


def differences(folder: Path) -> Iterator[str]:
    """What in `folder` is not as its [`CHECKSUMS`] lists it, in words; every file must be listed, and nothing else."""
    try:
        listed = set((folder / CHECKSUMS).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        yield f"{CHECKSUMS} is missing or unreadable"
        return
    names = {line[66:] for line in listed}
    for path in sorted(path for path in folder.iterdir() if path.name != CHECKSUMS):
        try:
            line = _checksums(folder, [path.name] if path.is_file() else []).decode().rstrip("\n")
        except (OSError, UnicodeEncodeError):  # it cannot be read, or listed
            line = ""
        if not line or line not in listed:
            shown = path.name if path.name.isprintable() else ascii(path.name)
            yield f"{shown} has another SHA-256" if path.name in names else f"{shown} is not listed"
        listed.discard(line)
    yield from (f"no file is as the line {line!r:.90} says" for line in sorted(listed))


def _checksums(folder: Path, names: Sequence[str]) -> bytes:
    lines = []
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines).encode()
