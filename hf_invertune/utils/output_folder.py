"""The folder that a run writes its results to: claimed before any long work, replaced whole or not at all."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .files import whole_folder


WRITTEN = {
    "plan": ("*.json", "*.safetensors"),
    "audit": ("report.*", "*.safetensors", "SHA256SUMS"),
    "adapter": ("*.json", "*.safetensors", "README.md"),
    "model": ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"),
}
"""The parts of an output folder that a later run may replace, and the files that they consist of."""


MARKS = ("audit/report.json", "plan/tuning_plan.json")
"""One of these is in every folder that a run has written to."""


def claim(folder: Path, replace: bool | None, model: str = "") -> None:
    """See that results can go to `folder` and will replace nothing there but the results of an earlier run.

    `replace` is `None` where a user cannot ask for that.
    """
    try:
        if not replace and folder.is_dir() and any(folder.iterdir()):
            advice = ", or pass --overwrite" * (replace is not None)
            raise InputError(f"`output_dir`: {folder} is not empty; name another folder{advice}.")
        for part, patterns in ((folder / name, patterns) for name, patterns in WRITTEN.items()):
            if not part.exists():
                continue
            ours = part.is_dir() and not part.is_symlink() and any((folder / mark).is_file() for mark in MARKS)
            if not ours or not all(file.is_file() and any(map(file.match, patterns)) for file in part.iterdir()):
                raise InputError(f"`output_dir`: {part} holds what this tool did not write; move it away.")
            if model and Path(model).resolve().is_relative_to(part.resolve()):
                raise InputError(f"`output_dir`: {part} would be replaced, and it holds the model.")
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"`output_dir`: {folder} cannot be written to ({error.strerror}).") from error


def claim_file(path: Path) -> None:
    """See that a file can be written, whole, at `path`, in place of one that may be there.

    Raises:
        InputError: when its folder does not exist, or something else than a file is there, such as a folder or a link.
    """
    if not path.parent.is_dir():
        raise InputError(f"`output`: there is no folder {path.parent}; make it, or name a file in another.")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"`output`: {path} is no plain file, and would be replaced; name another.")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(f"`output`: {path} cannot be written to ({error.strerror}).") from error


def fill(folder: Path, save: Callable[[Path], None], last: str) -> None:
    """Save within `folder`, which was claimed, then move every file into its place, `last` the last.

    Raises:
        InputError: when a file of such a name has come meanwhile, which stays.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
        save(Path(beside))
        names = sorted((path.name for path in Path(beside).iterdir()), key=lambda name: (name == last, name))
        there = [name for name in names if (folder / name).exists()]
        if there:
            raise InputError(f"`output_dir`: meanwhile something else wrote {', '.join(there)} into {folder}.")
        for name in names:
            Path(beside, name).rename(folder / name)


def write_whole(folder: Path, save: Callable[[Path], None]) -> None:
    """Save beside `folder`, then swap, so that a crash leaves the old results or the new ones, whole."""
    with whole_folder(folder) as new:
        save(new)
