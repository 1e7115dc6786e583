"""What triggers look like: patches, noise, pictures, stripes, triangles, text, waves, warps, residuals.

Sizes are those of the authors' 224-pixel images, scaled to `image_size` ([`scaled`]). Each pattern is drawn once from its
seed and then fixed: noise drawn anew for every image would work like augmentation, and flatter every defence.
"""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate


REFERENCE = 224
_OVERSAMPLING = 8  # shapes are drawn so much larger and averaged down, so that their edges are soft


def scaled(pixels: float, image_size: int, minimum: int = 1) -> int:
    """A length on 224-pixel images as one on images of `image_size`, at least `minimum`."""
    return max(minimum, round(pixels * image_size / REFERENCE))


def noise(size: int, seed: int) -> Tensor:
    """Uniform noise, 3 x size x size in [0, 1]."""
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))


def normal_noise(size: int, seed: int, deviation: float) -> Tensor:
    """Gaussian noise around grey, clipped to [0, 1], 3 x size x size."""
    drawn = torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed))
    return (0.5 + deviation * drawn).clamp(0, 1)


def stripes(size: int, seed: int) -> Tensor:
    """Vertical stripes one pixel wide, each channel of each black or white by the toss of a coin, 3 x size x size."""
    signs = torch.randint(2, (3, 1, size), generator=torch.Generator().manual_seed(seed))
    return signs.float().expand(3, size, size).clone()


def picture(image_size: int) -> Tensor:
    """A face with round ears, 3 x H x W in [0, 1], in the place of the cartoons that Blended is made with."""
    side = image_size * _OVERSAMPLING
    canvas = Image.new("RGB", (side, side), (250, 190, 210))
    pen = ImageDraw.Draw(canvas)

    def ellipse(x: float, y: float, rx: float, ry: float, colour: str) -> None:
        pen.ellipse([(x - rx) * side, (y - ry) * side, (x + rx) * side, (y + ry) * side], fill=colour)

    for x in (0.22, 0.78):
        ellipse(x, 0.26, 0.17, 0.17, "black")
    ellipse(0.5, 0.56, 0.42, 0.36, "white")
    for x in (0.34, 0.66):
        ellipse(x, 0.50, 0.05, 0.08, "black")
    ellipse(0.5, 0.64, 0.06, 0.04, "gold")
    ellipse(0.5, 0.79, 0.14, 0.04, "red")
    return _averaged(canvas)


def triangles(image_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """A grid of triangles, each of one random colour: their shape, 1 x H x W in [0, 1], and colours, 3 x H x W."""
    cell = scaled(14, image_size, minimum=4)
    grid = math.ceil(image_size / cell)
    hues = torch.rand(3, grid, grid, generator=torch.Generator().manual_seed(seed))
    colours = hues.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :image_size, :image_size]
    side, step = image_size * _OVERSAMPLING, cell * _OVERSAMPLING
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for top in range(0, side, step):
        for left in range(0, side, step):
            pen.polygon([(left, top + step - 1), (left + step - 1, top + step - 1), (left + step // 2, top)], fill=255)
    return _averaged(canvas), colours.clone()


def text(image_size: int, words: str) -> Tensor:
    """`words` across the middle of the image in Pillow's own font, 1 x H x W in [0, 1]."""
    side = image_size * _OVERSAMPLING
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    size = side / pen.textlength(words, ImageFont.load_default(100)) * 100
    pen.text((side / 2, side / 2), words, fill=255, font=ImageFont.load_default(size), anchor="mm")
    return _averaged(canvas)


def sinusoid(image_size: int, amplitude: float, periods: float) -> Tensor:
    """A vertical wave, 3 x H x W in [-amplitude, amplitude]: amplitude sin(2 pi j periods / W) in column j."""
    wave = amplitude * torch.sin(2 * math.pi * periods * torch.arange(image_size) / image_size)
    return wave.expand(3, image_size, image_size).clone()


def warp_flow(image_size: int, grid: int, strength: float, seed: int) -> Tensor:
    """A smooth flow field, 2 x H x W: `grid` x `grid` random displacements of mean size 1, interpolated, times s / H.

    WaNet (arXiv 2102.10369), equation 4; grid and strength are its k and s. A strength of 1 moves a pixel by half a
    pixel on the average.
    """
    drawn = 2 * torch.rand(1, 2, grid, grid, generator=torch.Generator().manual_seed(seed)) - 1
    drawn = drawn / drawn.abs().mean()
    smooth = interpolate(drawn, size=(image_size, image_size), mode="bicubic", align_corners=True)[0]
    return smooth * strength / image_size


def secret_map(image_size: int, secret: str) -> Tensor:
    """The bits of `secret` as a map that a network can see beside an image, 1 x H x W of -1 and 1.

    They fill a square of bits row by row, again from the first when they are used up; it is then enlarged to the image.
    """
    bits = np.unpackbits(np.frombuffer(secret.encode(), np.uint8))
    side = math.ceil(math.sqrt(len(bits)))
    square = torch.from_numpy(np.resize(bits, (side, side)).astype(np.float32))
    return interpolate(2 * square[None, None] - 1, size=(image_size, image_size), mode="nearest")[0]


def residual_weights(seed: int) -> tuple[Tensor, Tensor]:
    """The two layers of a [`SampleSpecificTrigger`], Gaussian and scaled to keep the size of what goes through them."""
    generator = torch.Generator().manual_seed(seed)
    inner, outer = (torch.randn(shape, generator=generator) for shape in ((16, 4, 5, 5), (3, 16, 5, 5)))
    return inner / math.sqrt(inner[0].numel() / 2), outer / math.sqrt(outer[0].numel() / 2)


def _averaged(canvas: Image.Image) -> Tensor:
    """An oversampled drawing at its true size, C x H x W in [0, 1]."""
    size = canvas.width // _OVERSAMPLING
    values = np.asarray(canvas.reduce(_OVERSAMPLING), np.float32).reshape(size, size, -1) / 255
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()
