"""A smooth displacement of the whole image."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .base import Trigger


class WarpTrigger(Trigger):
    """A smooth displacement of the whole image (WaNet, arXiv 2102.10369).

    Args:
        flow (`torch.Tensor`): ... x 2 x H x W, how far right and down each pixel looks, in units in which the image is
            2 wide and 2 high, as [`~torch.nn.functional.grid_sample`] counts.
    """

    kind = "warp"
    tensors = {"flow": 2}
    flow: Tensor

    def __init__(self, flow: Tensor):
        super().__init__()
        self.register_buffer("flow", flow)

    def stamp(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        down, right = (torch.linspace(-1, 1, size, device=pixels.device) for size in (height, width))
        identity = torch.stack(torch.meshgrid(right, down, indexing="xy"))
        leading = torch.broadcast_shapes(pixels.shape[:-3], self.flow.shape[:-3])
        flat = pixels.expand(*leading, 3, height, width).reshape(-1, 3, height, width)
        grid = (identity + self.flow).clamp(-1, 1).expand(*leading, 2, height, width)
        grid = grid.reshape(-1, 2, height, width).permute(0, 2, 3, 1)
        # bicubic looks beyond the edge, where it goes on as at the edge: zeros would darken the frame, a trigger by itself
        warped = grid_sample(flat, grid, mode="bicubic", padding_mode="border", align_corners=True)
        return warped.view(*leading, 3, height, width)
