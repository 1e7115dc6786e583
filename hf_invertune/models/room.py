"""How many pictures gradients can go through at once, by what a model keeps of each and what memory its device has."""

import os
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor

from .encoder import DualEncoder


ROOM = 0.4
"""Share of a device's memory that pictures may take with all that is kept of them for the gradients."""

_kept: WeakKeyDictionary[DualEncoder, dict[torch.Size, int]] = WeakKeyDictionary()


def pictures_at_once(encoder: DualEncoder, size: torch.Size) -> int:
    """So many pictures of this height and width can gradients go through at once on the encoder's device, at least one."""
    known = _kept.setdefault(encoder, {})
    if size not in known:
        known[size] = bytes_kept(encoder, size)
    return max(1, int(ROOM * memory_of(encoder.device) / known[size]))


def bytes_kept(encoder: DualEncoder, size: torch.Size, pictures: int = 2) -> int:
    """The bytes that are kept of one picture of this height and width until its gradient has been computed.

    Args:
        encoder ([`DualEncoder`]): the model.
        size (`torch.Size`): height and width.
        pictures (`int`): go through it to find out.
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    pixels = torch.zeros(pictures, 3, *size, device=encoder.device, requires_grad=True)
    with encoder.frozen(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        encoder.embed_images(pixels)
    for weight in encoder.model.parameters():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    return max(1, sum(kept.values()) // pictures)


def memory_of(device: torch.device) -> int:
    """The bytes of memory that a device has in all; that of the CPU is divided among the processes of this machine."""
    if device.type in ("cuda", "xpu"):
        return int(getattr(torch, device.type).get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().total) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
