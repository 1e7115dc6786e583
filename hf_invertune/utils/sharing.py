"""Work on many independent items that is shared by the processes which work together on one model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from torch import distributed


Result = TypeVar("Result")

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def this_process() -> PartialState:
    """This process and those that it works together with, as `accelerate launch` started them, on the CPU too."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process does all of its work itself: the others work on something else."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def own_items(count: int) -> list[int]:
    """Which of so many items this process takes, where all that work together take a part each."""
    items = list(range(count))
    if not are_several():
        return items
    with this_process().split_between_processes(items) as own:
        return own


def gathered(value: Result) -> list[Result]:
    """The values of all processes that work together, in their order; each must call it at the same point of its work."""
    return gather_object([value]) if are_several() else [value]


def are_several() -> bool:
    """Whether other processes work on the same model."""
    return not _alone.get() and distributed.is_available() and distributed.is_initialized()


def shared(work: Callable[[list[int]], list[Result]], count: int) -> list[Result]:
    """What `work` gives for items 0 to `count` - 1, one result each; of several processes each does a part of them.

    All processes have to call it with the same items at the same point of their work, and all get all results.

    Args:
        work (`Callable`): takes the numbers of some items, and gives their results in the same order.
        count (`int`): how many items there are.

    Raises:
        Exception: what `work` raised in this process, or in the first of the others in which it did.
    """
    own = own_items(count)
    if not are_several():
        return work(own)
    results: list[Result] = []
    trouble: Exception | None = None
    try:
        results = work(own) if own else []
    except Exception as error:
        trouble = error
    parts = gathered((results, trouble))
    for found in (trouble, *(one for _, one in parts)):
        if found is not None:
            raise found
    return [result for part, _ in parts for result in part]
