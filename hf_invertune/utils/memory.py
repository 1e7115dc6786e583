"""What to do when memory runs out."""

from collections.abc import Callable
from typing import Any

from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import should_reduce_batch_size


def halving(function: Callable[..., Any], batch_size: int) -> Callable[..., Any]:
    """`function` without its first argument, the batch size, which is halved as often as memory runs out."""
    size = batch_size

    def halve() -> int:
        nonlocal size
        size //= 2
        return size

    attempt: Callable[..., Any] = find_executable_batch_size(
        function, starting_batch_size=batch_size, reduce_batch_size_fn=halve
    )
    return attempt


def ran_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory ran out, on the accelerator or the CPU, if need be with the smallest batch."""
    smallest = isinstance(error, RuntimeError) and "No executable batch size" in str(error)
    return smallest or isinstance(error, MemoryError) or should_reduce_batch_size(error)
