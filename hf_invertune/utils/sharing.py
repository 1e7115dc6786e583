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


def shared(work: Callable[[list[int]], list[Result]], count: int) -> list[Result]:
    """What `work` gives for items 0 to `count` - 1, one result each; of several processes each does a part of them.

    All processes have to call it with the same items at the same point of their work, and all get all results.

    Args:
        work (`Callable`): takes the numbers of some items, and gives their results in the same order.
        count (`int`): how many items there are.

    Raises:
        Exception: what `work` raised in this process, or in the first of the others in which it did.
    """
    items = list(range(count))
    if _alone.get() or not (distributed.is_available() and distributed.is_initialized()):
        return work(items)
    with this_process().split_between_processes(items) as own:
        try:
            outcome: list[Result] | Exception = work(own) if own else []
        except Exception as error:
            outcome = error
    outcomes = gather_object([outcome])
    for one in (outcome, *outcomes):
        if isinstance(one, Exception):
            raise one
    return [result for part in outcomes for result in part]
