from types import SimpleNamespace

import pytest

from hf_invertune.baselines import search as module
from hf_invertune.baselines.defence import Defence, Defended
from hf_invertune.baselines.search import SearchResult, Trial, choose_rate, search_learning_rate
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

    def defend(self, clip, data, class_names):
        assert (self.seed, data, class_names) == (5, "clean", ["a", "b"])
        assert clip.model == "fresh"
        return Defended(self.learning_rate)


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
    found.save(tmp_path)
    assert SearchResult.load(tmp_path) == found


def test_wrong_input(measured):
    with pytest.raises(InputError, match="`victims`: got none"):
        search_learning_rate(Fake, [], "clean", "validation", ["a", "b"])
    with pytest.raises(InputError, match="`victims`: the attack on z did not take"):
        search_learning_rate(Fake, [victim("x"), victim("z", took=False)], "clean", "validation", ["a", "b"])
    without = type("Without", (Fake,), {"grid": ()})
    with pytest.raises(InputError, match="`defence`: fake has no learning rates"):
        search_learning_rate(without, [victim("x")], "clean", "validation", ["a", "b"])
    assert not measured
