from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.encoder import DualEncoder
from hf_invertune.stages.configs import ScanConfig
from hf_invertune.stages.families import AdditiveFamily, MaskedFamily
from hf_invertune.stages.families.masked import patch_areas
from hf_invertune.stages.simulation import Simulation, Simulator
from hf_invertune.triggers import AdditiveTrigger


STILL = AdditiveTrigger(torch.zeros(3, 2, 2), 0.1)
NAMES = ["red circle", "blue square", "green ring", "white cross"]


@pytest.mark.parametrize(
    ("size", "share", "side", "places"),
    [
        (32, 0.029, 5, [(26, 26), (26, 1), (1, 26), (1, 1), (13, 13)]),
        (224, 0.029, 38, [(179, 179), (179, 7), (7, 179), (7, 7), (93, 93)]),
        (32, 1e-6, 2, [(29, 29), (29, 1), (1, 29), (1, 1), (15, 15)]),
    ],
)
def test_patch_areas(size, share, side, places):
    areas = patch_areas(size, share)
    assert areas.shape == (5, 1, 1, size, size)
    for area, (top, left) in zip(areas[:, 0, 0], places, strict=True):
        assert area.sum() == side * side
        assert area[top : top + side, left : left + side].eq(1).all()


def test_simulation():
    one = Simulation("patch", [0.5, 0.25, 0.25], [0.25, 0.0, 0.75], STILL)
    assert one.shift == [-0.25, -0.25, 0.5]
    assert one.suspect == 2


class TopRight:
    """An encoder that sees nothing but the mean colour of a square near the top right corner."""

    device = torch.device("cpu")
    frozen, model = staticmethod(nullcontext), nn.Identity()
    embed_batches, embed_pixels = DualEncoder.embed_batches, DualEncoder.embed_pixels

    def embed_images(self, pixels):
        return normalize(pixels[..., 1:6, 26:31].mean((-1, -2)), dim=-1)


class Eye(ZeroShotClassifier):
    """Reads the colour that the encoder sees most of."""

    def __init__(self):
        self.encoder, self.head, self.class_names = TopRight(), torch.eye(3), ("red", "green", "blue")


def test_the_simulated_patch_lies_where_it_shifts_labels_most():
    pixels = torch.tensor([0.6, 0.4, 0.3]).view(1, 3, 1, 1).repeat(8, 1, 32, 32)
    config = ScanConfig(simulation_steps=20, simulation_batch_size=2)
    found = Simulator(Eye(), config).simulate(pixels, MaskedFamily())
    assert found.clean == [1, 0, 0]
    assert found.suspect in (1, 2) and max(found.shift) == 1
    assert torch.equal(found.trigger.mask, patch_areas(32, 0.029)[2, 0])


@pytest.mark.parametrize("family", [MaskedFamily(), AdditiveFamily()], ids=lambda family: family.kind)
def test_the_seed_decides_the_simulation(encoder, pixels, family):
    classifier, patterns = ZeroShotClassifier(encoder, NAMES), []
    for seed in (1, 1, 2):
        simulator = Simulator(classifier, ScanConfig(simulation_steps=1), seed)
        patterns.append(list(simulator.simulate(pixels, family).trigger.buffers())[-1])
    assert torch.equal(patterns[0], patterns[1])
    assert not torch.equal(patterns[0], patterns[2])


@pytest.mark.parametrize(
    "family", [MaskedFamily(patch_share=0.1), AdditiveFamily(epsilon=0.1)], ids=lambda family: family.kind
)
def test_the_simulation_moves_embeddings_away(victim, family):
    from hf_invertune.lab.drawings import CLASS_NAMES, draw

    encoder, pixels = victim.encoder, draw(32, seed=31).pixels
    classifier, moved = ZeroShotClassifier(encoder, CLASS_NAMES), []
    with encoder.frozen():
        home = encoder.embed_batches(iter([pixels]))
        for steps in (1, 15):
            config = ScanConfig(simulation_steps=steps, simulation_batch_size=8)
            trigger = Simulator(classifier, config).simulate(pixels, family).trigger
            moved.append(1 - (encoder.embed_batches(iter([trigger(pixels)])) * home).sum(1).mean().item())
    assert moved[1] > 1.3 * moved[0] > 0
