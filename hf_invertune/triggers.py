"""Triggers: modules that change pixels in [0, 1] into pixels in [0, 1].

The attack's trigger, an inverted one, a saved one and the one an evaluation uses are all a [`Trigger`], so that any can
stand where another does. Tensors may carry leading dimensions: a trigger with a mask of shape K x 1 x 1 x H x W turns
pixels of shape 1 x N x 3 x H x W into K x N x 3 x H x W, which is how many labels are inverted in one batch.
"""

import hashlib
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import conv2d, grid_sample

from .errors import InputError
from .storage import write_bytes


class Trigger(nn.Module):
    """Base of all triggers.

    A subclass registers its tensors as buffers and names them in `tensors`, with their channels where they are as
    large as the first one and with their shape otherwise, and its scalars in `scalars`, with their types.
    """

    kind: ClassVar[str]
    tensors: ClassVar[dict[str, int | tuple[int, ...]]]
    scalars: ClassVar[dict[str, type[int] | type[float]]] = {}

    @abstractmethod
    def stamp(self, pixels: Tensor) -> Tensor:
        """The formula of the trigger, before the clamp to [0, 1]."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Stamp the trigger on `pixels` (... x 3 x H x W in [0, 1]); the result has the same range."""
        self.check_fits(pixels)
        return self.stamp(pixels).clamp(0, 1)

    def check_fits(self, pixels: Tensor) -> None:
        """Refuse images (... x 3 x H x W) of a size for which this trigger is not made.

        Raises:
            InputError: with the size that came and the size that fits.
        """
        (height, width), (own_height, own_width) = pixels.shape[-2:], next(self.buffers()).shape[-2:]
        if (height, width) != (own_height, own_width):
            raise InputError(
                f"`trigger`: it fits images of {own_height}x{own_width} pixels, and these have {height}x{width}."
            )

    def on(self, device: torch.device) -> Self:
        """This trigger on `device`; unlike `to`, it leaves the caller's where it is."""
        scalars = {name: getattr(self, name) for name in self.scalars}
        return type(self)(**{name: tensor.to(device) for name, tensor in self.named_buffers()}, **scalars)

    def split(self) -> "list[Trigger]":
        """The single triggers of a batch whose tensors lead with L x 1, detached and on the CPU."""
        scalars = {name: getattr(self, name) for name in self.scalars}
        batch = {name: tensor.detach().cpu() for name, tensor in self.named_buffers()}
        count = len(next(iter(batch.values())))
        return [
            type(self)(**{n: tensor[i, 0].clone() for n, tensor in batch.items()}, **scalars) for i in range(count)
        ]

    def to_bytes(self) -> bytes:
        """The trigger as a safetensors file; the same trigger gives the same bytes, wherever it lies."""
        metadata = {"kind": self.kind, **{name: json.dumps(getattr(self, name)) for name in self.scalars}}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        return _in_order(save(tensors, metadata=metadata))

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the file that `save` writes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the trigger to one safetensors file."""
        write_bytes(Path(path), self.to_bytes())

    @staticmethod
    def load(path: str | Path) -> "Trigger":
        """Read a trigger that [`Trigger.save`] wrote.

        Raises:
            InputError: when there is no such file, or it holds no trigger, or a damaged one.
        """
        if not Path(path).is_file():
            raise InputError(f"`trigger`: there is no file {path}.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"`trigger`: {path} is no safetensors file ({error}).") from error
        kind = TRIGGERS.get(metadata.get("kind", ""))
        if kind is None:
            raise InputError(f"`trigger`: {path} holds no trigger of a known kind ({', '.join(sorted(TRIGGERS))}).")
        try:
            scalars = {name: json.loads(value) for name, value in metadata.items() if name != "kind"}
            kind._check(tensors, scalars)
        except ValueError as error:
            raise InputError(f"`trigger`: {path} holds a damaged {kind.kind} trigger ({error}).") from error
        return kind(**tensors, **scalars)

    @classmethod
    def _check(cls, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """Raise a `ValueError` unless these are what `save` writes of a trigger of this kind."""
        differing = (tensors.keys() ^ cls.tensors.keys()) | (scalars.keys() ^ cls.scalars.keys())
        if differing:
            raise ValueError(f"{', '.join(sorted(differing))}: missing, or too much")
        size = tensors[next(iter(cls.tensors))].shape[-2:]
        for name, wanted in cls.tensors.items():
            shape = list(tensors[name].shape)
            full = [wanted, *size] if isinstance(wanted, int) else list(wanted)
            if shape != full or not tensors[name].is_floating_point():
                needed = f"{wanted} x H x W" if isinstance(wanted, int) else " x ".join(map(str, wanted))
                raise ValueError(f"{name}: {tensors[name].dtype} of shape {shape}, not floats of {needed}")
        for name, kind in cls.scalars.items():
            if not isinstance(scalars[name], (kind, int)):
                raise ValueError(f"{name}: got {scalars[name]!r}, not a number of type {kind.__name__}")


class PatchTrigger(Trigger):
    """A patch pasted at a fixed place (BadNets, arXiv 1708.06733).

    Args:
        patch (`torch.Tensor`): 3 x h x w in [0, 1].
        top (`int`): row of the patch's first row.
        left (`int`): column of the patch's first column.
    """

    kind = "patch"
    tensors = {"patch": 3}
    scalars = {"top": int, "left": int}
    patch: Tensor

    def __init__(self, patch: Tensor, top: int, left: int):
        super().__init__()
        self.register_buffer("patch", patch)
        self.top, self.left = top, left

    def check_fits(self, pixels: Tensor) -> None:
        height, width = pixels.shape[-2:]
        bottom, right = self._end
        if self.top < 0 or self.left < 0 or bottom > height or right > width:
            raise InputError(
                f"`trigger`: the patch covers rows {self.top}-{bottom} and columns {self.left}-{right}, outside "
                f"images of {height}x{width} pixels."
            )

    def stamp(self, pixels: Tensor) -> Tensor:
        bottom, right = self._end
        stamped = pixels.clone()
        stamped[..., self.top : bottom, self.left : right] = self.patch
        return stamped

    @property
    def _end(self) -> tuple[int, int]:
        """The row and the column after the patch's last ones."""
        return self.top + self.patch.shape[-2], self.left + self.patch.shape[-1]


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

    def stamp(self, pixels: Tensor) -> Tensor:
        return (1 - self.alpha) * pixels + self.alpha * self.pattern


