"""A faint residual that is another one for every image."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from .base import Trigger


class SampleSpecificTrigger(Trigger):
    """A faint residual that a small network draws from the image and a secret, another one for every image (ISSBA).

    x' = x + epsilon tanh(outer * relu(inner * [x - 1/2, s])), where * is a convolution.

    Args:
        secret (`torch.Tensor`): 1 x H x W in [-1, 1], the secret s as the network sees it.
        inner (`torch.Tensor`): 16 x 4 x 5 x 5, the weights of the first layer.
        outer (`torch.Tensor`): 3 x 16 x 5 x 5, those of the second.
        epsilon (`float`): the bound of the residual, in [0, 1].
    """

    kind = "sample-specific"
    tensors = {"secret": 1, "inner": (16, 4, 5, 5), "outer": (3, 16, 5, 5)}
    scalars = {"epsilon": float}
    secret: Tensor
    inner: Tensor
    outer: Tensor

    def __init__(self, secret: Tensor, inner: Tensor, outer: Tensor, epsilon: float):
        super().__init__()
        self.register_buffer("secret", secret)
        self.register_buffer("inner", inner)
        self.register_buffer("outer", outer)
        self.epsilon = epsilon

    def stamp(self, pixels: Tensor) -> Tensor:
        flat = pixels.reshape(-1, *pixels.shape[-3:])
        seen = torch.cat([flat - 0.5, self.secret.expand(len(flat), 1, -1, -1)], 1)
        residual = conv2d(conv2d(seen, self.inner, padding="same").relu(), self.outer, padding="same").tanh()
        return pixels + self.epsilon * residual.view(pixels.shape)
