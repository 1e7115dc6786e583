"""Does a model read the names of classes in pictures better than chance would?"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..data.pixels import PixelDataset, draw
from ..data.prompts import TEMPLATES
from .classifier import ZeroShotClassifier
from .encoder import DualEncoder


logger = logging.getLogger(__name__)

SHUFFLES = 999
"""How often labels are shuffled to see what chance does."""

_ENOUGH = 512  # pictures to judge by


def better_than_chance(predicted: Tensor, labels: Tensor, shuffles: int = SHUFFLES) -> bool:
    """Whether more `predicted` labels are right than with the `labels` in any shuffled order.

    A permutation test: on labels that say nothing of the pictures it is wrong once in `shuffles` + 1 times.

    Args:
        predicted, labels (`torch.Tensor`): N labels each.
        shuffles (`int`): how many orders are tried.
    """
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.randperm(len(labels), generator=generator) for _ in range(shuffles)])
    return bool((predicted == labels).sum() > (predicted == labels[orders]).sum(1).max())


def confirm_labels(data: PixelDataset, encoder: DualEncoder, templates: Sequence[str] = TEMPLATES) -> PixelDataset:
    """Take the names of sub-folders for classes where the model reads them in the pictures better than chance.

    Args:
        data ([`PixelDataset`]): pictures; unless their labels are `presumed` they come back as they are.
        encoder ([`DualEncoder`]): the model.
        templates (`Sequence[str]`, *optional*): prompt templates.
    """
    if not data.presumed or data.labels is None or data.class_names is None:
        return data
    count = min(_ENOUGH, len(data))
    part = data.subset(draw(count, len(data), data.labels, seed=0)[0])
    predicted = ZeroShotClassifier(encoder, data.class_names, templates).predict(part.pixels)
    assert part.labels is not None
    if better_than_chance(predicted, part.labels):
        return replace(data, presumed=False)
    right = int((predicted == part.labels).sum())
    logger.info(
        "The model reads the name of its sub-folder in %d of %d pictures, no more than chance would: the %d sub-folders "
        "are no labels.",
        right,
        count,
        len(data.class_names),
    )
    return replace(data, labels=None, class_names=None, presumed=False)
