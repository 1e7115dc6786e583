"""What to do when memory runs out."""

from collections.abc import Callable
from typing import Any

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size


TOO_LARGE = "No executable batch size found"


def halving(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    """`function` without its first argument, a size, which is halved as often as memory runs out.

    It does what accelerate's `find_executable_batch_size` does, but that it empties no cache before the first try, which
    takes longer than the work itself on a small model.
    """

    def attempt(*arguments: Any, **settings: Any) -> Any:
        left = size
        while True:
            try:
                return function(left, *arguments, **settings)
            except Exception as error:
                if not should_reduce_batch_size(error):
                    raise
                if left == 1:  # no longer what makes a caller around this one try again
                    raise RuntimeError(f"{TOO_LARGE}, reached zero.") from error
            clear_device_cache(garbage_collection=True)
            left //= 2

    return attempt


def ran_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory ran out, on the accelerator or the CPU, if need be with the smallest batch."""
    smallest = isinstance(error, RuntimeError) and TOO_LARGE in str(error)
    return smallest or isinstance(error, MemoryError) or should_reduce_batch_size(error)
