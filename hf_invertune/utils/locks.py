"""Locks between processes, which the system frees when a process dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether this process has the file `path`, which is made where it is missing, to itself while the block lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def waiting_for(path: Path) -> Iterator[Literal[True]]:
    """Wait until this process has the file `path` to itself, and keep it while the block lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield True
