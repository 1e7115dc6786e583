"""`--text-model`: an image tower alone is measured with another model's text tower, which every verb takes."""

import json

import pytest
from lone_towers import save_tower
from tiny import CLASS_NAMES
from tiny_plan import pictures
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.remover import BackdoorRemover


@pytest.fixture(scope="module")
def tower(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "tower"
    save_tower(folder, "CLIPVisionModel", tiny_folder)
    return folder


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("verb", [["scan"], ["invert", "--output-dir"], ["remove", "--output-dir"], ["evaluate"]])
def test_a_verb_asks_for_the_text_model(tower, tmp_path, verb):
    outcome = call(*verb, *[tmp_path / "out"] * (len(verb) - 1), tower, "--images", "images")
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: --text-model: ") and outcome.stderr.count("\n") == 1
    assert "name the CLIPModel with both" in outcome.stderr


def test_evaluate_with_a_text_model(tower, tiny_folder, monkeypatch):
    monkeypatch.setattr("hf_invertune.data.loading.load_images", lambda *given, **settings: pictures(64))
    outcome = call("evaluate", tower, "--text-model", tiny_folder, "--images", "images", "--json")
    assert outcome.exit_code == 0, outcome.output
    remover = BackdoorRemover.from_pretrained(tower, text_model=tiny_folder, device="cpu")
    metrics = remover.evaluate(pictures(64), list(CLASS_NAMES))
    assert json.loads(outcome.stdout)["clean_accuracy"]["hits"] == metrics.clean_accuracy.hits


def test_scan_takes_a_text_model(tower, tiny_folder, monkeypatch):
    monkeypatch.setattr("hf_invertune.data.loading.load_images", lambda *given, **settings: pictures(64))
    outcome = call("scan", tower, "--text-model", tiny_folder, "--images", "images", "--dry-run")
    assert outcome.exit_code == 0, outcome.output
    assert "through the model" in outcome.stderr
