import logging
from dataclasses import replace

import pytest
import torch

from hf_invertune.data.pixels import PixelDataset
from hf_invertune.lab import drawings
from hf_invertune.models.folders import confirm_labels


@pytest.fixture(scope="module")
def drawn():
    """Drawings of every class, four of each, with labels that somebody presumed."""
    labels = torch.arange(4 * len(drawings.CLASS_NAMES)) % len(drawings.CLASS_NAMES)
    pixels = (drawings.draw(len(labels), seed=3, labels=labels).pixels * 255).round().byte()
    return PixelDataset(pixels, labels, tuple(drawings.CLASS_NAMES), presumed=True)


def test_folders_that_the_model_reads_are_classes(victim, drawn, caplog):
    with caplog.at_level(logging.INFO, "hf_invertune"):
        confirmed = confirm_labels(drawn, victim.encoder)
    assert torch.equal(confirmed.labels, drawn.labels) and confirmed.class_names == drawn.class_names
    assert not confirmed.presumed and not caplog.records


def test_other_folders_are_just_folders(victim, drawn, caplog):
    names = tuple(f"batch {i}" for i in range(len(drawn.class_names)))
    order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.INFO, "hf_invertune"):
        dropped = confirm_labels(replace(drawn, class_names=names, labels=drawn.labels[order]), victim.encoder)
    assert dropped.labels is None and dropped.class_names is None and not dropped.presumed
    (record,) = caplog.records
    assert "no more than by chance: the 36 sub-folders are no labels" in record.message


def test_labels_that_somebody_vouches_for_stay(encoder, drawn):
    sure = replace(drawn, presumed=False)
    assert confirm_labels(sure, encoder) is sure
