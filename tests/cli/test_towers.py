"""`--text-model`: an image tower alone is measured with another model's text tower, which every verb but a scan needs."""

import json
from dataclasses import replace

import pytest
import yaml
from lone_towers import save_tower
from tiny import CLASS_NAMES
from tiny_families import pictures as small_pictures
from tiny_plan import pictures, scan_config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.remover import BackdoorRemover
from hf_invertune.stages.configs import Bars, GatheringConfig
from hf_invertune.stages.families import WindowFamily


@pytest.fixture(scope="module")
def tower(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "tower"
    save_tower(folder, "CLIPVisionModel", tiny_folder)
    small_pictures(CLIPImageProcessorPil).save_pretrained(folder)
    return folder


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def without_labels(tower, folder, *more):
    """A scan without a text model, as short as it can be, by bars that call everything backdoored."""
    gathering = GatheringConfig((WindowFamily(),), starts=2, steps=2, batch_size=2, bars={"window": Bars(0.0, 0.0)})
    (folder / "quick.yaml").write_text(yaml.safe_dump({"scan": scan_config(gathering=gathering).plain()}))
    return call("scan", tower, "--images", "images", "--config", folder / "quick.yaml", "--no-cache", *more)


def test_a_scan_does_without_the_text_model_and_without_labels(tower, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_invertune.data.loading.load_images", lambda *given, **settings: pictures(16))
    outcome = without_labels(tower, tmp_path, "--json")
    (answer,) = json.loads(outcome.stdout)["answers"]
    assert (outcome.exit_code, answer["verdict"], answer["target"], answer["class_names"]) == (
        3,
        "backdoored",
        None,
        0,
    )
    assert [(part["statistic"], part["label"]) for part in answer["evidence"]] == [("concentration", None)]
    assert answer["source"]["tower"]["architecture"] == "CLIPVisionModel"
    assert answer["source"]["tower"]["text_model"] is None
    assert "0 texts" in outcome.stderr
    outcome = without_labels(tower, tmp_path, "--output-dir", tmp_path / "out")
    assert outcome.exit_code == 3 and "no labels were looked at" in outcome.stdout
    assert (tmp_path / "out" / "audit" / "report.html").is_file()


def test_names_for_a_tower_that_reads_none_are_refused(tower, tmp_path, monkeypatch):
    def unlabelled(*given, class_names, **settings):
        return replace(pictures(16, labelled=False), class_names=class_names)

    monkeypatch.setattr("hf_invertune.data.loading.load_images", unlabelled)
    outcome = without_labels(tower, tmp_path, "--class-names", "cat,dog")
    assert outcome.exit_code == 2 and outcome.stderr.splitlines()[-1].startswith("error: --text-model: got none")


@pytest.mark.parametrize("verb", ["profile --output", "invert --output-dir", "remove --output-dir", "evaluate"])
def test_a_verb_asks_for_the_text_model(tower, tmp_path, verb):
    name, *place = verb.split()
    outcome = call(name, tower, "--images", "images", *place, *[tmp_path / "out"] * len(place))
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: --text-model: ") and outcome.stderr.count("\n") == 1
    assert "got none, and a CLIPVisionModel reads no names" in outcome.stderr


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
