"""Structural similarity, as a loss: many pictures against the same few, at the price of matrix products."""

import torch
from torch import Tensor
from torch.nn.functional import pad


WINDOW, SIGMA = 11, 1.5
"""Pixels and standard deviation of the Gaussian window (Wang et al., IEEE Trans. Image Processing 13, 2004)."""
C1, C2 = 0.01**2, 0.03**2
"""Its constants, for values in [0, 1]."""


def dissimilarity(triggered: Tensor, clean: Tensor) -> Tensor:
    """1 - SSIM(x', x).

    Args:
        triggered (`torch.Tensor`): L x N x 3 x H x W in [0, 1], no side below 6 pixels.
        clean (`torch.Tensor`): 1 x N x 3 x H x W.

    Returns:
        `torch.Tensor`: L values, means over N pictures, colours and places.
    """
    rows, columns = (_smoothing(length, clean) for length in clean.shape[-2:])

    def smooth(pixels: Tensor) -> Tensor:
        return rows.T @ pixels @ columns

    with torch.no_grad():
        mean = smooth(clean)
        variance = (smooth(clean * clean) - mean**2).clamp(min=0)
    own_mean = smooth(triggered)
    own_variance = (smooth(triggered * triggered) - own_mean**2).clamp(min=0)
    covariance = smooth(triggered * clean) - own_mean * mean
    luminance = (2 * own_mean * mean + C1) / (own_mean**2 + mean**2 + C1)
    structure = (2 * covariance + C2) / (own_variance + variance + C2)
    return 1 - (luminance * structure).flatten(1).mean(1)


def _smoothing(length: int, like: Tensor) -> Tensor:
    """length x length: the weight of each pixel of a line in the Gaussian mean about each; the line is mirrored at its ends."""
    distance = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    weights = torch.exp(-((distance / SIGMA) ** 2) / 2)
    single = torch.eye(length, dtype=like.dtype, device=like.device)
    mirrored = pad(single.unsqueeze(0), (WINDOW // 2, WINDOW // 2), mode="reflect").squeeze(0)
    return mirrored.unfold(-1, WINDOW, 1) @ (weights / weights.sum())
