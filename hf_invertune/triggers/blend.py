"""A picture blended over the whole image."""

from typing import Self

from torch import Tensor

from .base import Trigger


class BlendTrigger(Trigger):
    """A picture blended over the whole image, x' = (1 - alpha) x + alpha p (Blended, arXiv 1712.05526).

    Args:
        pattern (`torch.Tensor`): 3 x H x W in [0, 1].
        alpha (`float`): opacity in (0, 1].
    """

    kind = "blend"
    tensors = {"pattern": 3}
    scalars = {"alpha": float}
    pattern: Tensor

    def __init__(self, pattern: Tensor, alpha: float):
        super().__init__()
        self.register_buffer("pattern", pattern)
        self.alpha = alpha

    def outline(self) -> Self:
        return self._grey()

    def stamp(self, pixels: Tensor) -> Tensor:
        return (1 - self.alpha) * pixels + self.alpha * self.pattern
