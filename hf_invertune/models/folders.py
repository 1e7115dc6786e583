"""Are sub-folders classes? Where the model reads their names in the pictures."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from ..data.pixels import PixelDataset, draw
from .classifier import ZeroShotClassifier
from .encoder import DualEncoder
from .evaluation import MAX_CHANCE, Rate, chance


logger = logging.getLogger(__name__)

_ENOUGH = 512  # pictures to judge by


def confirm_labels(data: PixelDataset, encoder: DualEncoder, templates: Sequence[str] | None = None) -> PixelDataset:
    """Take the names of sub-folders for classes where the model reads them in the pictures better than chance.

    For a model that reads no names there are no classes at all.

    Args:
        data ([`PixelDataset`]): pictures; unless their labels are `presumed` they come back as they are.
        encoder ([`DualEncoder`]): the model.
        templates (`Sequence[str]`, *optional*): prompt templates; by default those of the model's family.

    Raises:
        InputError: unlabelled pictures with names, for a model that reads none.
    """
    if not encoder.reads_text:
        if data.labels is None and data.class_names is not None:  # names that were asked for
            encoder.require_text()
        return replace(data, labels=None, class_names=None, presumed=False)
    if not data.presumed or data.labels is None or data.class_names is None:
        return data
    part = data.subset(draw(min(_ENOUGH, len(data)), len(data), data.labels, seed=0)[0])
    assert part.labels is not None
    predicted = ZeroShotClassifier(encoder, data.class_names, templates).predict(part.pixels)
    if chance(predicted, part.labels) <= MAX_CHANCE:
        return replace(data, presumed=False)
    right = Rate.of(predicted == part.labels)
    logger.info(
        "The model reads the name of the sub-folder in %d of %d pictures, no more than by chance: the %d sub-folders are "
        "no labels.",
        right.hits,
        right.count,
        len(data.class_names),
    )
    return replace(data, labels=None, class_names=None, presumed=False)
