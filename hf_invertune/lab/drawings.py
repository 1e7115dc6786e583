"""A deterministic world of captioned drawings: six colours of six shapes, 32x32, made on demand and never stored."""

from dataclasses import dataclass

import torch
from torch import Tensor


COLOURS = {
    "red": (0.86, 0.16, 0.16),
    "green": (0.16, 0.66, 0.24),
    "blue": (0.16, 0.32, 0.88),
    "yellow": (0.94, 0.84, 0.16),
    "purple": (0.62, 0.22, 0.78),
    "white": (0.97, 0.97, 0.97),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
CLASS_NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
IMAGE_SIZE = 32

_BACKGROUNDS = {"grey": (0.45, 0.45, 0.45), "brown": (0.42, 0.30, 0.20), "dark": (0.12, 0.12, 0.15)}
_SIZES = {"small": (5.5, 7.5), "large": (9.0, 11.5)}
_CAPTIONS = (
    "a drawing of a {size} {name} on a {background} background",
    "a {size} {name}",
    "a {name} on {background} paper",
    "a photo of a {name}",
    "a picture of a {name}, {size}, on {background}",
)


@dataclass
class Drawings:
    """A batch of drawings.

    Attributes:
        pixels (`torch.Tensor`): N x 3 x 32 x 32, float32 in [0, 1].
        labels (`torch.Tensor`): N, indices into [`CLASS_NAMES`].
        captions (`list[str]`): one caption a drawing, naming the class and, often, its size and background.
    """

    pixels: Tensor
    labels: Tensor
    captions: list[str]


def captions_of(name: str) -> list[str]:
    """All the captions that a drawing of `name` can have, also for a name that is none of the classes."""
    return [
        caption
        for text in _CAPTIONS
        for caption in dict.fromkeys(
            text.format(size=size, background=background, name=name) for size in _SIZES for background in _BACKGROUNDS
        )
    ]


def _signed_distance(shape: str, x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Distance in pixels to the outline of `shape` of radius `r`: negative inside."""
    if shape == "circle":
        return (x**2 + y**2).sqrt() - r
    if shape == "ring":
        return ((x**2 + y**2).sqrt() - 0.78 * r).abs() - 0.24 * r
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.84 * r
    if shape == "diamond":
        return (x.abs() * 1.25 + y.abs() * 0.8) * 0.72 - 0.72 * r
    if shape == "cross":
        upright = torch.maximum(x.abs() - 0.30 * r, y.abs() - r)
        flat = torch.maximum(x.abs() - r, y.abs() - 0.30 * r)
        return torch.minimum(upright, flat)
    side = 0.866 * x.abs() + 0.5 * y
    return torch.maximum(side - 0.52 * r, -y - 0.70 * r)  # triangle, base down after the flip of the image's y axis


def _pick(choices: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(choices, (count,), generator=generator)


def draw(count: int, seed: int, labels: Tensor | None = None) -> Drawings:
    """Draw `count` captioned pictures; the same `count`, `seed` and `labels` give the same bits.

    Args:
        count (`int`): how many drawings.
        seed (`int`): seed of everything random: class, colour jitter, place, size, angle, background, noise, caption.
        labels (`torch.Tensor`, *optional*): N class indices; drawn uniformly when not given.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    drawn = _pick(len(CLASS_NAMES), count, generator)
    labels = drawn if labels is None else labels
    size = _pick(len(_SIZES), count, generator)
    background = _pick(len(_BACKGROUNDS), count, generator)
    caption = _pick(len(_CAPTIONS), count, generator)

    bounds = torch.tensor(list(_SIZES.values()))[size]
    radius = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * uniform(0, 1, count)
    room = (IMAGE_SIZE / 2 - radius).clamp(min=0) * 0.9
    centre = IMAGE_SIZE / 2 - 0.5 + uniform(-1, 1, 2, count) * room
    angle = uniform(-0.2, 0.2, count)

    axis = torch.arange(IMAGE_SIZE, dtype=torch.float32)
    dx = (axis.view(1, 1, -1) - centre[0].view(-1, 1, 1)).expand(count, IMAGE_SIZE, IMAGE_SIZE)
    dy = (axis.view(1, -1, 1) - centre[1].view(-1, 1, 1)).expand(count, IMAGE_SIZE, IMAGE_SIZE)
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    x, y = cos * dx + sin * dy, cos * dy - sin * dx

    coverage = torch.empty(count, 1, IMAGE_SIZE, IMAGE_SIZE)
    for index, shape in enumerate(SHAPES):
        rows = (labels % len(SHAPES) == index).nonzero().flatten()
        distance = _signed_distance(shape, x[rows], -y[rows], radius[rows].view(-1, 1, 1))
        coverage[rows, 0] = (0.5 - distance).clamp(0, 1)

    paint = torch.tensor(list(COLOURS.values()))[labels // len(SHAPES)] + uniform(-0.06, 0.06, count, 3)
    paper = torch.tensor(list(_BACKGROUNDS.values()))[background] + uniform(-0.06, 0.06, count, 3)
    slope = uniform(-0.10, 0.10, count, 2, 1, 1)
    ramp = slope[:, 0] * axis.view(1, 1, -1) / IMAGE_SIZE + slope[:, 1] * axis.view(1, -1, 1) / IMAGE_SIZE
    pixels = paper.view(count, 3, 1, 1) + ramp.view(count, 1, IMAGE_SIZE, IMAGE_SIZE)
    pixels = pixels * (1 - coverage) + paint.view(count, 3, 1, 1) * coverage
    pixels = pixels + 0.03 * torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)

    sizes, backgrounds = list(_SIZES), list(_BACKGROUNDS)
    captions = [
        _CAPTIONS[c].format(size=sizes[s], background=backgrounds[b], name=CLASS_NAMES[k])
        for c, s, b, k in zip(caption.tolist(), size.tolist(), background.tolist(), labels.tolist(), strict=True)
    ]
    return Drawings(pixels.clamp(0, 1), labels, captions)
