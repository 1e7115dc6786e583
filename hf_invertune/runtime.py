"""Process-wide settings that our command-line tools make at their start."""

import ctypes
import sys


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


def begin_worker() -> None:
    """The start of a process that works beside others: one thread, freed memory kept, and stdout left to the parent."""
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    sys.stdout = sys.stderr  # the Trainer prints its figures
