"""Progress on stderr: one bar a piece of work, with a name that a person understands, and the time that is left."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm.auto import tqdm
from transformers.utils import logging

from .sharing import are_several, this_process


_whole: ContextVar[Any] = ContextVar("whole", default=None)
FORMAT = "{desc}: {percentage:3.0f}%|{bar:10}| {remaining} left{postfix}"
"""Of the bar of a [`whole`]: what is done just now fits on a line of 80 characters."""


@contextmanager
def whole(pictures: int, title: str) -> Iterator[None]:
    """Inside, one bar stands for all of a long work, and says beside it what is done just now.

    Args:
        pictures (`int`): how many the work is expected to learn on, by all processes that share it; [`advance`] counts
            them. The bar grows with more, and with what [`expect`] adds.
        title (`str`): what the work is called.
    """
    with _bar(None, title, total=pictures, bar_format=FORMAT) as bar:
        token = _whole.set(bar)
        try:
            yield
        finally:
            _whole.reset(token)


def expect(pictures: int) -> None:
    """The work turned out to be longer by so many pictures."""
    bar = _whole.get()
    if bar is not None:
        bar.total += pictures


def advance(pictures: int) -> None:
    """So many more pictures were learnt on, here and by each of the others that take a share."""
    bar = _whole.get()
    if bar is not None:
        pictures *= this_process().num_processes if are_several() else 1
        bar.total = max(bar.total, bar.n + pictures)
        bar.update(pictures)


def progress(steps: Iterable[Any] | None, title: str, **settings: Any) -> Any:
    """A `tqdm` bar over `steps` that goes away when they are done; `TQDM_DISABLE=1` turns all of them off.

    Within a [`whole`] work there is no bar but that one.
    """
    bar = _whole.get()
    if bar is None or steps is None:
        return _bar(steps, title, **settings)
    bar.set_postfix_str(title, refresh=False)
    return steps


def _bar(steps: Iterable[Any] | None, title: str, **settings: Any) -> Any:
    if are_several() and not this_process().is_main_process:  # one of them shows what all are at
        settings["disable"] = True
    return tqdm(steps, desc=title, leave=False, file=sys.stderr, **settings)


@contextmanager
def without_bars_of_transformers() -> Iterator[None]:
    """Inside, transformers shows no bar of its own, such as that of the weights that it loads."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
