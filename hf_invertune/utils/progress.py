"""Progress on stderr: one bar a stage, with a name that a person understands."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm
from transformers.utils import logging


def progress(steps: Iterable[Any] | None, title: str, **settings: Any) -> Any:
    """A `tqdm` bar over `steps` that goes away when they are done; `TQDM_DISABLE=1` turns all of them off."""
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
