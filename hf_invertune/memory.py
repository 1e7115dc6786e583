"""Smaller batches when memory runs out."""

from collections.abc import Callable
from typing import Any

from accelerate.utils import find_executable_batch_size


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
