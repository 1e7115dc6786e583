"""The search of learning rates: safe to kill, and only what was asked is searched again."""

import json
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import results_file
import search_learning_rates as command
from arena_zoo import FakeWorld

from hf_invertune.errors import InputError
from hf_invertune.lab.arena import search as module
from hf_invertune.lab.baselines.search import Trial
from hf_invertune.models.evaluation import Rate


GRIDS = {"one": (0.1, 0.2), "two": (0.1,)}
ASR = {("one", 0.1): 40, ("one", 0.2): 10, ("two", 0.1): 5, ("two", 0.3): 4}


def make_zoo(folder, made=("badnet-100", "sig-100", "weak-100", "clean-100")):
    plans = [
        SimpleNamespace(name=name, role="validation", attack=None if name == "clean-100" else "badnet")
        for name in ("badnet-100", "sig-100", "weak-100", "clean-100")
    ]
    data = {"test": FakeWorld().test.digest()}
    truths = [SimpleNamespace(name=name, took=name != "weak-100", sha256=f"sha of {name}", data=data) for name in made]
    return SimpleNamespace(
        folder=folder,
        world=FakeWorld(),
        digest="recipe",
        recipe=SimpleNamespace(plans=lambda: plans),
        victims=[SimpleNamespace(truth=truth) for truth in truths],
    )


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script on a zoo in memory, with defences that are not run; `calls` has what was tried."""
    calls = []

    def try_rates(defence, victim, data, validation, class_names, rates, seed):
        assert (len(data), len(validation), class_names) == (8, 12, FakeWorld.class_names)
        calls.append((defence.name, victim.truth.name, seed, *([] if rates == [*defence.grid] else [rates])))
        return [
            Trial(rate, victim.truth.name, Rate(90, 100), Rate(90, 100), [Rate(ASR[defence.name, rate], 100)])
            for rate in rates
        ]

    defences = {name: SimpleNamespace(name=name, grid=grid, revision=0) for name, grid in GRIDS.items()}
    monkeypatch.setattr(results_file, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "BASELINES", {**defences, "none": SimpleNamespace(name="none", grid=())})
    monkeypatch.setattr(module, "try_rates", try_rates)
    monkeypatch.setattr(module.Zoo, "open", lambda folder: make_zoo(Path(folder)))
    run = partial(command.main, [str(tmp_path / "zoo"), "--images", "8"])
    return SimpleNamespace(
        module=module, defences=defences, calls=calls, run=run, result=tmp_path / "results/learning_rates_noise.json"
    )


ALL = [(name, victim, 100) for name in GRIDS for victim in ("badnet-100", "sig-100")]


def test_the_result_file(script):
    script.run()
    assert script.calls == ALL
    result = json.loads(script.result.read_text())
    assert result["learning_rates"] == {"one": 0.2, "two": 0.1}
    assert (result["world"], result["recipe"], result["images"], result["seed"]) == ("noise", "recipe", 8, 100)
    assert result["victims"] == {"badnet-100": "sha of badnet-100", "sig-100": "sha of sig-100"}
    assert result["did_not_take"] == ["weak-100"]
    assert [trial["learning_rate"] for trial in result["searches"]["one"]["trials"]] == [0.1, 0.2, 0.1, 0.2]


def test_killed_in_the_middle_it_goes_on(script, monkeypatch):
    whole = script.module.try_rates

    def killed(*arguments):
        if len(script.calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(script.module, "try_rates", killed)
    with pytest.raises(KeyboardInterrupt):
        script.run()
    assert not script.result.exists()
    monkeypatch.setattr(script.module, "try_rates", whole)
    script.run()
    assert script.calls == ALL
    assert json.loads(script.result.read_text())["learning_rates"] == {"one": 0.2, "two": 0.1}


def test_of_another_grid_only_what_is_new_is_searched(script, monkeypatch):
    script.run()
    script.calls.clear()
    monkeypatch.setattr(script.defences["two"], "grid", (0.1, 0.3))
    script.run()
    assert script.calls == [(*call, [0.3]) for call in ALL[2:]]
    result = json.loads(script.result.read_text())
    assert [trial["learning_rate"] for trial in result["searches"]["two"]["trials"]] == [0.1, 0.3, 0.1, 0.3]
    assert result["learning_rates"]["two"] == 0.3


def test_another_revision_is_searched_anew(script, monkeypatch):
    script.run()
    script.calls.clear()
    monkeypatch.setattr(script.defences["two"], "revision", 1)
    script.run()
    assert script.calls == ALL[2:]


def test_the_end_of_a_grid_is_told(script, caplog):
    with caplog.at_level(logging.WARNING):
        script.run()
    assert "one does best at 0.2, an end of its grid" in caplog.text


def test_what_another_process_is_at_is_left_to_it(script):
    lock = script.module._kept_in(make_zoo(script.result.parent.parent / "zoo"), "one", "sig-100").with_suffix(".lock")
    with script.module.locked(lock), pytest.raises(ChildProcessError, match="still at one on sig-100; run this again"):
        script.run()
    assert ALL[1] not in script.calls and not script.result.exists()


def test_a_zoo_that_is_not_finished(script, monkeypatch):
    monkeypatch.setattr(script.module.Zoo, "open", lambda folder: make_zoo(Path(folder), made=["badnet-100"]))
    with pytest.raises(InputError, match="`zoo`: sig-100, weak-100 are not made yet"):
        script.run()


def test_victims_of_other_pictures(script, monkeypatch):
    zoo = make_zoo(Path("zoo"))
    zoo.world.test = zoo.world.validation
    monkeypatch.setattr(script.module.Zoo, "open", lambda folder: zoo)
    with pytest.raises(InputError, match="`zoo`: badnet-100 was made with other test pictures"):
        script.run()
    assert not script.calls


def test_too_many_images(script):
    with pytest.raises(InputError, match="`images`: got 21; noise has 20 of them"):
        command.main(["zoo", "--images", "21"])