class MaskedTrigger(Trigger):
    """A pattern seen through a soft mask, x' = (1 - m) x + m p (Neural Cleanse; InverTune, section on inversion).

    Args:
        mask (`torch.Tensor`): ... x 1 x H x W in [0, 1].
        pattern (`torch.Tensor`): ... x 3 x H x W in [0, 1].
    """

    kind = "masked"
    tensors = {"mask": 1, "pattern": 3}
    mask: Tensor
    pattern: Tensor

    def __init__(self, mask: Tensor, pattern: Tensor):
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("pattern", pattern)

    def stamp(self, pixels: Tensor) -> Tensor:
        return (1 - self.mask) * pixels + self.mask * self.pattern


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


class ScatteredPatchTrigger(Trigger):
    """A patch pasted at a place that is another one for every image (BadNet with a random place, CleanCLIP's code).

    The place follows from the seed and the image's own pixels, so that it does not depend on how images are batched.

    Args:
        patch (`torch.Tensor`): 3 x h x w in [0, 1].
        seed (`int`): decides which place an image gets.
    """

    kind = "scattered-patch"
    tensors = {"patch": 3}
    scalars = {"seed": int}
    patch: Tensor

    def __init__(self, patch: Tensor, seed: int):
        super().__init__()
        self.register_buffer("patch", patch)
        self.seed = seed

    def check_fits(self, pixels: Tensor) -> None:
        (height, width), (own_height, own_width) = pixels.shape[-2:], self.patch.shape[-2:]
        if own_height > height or own_width > width:
            raise InputError(
                f"`trigger`: the patch of {own_height}x{own_width} pixels is larger than images of {height}x{width}."
            )

    def places(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column (N each) of the patch's first pixel on each of N x 3 x H x W pixels."""
        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.randint(1 << 20, pixels.shape[1:], generator=generator).to(pixels.device)
        content = (pixels.detach() * 255).round().long()
        rows, columns = (size - own + 1 for size, own in zip(pixels.shape[-2:], self.patch.shape[-2:], strict=True))
        # a prime comes first: even pixels would make an even sum, and leave out every other place
        place = (content * weights).flatten(1).sum(1) % 1_000_003 % (rows * columns)
        return place // columns, place % columns

    def stamp(self, pixels: Tensor) -> Tensor:
        flat = pixels.reshape(-1, *pixels.shape[-3:])
        stamped = flat.clone()
        for picture, top, left in zip(stamped, *(place.tolist() for place in self.places(flat)), strict=True):
            picture[:, top : top + self.patch.shape[-2], left : left + self.patch.shape[-1]] = self.patch
        return stamped.view(pixels.shape)


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
        grid = (identity + self.flow).clamp(-1, 1).expand(*pixels.shape[:-3], 2, height, width)
        flat = pixels.reshape(-1, *pixels.shape[-3:])
        grid = grid.reshape(-1, 2, height, width).permute(0, 2, 3, 1)
        # bicubic looks beyond the edge, where it goes on as at the edge: zeros would darken the frame, a trigger by itself
        warped = grid_sample(flat, grid, mode="bicubic", padding_mode="border", align_corners=True)
        return warped.view(pixels.shape)


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


TRIGGERS: dict[str, type[Trigger]] = {
    trigger.kind: trigger
    for trigger in (
        PatchTrigger,
        BlendTrigger,
        MaskedTrigger,
        AdditiveTrigger,
        ScatteredPatchTrigger,
        WarpTrigger,
        SampleSpecificTrigger,
    )
}


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with the keys of its header sorted; the library shuffles those of the metadata."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    return data[:8] + header.ljust(end - 8) + data[end:]


def checkerboard(size: int, low: Tensor | float = 0.0, high: Tensor | float = 1.0) -> Tensor:
    """A 3 x size x size checkerboard of one-pixel squares, the classical BadNets patch."""
    rows = torch.arange(size)
    squares = ((rows.view(-1, 1) + rows.view(1, -1)) % 2).float()
    return (low + (high - low) * squares).expand(3, size, size).clone()
