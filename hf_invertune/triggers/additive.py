"""A bounded pattern added to the image."""

from collections.abc import Iterator

from torch import Tensor

from .base import Trigger


class AdditiveTrigger(Trigger):
    """A bounded pattern added to the image, x' = x + d with |d| <= epsilon.

    Args:
        delta (`torch.Tensor`): ... x 3 x H x W, clamped to [-epsilon, epsilon] whenever it is applied.
        epsilon (`float`): the bound, in [0, 1]; 8/255 is invisible to most eyes.
    """

    kind = "additive"
    tensors = {"delta": 3}
    scalars = {"epsilon": float}
    delta: Tensor

    def __init__(self, delta: Tensor, epsilon: float):
        super().__init__()
        self.register_buffer("delta", delta)
        self.epsilon = epsilon

    def stamp(self, pixels: Tensor) -> Tensor:
        return pixels + self.delta.clamp(-self.epsilon, self.epsilon)

    def coverage(self) -> Tensor:
        """The mean of |d| / epsilon."""
        delta = self.delta.abs()
        return (delta.mean() if delta.ndim == 3 else delta.flatten(1).mean(1)) / self.epsilon

    def panels(self, withheld: bool = False) -> dict[str, Tensor]:
        """The pattern, amplified so that its bound fills the range, as the caption says."""
        if withheld:
            return {}
        factor = 0.5 / self.epsilon
        amplified = 0.5 + factor * self.delta.clamp(-self.epsilon, self.epsilon)
        return {f"added pattern, amplified {factor:.0f} times around grey": amplified}

    def describe(self, coverage: float) -> str:
        bound = f"at most {255 * self.epsilon:.0f} of 255 a pixel"
        return f"a faint pattern over the whole image, {bound} and {coverage:.0%} of that on average"

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if not 0 < self.epsilon <= 1 or (self.delta.abs() > 1.000001 * self.epsilon).any():
            yield "it exceeds its bound"
