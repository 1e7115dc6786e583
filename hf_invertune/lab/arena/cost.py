"""What a defence costs: pictures through the vision encoder, seconds, memory."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import register_multi_grad_hook
from torch.nn.modules.module import register_module_forward_hook

from ...models.encoder import DualEncoder
from ...utils.storage import Saved


@dataclass
class Cost(Saved):
    """What was spent.

    Attributes:
        forward (`int`): pictures that went through a vision tower, one that went twice counted twice.
        backward (`int`): those of them through whose features a gradient came back.
        seconds (`float`): wall time.
        peak_memory (`int`, *optional*): bytes at the peak beyond those that were in use at the start, on the
            accelerator where there is one; `None` where the system does not tell.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0
    peak_memory: int | None = None


@contextmanager
def measure_cost() -> Iterator[Cost]:
    """Inside, count what every vision tower of this process does; the cost is complete when it ends.

    Towers are found by their class, so copies that a defence makes count as well.
    """
    cost, towers = Cost(), tuple(family.tower for family in DualEncoder.families.values())

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(module, towers):
            return
        images = len(output.last_hidden_state)
        cost.forward += images
        features = [output.last_hidden_state, output.pooler_output, *(output.hidden_states or ())]
        followed = [tensor for tensor in features if tensor.requires_grad]
        if followed:
            register_multi_grad_hook(followed, lambda gradient: came_back(images), mode="any")

    def came_back(images: int) -> None:
        cost.backward += images

    hook = register_module_forward_hook(count)
    before, begin = _restart_peak(), time.perf_counter()
    try:
        yield cost
    finally:
        hook.remove()
        cost.seconds = time.perf_counter() - begin
        cost.peak_memory = None if before is None else _memory("VmHWM") - before


def _restart_peak() -> int | None:
    """Let the system's record of the greatest memory in use begin anew; what is in use now, in bytes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform != "linux":
        return None
    else:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        record = Path("/proc/self/clear_refs")
        if trim is None or not os.access(record, os.W_OK):
            return None
        trim(0)  # else what earlier work has freed would be used again, unseen
        record.write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    """Bytes in use (VmRSS), or their peak (VmHWM)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() if name == "VmHWM" else torch.cuda.memory_allocated()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{name}:")[1].split()[0])
