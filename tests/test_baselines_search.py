from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from tiny import CLASS_NAMES

from hf_invertune.baselines import search as module
from hf_invertune.baselines.defence import Defence, Defended
from hf_invertune.baselines.search import SearchResult, Trial, choose_rate, search_learning_rate
from hf_invertune.contrastive import CaptionedPixels
from hf_invertune.errors import InputError
from hf_invertune.evaluation import Metrics, Rate


def trials(**figures):
    """One trial for each victim: rate -> [(CA after, ASR), ...] in percent; before it is 90 %."""
    return [
        Trial(float(rate.replace("r", "0.")), f"victim {index}", Rate(90, 100), Rate(ca, 100), [Rate(asr, 100)])
        for rate, own in figures.items()
        for index, (ca, asr) in enumerate(own)
    ]


def test_the_lowest_asr_among_the_gentle_rates():
    assert choose_rate(trials(r1=[(89, 60)], r2=[(87, 20)], r3=[(86, 0)])) == 0.2


def test_means_over_victims_count():
    assert choose_rate(trials(r1=[(90, 50), (90, 50)], r2=[(90, 0), (85, 90)], r3=[(90, 0), (83, 0)])) == 0.2


def test_the_best_difference_when_no_rate_is_gentle():
    assert choose_rate(trials(r1=[(80, 50)], r2=[(70, 10)], r3=[(20, 0)])) == 0.2


def test_the_smaller_one_of_equals():
    assert choose_rate(trials(r3=[(90, 10)], r1=[(90, 10)])) == 0.1


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
        load=lambda: SimpleNamespace(model="fresh", processor=None),
        attack=lambda: f"attack on {name}",
    )


@pytest.fixture
def measured(monkeypatch):
    calls = []

    def measure(encoder, data, class_names, attack):
        calls.append((encoder, data, attack))
        accuracy, successes = {"fresh": (90, (99, 98)), 0.1: (89, (40, 60)), 0.2: (88, (10, 30))}[encoder]
        return [Metrics(clean_accuracy=Rate(accuracy, 100), attack_success_rate=Rate(s, 100)) for s in successes]

    monkeypatch.setattr(module, "DualEncoder", lambda model, processor: model)
    monkeypatch.setattr(module, "measure_attack", measure)
    monkeypatch.setattr(module, "_check_finite", lambda *arguments: None)
    examined.reset_mock()
    return calls


def test_search(measured, tmp_path):
    found = search_learning_rate(Fake, [victim("x"), victim("y")], "clean", "validation", ["a", "b"], seed=5)
    assert (found.defence, found.seed, found.learning_rate) == ("fake", 5, 0.2)
    assert [(trial.victim, trial.learning_rate) for trial in found.trials] == [
        ("x", 0.1),
        ("x", 0.2),
        ("y", 0.1),
        ("y", 0.2),
    ]
    trial = found.trials[1]
    assert trial.attack_success_rate == pytest.approx(0.2)
    assert trial.drop == pytest.approx(0.02)
    assert measured[:3] == [
        ("fresh", "validation", "attack on x"),
        *[(r, "validation", "attack on x") for r in (0.1, 0.2)],
    ]
    assert examined.call_count == 2  # once a victim, at whatever rate
    found.save(tmp_path)
    assert SearchResult.load(tmp_path) == found


def test_a_rate_that_leaves_something_not_finite_is_not_chosen(measured, monkeypatch, tmp_path):
    def check(encoder, data, class_names):
        if encoder == 0.2:
            raise FloatingPointError("a.weight is not finite")

    monkeypatch.setattr(module, "_check_finite", check)
    found = search_learning_rate(Fake, [victim("x")], "clean", "validation", ["a", "b"], seed=5)
    assert found.learning_rate == 0.1
    assert [trial.unusable for trial in found.trials] == [None, "a.weight is not finite"]
    found.save(tmp_path)
    assert SearchResult.load(tmp_path) == found


def test_no_rate_when_none_is_usable():
    assert choose_rate([Trial(0.1, "x", Rate(90, 100), unusable="a.weight is not finite")]) is None


def test_what_is_not_finite_is_seen(encoder, pixels):
    data = CaptionedPixels((pixels * 255).to(torch.uint8), ["a photo"] * len(pixels))
    module._check_finite(encoder, data, CLASS_NAMES)
    encoder.model.visual_projection.weight.data[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match="visual_projection.weight is not finite"):
        module._check_finite(encoder, data, CLASS_NAMES)


def test_embeddings_that_overflow_are_seen(encoder, pixels):
    data = CaptionedPixels((pixels * 255).to(torch.uint8), ["a photo"] * len(pixels))
    encoder.model.visual_projection.weight.data.fill_(3e38)
    with pytest.raises(FloatingPointError, match="an embedding is not finite"):
        module._check_finite(encoder, data, CLASS_NAMES)


def test_wrong_input(measured):
    with pytest.raises(InputError, match="`victims`: got none"):
        search_learning_rate(Fake, [], "clean", "validation", ["a", "b"])
    with pytest.raises(InputError, match="`victims`: the attack on z did not take"):
        search_learning_rate(Fake, [victim("x"), victim("z", took=False)], "clean", "validation", ["a", "b"])
    without = type("Without", (Fake,), {"grid": ()})
    with pytest.raises(InputError, match="`defence`: fake has no learning rates"):
        search_learning_rate(without, [victim("x")], "clean", "validation", ["a", "b"])
    assert not measured
