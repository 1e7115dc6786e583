"""A defence of one's own in the table, by one call."""

import runpy
import sys
from pathlib import Path

import pytest
from arena_zoo import make_zoo

import hf_invertune
from hf_invertune.errors import InputError
from hf_invertune.lab.arena.rows import read_rows
from hf_invertune.lab.arena.run import ArenaSettings
from hf_invertune.lab.baselines.defence import Defence, Defended
from hf_invertune.lab.zoo.build import build_zoo
from hf_invertune.lab.zoo.recipe import Recipe


EXAMPLE = Path(__file__).parents[2] / "examples" / "benchmark_a_defence.py"
RECIPE = Path(__file__).parents[1] / "helpers" / "zoo.yaml"
SMALL = ArenaSettings(images=16, test_images=24)


class Mine(Defence):
    """Forgets the text tower's last layer."""

    name = "mine"

    def treat(self, clip, data, class_names, found):
        clip.model.text_projection.weight.data.zero_()
        return Defended(clip.model)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Its folder."""
    made = make_zoo(tmp_path / "zoo")
    monkeypatch.setattr("hf_invertune.lab.arena.benchmark.Zoo.open", lambda folder: made)
    return tmp_path / "zoo"


def test_a_class_defined_outside(zoo, tmp_path):
    table = hf_invertune.benchmark(Mine, zoo, tmp_path / "runs.jsonl", settings=SMALL)
    assert {row.defence for row in table.rows} == {"mine"} and len(table.rows) == 4
    assert read_rows([tmp_path / "runs.jsonl"]) == table.rows
    assert "mine" in table.markdown() and table.csv().count("\n") > len(table.rows)


def test_a_second_call_does_nothing_anew(zoo, tmp_path, monkeypatch):
    first = hf_invertune.benchmark(Mine, zoo, tmp_path / "runs.jsonl", settings=SMALL)
    monkeypatch.setattr(Mine, "treat", None)
    assert hf_invertune.benchmark(Mine, zoo, tmp_path / "runs.jsonl", settings=SMALL).rows == first.rows


def test_rates_are_searched_unless_said(zoo, tmp_path, monkeypatch):
    searched = []

    class Graded(Mine):
        grid = (0.1, 0.2)

    class Found:
        learning_rates = {"mine": 0.2}

    def search(defences, zoo, workers):
        searched.append(list(defences))
        return Found

    monkeypatch.setattr("hf_invertune.lab.arena.benchmark.search_learning_rates", search)
    options = {"victims": ["clean-0"], "settings": SMALL}
    table = hf_invertune.benchmark({"mine": Graded}, zoo, tmp_path / "one.jsonl", **options)
    assert [row.learning_rate for row in table.rows] == [0.2]
    hf_invertune.benchmark({"mine": Graded}, zoo, tmp_path / "two.jsonl", learning_rates={"mine": 0.1}, **options)
    assert searched == [["mine"]]


def test_the_example(tmp_path, monkeypatch, capsys):
    """On a zoo of its own, of which all victims are taken."""
    zoo, runs = build_zoo(Recipe.load(RECIPE), tmp_path / "zoo"), tmp_path / "runs.jsonl"
    arguments = ["--zoo", zoo.folder, "--output", runs, "--images", 16, "--test-images", 24, "--strength", 0.2]
    monkeypatch.setattr(sys, "argv", list(map(str, [EXAMPLE, *arguments])))
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    rows, shown = read_rows([runs]), capsys.readouterr().out
    assert {(row.victim, row.defence) for row in rows} == {
        (victim.truth.name, name) for victim in zoo.victims for name in ("none", "weight-noise")
    }
    assert {(row.defence, row.learning_rate, row.identical) for row in rows if row.status == "done"} == {
        ("none", None, True),
        ("weight-noise", 0.2, False),
    }
    assert "| none | left as it came |" in shown and "| weight-noise | changed |" in shown


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"victims": ["nobody-0"]}, "`victims`: nobody-0 are not in the zoo's table"),
        ({"learning_rates": {"other": 1.0}}, "`learning_rates`: got one for other"),
        ({"seeds": (1, 1)}, "`seeds`: got .1, 1.; name each once"),
        ({"share": (3, 2)}, "`share`: got 3/2"),
        ({"settings": ArenaSettings(images=99)}, "`images`: got 99"),
        ({"output": "/"}, "`output`: / cannot be written to"),
    ],
)
def test_arguments_are_checked_before_the_search(zoo, wrong, message, monkeypatch):
    monkeypatch.setattr("hf_invertune.lab.arena.benchmark.search_learning_rates", None)
    with pytest.raises(InputError, match=message):
        hf_invertune.benchmark(type("Graded", (Mine,), {"grid": (0.1,)}), zoo, **{"settings": SMALL, **wrong})


def test_a_name_that_is_no_file_name(zoo):
    with pytest.raises(InputError, match="`defences`: got '../mine'; name it with letters"):
        hf_invertune.benchmark({"../mine": Mine}, zoo, settings=SMALL)
