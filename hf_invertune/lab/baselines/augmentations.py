"""What the rival defences do to their pictures and captions: AutoAugment, EDA, noise and erasing."""

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor


# Operation, probability and magnitude (0 to 9) of both steps of each sub-policy: AutoAugment, table 9, ImageNet.
IMAGENET_POLICY = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("colour", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("colour", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("colour", 1.0, 2)),
    (("colour", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear", 0.6, 5), ("equalize", 1.0, 9)),
    (("colour", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("colour", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)
HIGHEST = 9
"""The highest magnitude of an operation."""


class AutoAugment:
    """One of ImageNet's 25 learned sub-policies for each picture (AutoAugment, arXiv 1805.09501), on PIL's operations."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Change pictures, N x 3 x H x W in [0, 1]; what a rotation or a shear uncovers is black."""
        pictures = (pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
        changed = np.stack([np.asarray(self._augment(Image.fromarray(picture))) for picture in pictures])
        return torch.from_numpy(changed).permute(0, 3, 1, 2).float() / 255

    @staticmethod
    def _augment(picture: Image.Image) -> Image.Image:
        chosen = IMAGENET_POLICY[int(torch.randint(len(IMAGENET_POLICY), ()))]
        for name, probability, magnitude in chosen:
            if torch.rand(()) < probability:
                sign = 1 if torch.rand(()) < 0.5 else -1
                picture = apply_operation(picture, name, magnitude / HIGHEST, sign)
        return picture


def apply_operation(picture: Image.Image, name: str, strength: float, sign: int) -> Image.Image:
    """One of AutoAugment's operations on an RGB picture.

    Args:
        picture (`PIL.Image.Image`): the picture.
        name (`str`): the operation.
        strength (`float`): from 0 to 1, over the ranges of the paper's table 6.
        sign (`int`): 1 or -1, the direction, where there are two.
    """
    match name:
        case "rotate":
            return picture.rotate(sign * 30 * strength)
        case "shear":
            coefficients = (1.0, sign * 0.3 * strength, 0.0, 0.0, 1.0, 0.0)
            return picture.transform(picture.size, Image.Transform.AFFINE, coefficients)
        case "colour":
            return ImageEnhance.Color(picture).enhance(1 + sign * 0.9 * strength)
        case "contrast":
            return ImageEnhance.Contrast(picture).enhance(1 + sign * 0.9 * strength)
        case "sharpness":
            return ImageEnhance.Sharpness(picture).enhance(1 + sign * 0.9 * strength)
        case "posterize":
            return ImageOps.posterize(picture, 8 - round(4 * strength))
        case "solarize":
            return ImageOps.solarize(picture, round(255 * (1 - strength)))
        case "autocontrast":
            return ImageOps.autocontrast(picture)
        case "equalize":
            return ImageOps.equalize(picture)
        case "invert":
            return ImageOps.invert(picture)
        case _:
            raise ValueError(f"There is no operation {name!r}.")


def swap_or_delete_words(caption: str, share: float = 0.1) -> str:
    """Swap pairs of words, or leave words out (EDA, arXiv 1901.11196): one of both, with even odds.

    Args:
        caption (`str`): the caption.
        share (`float`): EDA's alpha: swaps for each word, at least one in all, or the chance of a word to be left out.
    """
    words = caption.split()
    if len(words) < 2:
        return caption
    if torch.rand(()) < 0.5:
        for _ in range(max(1, int(share * len(words)))):
            first, second = torch.randperm(len(words))[:2].tolist()
            words[first], words[second] = words[second], words[first]
        return " ".join(words)
    kept = [word for word, dice in zip(words, torch.rand(len(words)).tolist(), strict=True) if dice >= share]
    return " ".join(kept or [words[int(torch.randint(len(words), ()))]])


def brighten_with_noise(pixels: Tensor, sigma: float = 0.2, probability: float = 0.5) -> Tensor:
    """Add the positive part of Gaussian noise to a share `probability` of pictures, N x 3 x H x W in [0, 1] (PAR's code)."""
    noise = (sigma * torch.randn_like(pixels)).clamp(min=0)
    chosen = torch.rand(len(pixels), 1, 1, 1) < probability
    return (pixels + noise * chosen).clamp(max=1)


def erase_squares(
    values: Tensor, area: tuple[float, float] = (0.005, 0.01), value: float = 0.0, probability: float = 0.5
) -> Tensor:
    """Set a square in a share `probability` of pictures, N x 3 x H x W, to `value` (arXiv 1708.04896, as PAR uses it).

    Args:
        values (`torch.Tensor`): normalised pixels.
        area (`tuple[float, float]`): the smallest and the largest share of the picture that a square covers.
        value (`float`): what is put there; 0 is the mean colour of normalised pixels.
        probability (`float`): share of the pictures that lose a square.
    """
    erased = values.clone()
    height, width = values.shape[-2:]
    for picture in erased:
        if torch.rand(()) < probability:
            share = float(torch.empty(()).uniform_(*area))
            side = max(1, round((share * height * width) ** 0.5))
            top, left = (int(torch.randint(size - side + 1, ())) for size in (height, width))
            picture[:, top : top + side, left : left + side] = value
    return erased
