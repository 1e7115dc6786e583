from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from tiny import CLASS_NAMES

from hf_invertune.errors import InputError
from hf_invertune.lab.baselines import search as module
from hf_invertune.lab.baselines.defence import Defence, Defended, check_finite
from hf_invertune.lab.baselines.search import Trial, choose_rate, try_rates
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.evaluation import Metrics, Rate


def trials(**figures):
    """One trial for each victim: rate -> [(CA after, ASR), ...] in percent; before it is 90 %."""
    return [
        Trial(float(rate.replace("r", "0.")), f"victim {index}", Rate(90, 100), Rate(ca, 100), [Rate(asr, 100)])
        for rate, own in figures.items()
        for index, (ca, asr) in enumerate(own)
    ]


def test_the_largest_difference_of_ca_and_asr():
    assert choose_rate(trials(r1=[(89, 60)], r2=[(80, 20)], r3=[(60, 1)])) == 0.2


def test_means_over_victims_count():
    assert choose_rate(trials(r1=[(90, 50), (90, 50)], r2=[(90, 0), (85, 90)], r3=[(90, 0), (80, 60)])) == 0.3


def test_the_smaller_one_of_equals():
    assert choose_rate(trials(r3=[(80, 10)], r1=[(90, 20)])) == 0.1


class Clip:
    """A loaded model of which nothing is asked but what it is."""

    def __init__(self, model):
        self.model = self.encoder = model

    def holding(self, model):
        return Clip(model)


def classify(encoder, class_names):
    assert class_names == ["a", "b"]
    return encoder


class Fake(Defence):
    name = "fake"
    grid = (0.1, 0.2)

    def examine(self, clip, data, class_names):
        assert (self.seed, data, class_names, clip.model) == (5, "clean", ["a", "b"], "fresh")
        return examined("found")

    def treat(self, clip, data, class_names, found):
        assert (self.seed, data, class_names, found) == (5, "clean", ["a", "b"], "found")
        assert clip.model == "fresh"
        return Defended(self.learning_rate)


examined = Mock(side_effect=str)


def victim(name, took=True):
    return SimpleNamespace(
        truth=SimpleNamespace(name=name, took=took),
        load=lambda: Clip("fresh"),
        attack=lambda: f"attack on {name}",
    )


@pytest.fixture
def measured(monkeypatch):
    calls = []

    def measure(model, data, attack):
        calls.append((model, data, attack))
        accuracy, successes = {"fresh": (90, (99, 98)), 0.1: (89, (40, 60)), 0.2: (88, (10, 30))}[model]
        return [Metrics(clean_accuracy=Rate(accuracy, 100), attack_success_rate=Rate(s, 100)) for s in successes]

    monkeypatch.setattr(module, "ZeroShotClassifier", classify)
    monkeypatch.setattr(module, "measure_attack", measure)
    monkeypatch.setattr(module, "check_finite", lambda *arguments: None)
    examined.reset_mock()
    return calls


DATA = SimpleNamespace(pixels="validation")


def attempt(name="x", took=True):
    return try_rates(Fake, victim(name, took), "clean", DATA, ["a", "b"], Fake.grid, seed=5)


def test_every_rate_is_tried(measured, tmp_path):
    found = attempt()
    assert [(trial.victim, trial.learning_rate) for trial in found] == [("x", 0.1), ("x", 0.2)]
    assert found[1].attack_success_rate == pytest.approx(0.2)
    assert found[1].drop == pytest.approx(0.02)
    assert measured == [("fresh", DATA, "attack on x"), *[(rate, DATA, "attack on x") for rate in Fake.grid]]
    assert examined.call_count == 1  # at whatever rate
    found[1].save(tmp_path)
    assert Trial.load(tmp_path) == found[1]


def test_a_rate_that_leaves_something_not_finite_is_not_chosen(measured, monkeypatch, tmp_path):
    def check(model, pixels):
        assert pixels == "validation"
        if model == 0.2:
            raise FloatingPointError("a.weight is not finite")

    monkeypatch.setattr(module, "check_finite", check)
    found = attempt()
    assert choose_rate(found) == 0.1
    assert [trial.unusable for trial in found] == [None, "a.weight is not finite"]
    found[1].save(tmp_path)
    assert Trial.load(tmp_path) == found[1]


def test_no_rate_when_none_is_usable():
    assert choose_rate([Trial(0.1, "x", Rate(90, 100), unusable="a.weight is not finite")]) is None


def test_what_is_not_finite_is_seen(encoder, pixels):
    stored = (pixels * 255).to(torch.uint8)
    check_finite(ZeroShotClassifier(encoder, CLASS_NAMES), stored)
    encoder.model.visual_projection.weight.data[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match="visual_projection.weight is not finite"):
        check_finite(ZeroShotClassifier(encoder, CLASS_NAMES), stored)


def test_embeddings_that_overflow_are_seen(encoder, pixels):
    encoder.model.visual_projection.weight.data.fill_(3e38)
    with pytest.raises(FloatingPointError, match="an embedding is not finite"):
        check_finite(ZeroShotClassifier(encoder, CLASS_NAMES), (pixels * 255).to(torch.uint8))


def test_a_victim_that_did_not_take(measured):
    with pytest.raises(InputError, match="`victim`: the attack on z did not take"):
        attempt("z", took=False)
    assert not measured
