import math

import pytest
import torch

from hf_invertune.errors import InputError
from hf_invertune.lab.arena.rebound import ReboundConfig, measure_rebound
from hf_invertune.lab.contrastive import CaptionedPixels
from hf_invertune.lab.drawings import draw
from hf_invertune.models.evaluation import Metrics, Rate


def test_the_curve_has_its_points_and_the_model_learns(tiny):
    drawn = draw(64, seed=3)
    data = CaptionedPixels((drawn.pixels * 255).round().byte(), drawn.captions)
    weights, training = [], []

    def measure(encoder):
        weights.append(encoder.model.vision_model.embeddings.class_embedding.detach().clone())
        training.append(encoder.model.training)
        return [Metrics(clean_accuracy=Rate(len(weights), 10))]

    config = ReboundConfig(steps=5, every=2, batch_size=16)
    curve = measure_rebound(tiny, data, measure, seed=0, config=config)
    assert [point.step for point in curve] == [0, 2, 4, 5]
    assert training == [False, True, True, True]  # what is measured on the way is left in training mode
    assert [point.metrics[0].clean_accuracy.hits for point in curve] == [1, 2, 3, 4]
    assert all(not torch.equal(a, b) for a, b in zip(weights, weights[1:], strict=False))
    moved = (weights[1] - weights[0]).abs().max()
    assert math.isclose(moved, 2e-4, rel_tol=0.1)  # two steps of Adam at the full rate, from the first on


def test_numbers_that_are_not_positive():
    with pytest.raises(InputError, match="`every`: got 0; it must be positive"):
        ReboundConfig(every=0)
