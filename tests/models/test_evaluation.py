import math
from contextlib import nullcontext

import pytest
import torch
from torch.nn.functional import one_hot

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.encoder import DualEncoder
from hf_invertune.models.evaluation import Metrics, Rate, evaluate
from hf_invertune.triggers import AdditiveTrigger, MaskedTrigger


class Grey:
    """An encoder that reads a picture of the grey k / 10 as label k, and counts its batches."""

    device = torch.device("cpu")
    frozen = staticmethod(nullcontext)
    embed_batches, embed_pixels = DualEncoder.embed_batches, DualEncoder.embed_pixels

    def __init__(self):
        self.batches = []

    def embed_images(self, pixels):
        assert pixels.dtype == torch.float32
        self.batches.append(len(pixels))
        return one_hot((pixels[:, 0, 0, 0] * 10).round().long(), 5).float()


class Greys(ZeroShotClassifier):
    """Five greys, which the encoder above tells apart."""

    def __init__(self):
        self.encoder, self.head, self.class_names = Grey(), torch.eye(5), tuple("abcde")


LABELS = torch.tensor([0, 1, 1, 2, 2, 1, 3])
READ = torch.tensor([0, 1, 1, 1, 2, 2, 3])
PIXELS = (READ / 10).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
NEXT = AdditiveTrigger(torch.full((3, 2, 2), 0.1), 0.1)
"""Makes each picture read as the next label: 1, 2, 2, 2, 3, 3, 4."""


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval(hits, count, low, high):
    """The last one is Newcombe's example (Statistics in Medicine 17, 1998)."""
    assert Rate(hits, count).interval == pytest.approx((low, high), abs=5e-5)


def test_rate():
    assert Rate.of(torch.tensor([True, False, True, True])) == Rate(3, 4)
    assert Rate(3, 4).value == 0.75
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).interval == (0.0, 1.0)


def test_predict():
    greys = Greys()
    assert greys.predict(PIXELS, batch_size=3).tolist() == READ.tolist()
    assert greys.encoder.batches == [3, 3, 1]
    assert greys.predict((PIXELS * 255).round().byte()).tolist() == READ.tolist()
    assert greys.predict(PIXELS, NEXT, batch_size=3).tolist() == (READ + 1).tolist()
    assert greys.predict(PIXELS, lambda images: 0.1 + 0 * images).tolist() == [1] * 7
    assert greys.shares(greys.encoder.embed_pixels(PIXELS)) == pytest.approx([1 / 7, 3 / 7, 2 / 7, 1 / 7, 0])


def test_partly_labelled():
    """A picture without a label counts as what the model reads, and not for the accuracies."""
    labels = LABELS.clone()
    labels[[0, 3]] = -1
    metrics = evaluate(Greys(), PIXELS, labels=labels, trigger=NEXT, target=2)
    assert (metrics.clean_accuracy, metrics.poisoned_accuracy) == (Rate(4, 5), Rate(0, 5))
    assert (metrics.attack_success_rate, metrics.target_rate) == (Rate(3, 6), Rate(1, 6))


def test_labelled():
    assert evaluate(Greys(), PIXELS, labels=LABELS, trigger=NEXT, target=2) == Metrics(
        clean_accuracy=Rate(5, 7),
        agreement=None,
        attack_success_rate=Rate(2, 5),
        attack_success_rate_all=Rate(3, 7),
        target_rate=Rate(1, 5),
        poisoned_accuracy=Rate(1, 7),
    )


def test_unlabelled():
    reference = torch.tensor([0, 1, 2, 1, 2, 2, 0])
    assert evaluate(Greys(), PIXELS, reference=reference, trigger=NEXT, target=2) == Metrics(
        clean_accuracy=None,
        agreement=Rate(5, 7),
        attack_success_rate=Rate(2, 4),
        attack_success_rate_all=Rate(3, 7),
        target_rate=Rate(0, 4),
        poisoned_accuracy=None,
    )


def test_labels_go_before_the_reference():
    metrics = evaluate(Greys(), PIXELS, labels=LABELS, reference=READ, trigger=NEXT, target=2)
    assert (metrics.clean_accuracy, metrics.agreement) == (Rate(5, 7), Rate(7, 7))
    assert (metrics.attack_success_rate, metrics.poisoned_accuracy) == (Rate(2, 5), Rate(1, 7))


def test_neither_labels_nor_reference():
    assert evaluate(Greys(), PIXELS, trigger=NEXT, target=2) == Metrics(
        attack_success_rate=Rate(3, 5), attack_success_rate_all=Rate(3, 7), target_rate=Rate(0, 5)
    )


def test_only_target_images():
    metrics = evaluate(Greys(), PIXELS, labels=torch.full((7,), 2), trigger=NEXT, target=2)
    assert metrics.attack_success_rate == metrics.target_rate == Rate(0, 0)
    assert metrics.attack_success_rate_all == metrics.poisoned_accuracy == Rate(3, 7)


@pytest.mark.parametrize("half", [{}, {"trigger": NEXT}, {"target": 2}])
def test_without_trigger_and_target(half):
    assert evaluate(Greys(), PIXELS, labels=LABELS, **half) == Metrics(clean_accuracy=Rate(5, 7))


def test_a_model_is_left_as_it_was(encoder, pixels):
    encoder.model.train()
    classifier = ZeroShotClassifier(encoder, ["red circle", "blue square", "green ring"])
    expected = (encoder.embed_images(pixels).detach() @ classifier.head.T).argmax(1)
    assert torch.equal(classifier.predict(pixels, batch_size=5), expected)
    assert encoder.model.training
    assert all(parameter.requires_grad for parameter in encoder.model.parameters())


def test_the_attacks_own_trigger_works_on_the_victim(victim):
    from hf_invertune.lab.demo import demo_images, victim_truth

    data, (truth, trigger) = demo_images(200, 91), victim_truth()
    classifier = ZeroShotClassifier(victim.encoder, data.class_names)
    target = data.class_names.index(truth["target"])
    metrics = evaluate(classifier, data.pixels, labels=data.labels, trigger=trigger, target=target)
    assert metrics.clean_accuracy.value > 0.9
    assert metrics.attack_success_rate.value > 0.9
    assert metrics.target_rate.value < 0.1
    mask = torch.zeros(1, 32, 32)
    mask[:, 26:31, 26:31] = 1
    grey = MaskedTrigger(mask, torch.full((3, 32, 32), 0.5))
    harmless = evaluate(classifier, data.pixels, labels=data.labels, trigger=grey, target=target)
    assert harmless.attack_success_rate.value < 0.2


def test_a_measurement_elsewhere_leaves_the_trigger_where_it_is():
    used = []

    class Elsewhere(Greys):
        def predict(self, pixels, transform=None, batch_size=256):
            used.append(transform)
            return torch.zeros(12, dtype=torch.int64)

    elsewhere = Elsewhere()
    elsewhere.encoder.device = torch.device("meta")
    trigger = AdditiveTrigger(torch.zeros(3, 32, 32), 0.1)
    evaluate(elsewhere, torch.zeros(12, 3, 32, 32), trigger=trigger, target=1)
    assert used[1].delta.is_meta and not trigger.delta.is_meta
