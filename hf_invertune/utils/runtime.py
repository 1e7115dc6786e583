"""Settings of a process, and processes that work side by side."""

import ctypes
import sys
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from typing import Any

from ..errors import InputError


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Ask glibc to keep freed tensors for the next ones instead of giving their pages back to the kernel.

    The method allocates and frees tensors of a few megabytes thousands of times; without this, most of a small model's
    time on the CPU goes into page faults. Does nothing where there is no glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
        mallopt(M_TOP_PAD, 64 << 20)


def work_side_by_side(work: Callable[..., None], workers: int, *arguments: Any) -> None:
    """Call `work(*arguments, position)` in `workers` processes, each with one thread, and wait until all are through.

    One worker is this process itself, with one thread as well, so that the figures are the same with any number. Others
    stop with the parent, the killed one's as soon as `work` finds them [`orphaned`].

    Raises:
        InputError: what one of them raised.
        ChildProcessError: when one of them failed.
    """
    import torch

    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            work(*arguments, 0)
        finally:
            torch.set_num_threads(threads)
        return
    context = get_context("spawn")
    refusals = context.SimpleQueue()
    processes = [
        context.Process(target=_begin, args=(refusals, work, *arguments, position), daemon=True)
        for position in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if not refusals.empty():
        raise InputError(refusals.get())
    if any(process.exitcode for process in processes):
        raise ChildProcessError("A worker died; run the same command to go on.")


def orphaned() -> bool:
    """Whether this is a worker whose parent is gone."""
    parent = parent_process()
    return parent is not None and not parent.is_alive()


def begin_worker() -> None:
    """The start of a process that works beside others: one thread, and freed memory kept."""
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()


def _begin(refusals: Any, work: Callable[..., None], *arguments: Any) -> None:
    begin_worker()
    try:
        work(*arguments)
    except InputError as error:
        refusals.put(str(error))
