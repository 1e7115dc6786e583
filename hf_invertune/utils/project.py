"""The project that a command is run in: the folders from the working directory up to the root of its repository."""

from collections.abc import Iterator
from pathlib import Path


def folders() -> Iterator[Path]:
    """The working directory and those above it, the last being the first that holds `.git`; that one alone without it."""
    here = Path.cwd()
    above = [here, *here.parents]
    roots = [place for place, folder in enumerate(above) if (folder / ".git").exists()]
    yield from above[: roots[0] + 1] if roots else above[:1]


def root() -> Path:
    """The root of the repository, else the working directory."""
    *_, last = folders()
    return last
