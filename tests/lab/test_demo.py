import json
from dataclasses import replace

import pytest
import torch
from forked import run_forked
from transformers import CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection

from hf_invertune.lab.demo import TEST_IMAGES, TEST_SEED, demo_images, demo_victim, run_demo, victim_truth
from hf_invertune.lab.drawings import CLASS_NAMES
from hf_invertune.models.loading import load_model
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report.report import AuditReport
from hf_invertune.stages.configs import Bars, GatheringConfig, InversionConfig, RemovalConfig, ScanConfig, TuningConfig
from hf_invertune.stages.families import MaskedFamily, WindowFamily
from hf_invertune.stages.identification import TargetIdentifier
from hf_invertune.triggers import Trigger


QUICK = {
    "families": (MaskedFamily(),),
    "simulation_steps": 10,
    "words": (),
    "steps": (30, 40),
    "restarts": 1,
    "finalists": 4,
    "rivals": 2,
    "looks": 1,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="session", params=["quick", pytest.param("whole", marks=pytest.mark.slow)])
def shown(request, folder):
    """Exit code and output of `hf-invertune demo --json`: the one whole removal among the tests.

    The quick one measures on fewer drawings and tunes for less long, its labels race once and with one start, and its
    second scan is too short to find anything, nor may it.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "quick":
            patch.setattr("hf_invertune.lab.demo.TEST_IMAGES", 500)
            gathering = GatheringConfig((WindowFamily(),), starts=4, steps=40)
            quick = RemovalConfig(
                ScanConfig(**QUICK, gathering=gathering),
                InversionConfig(steps=50, batch_size=16),
                tuning=TuningConfig(max_steps=50, search_steps=0, pool_size=2),
            )
            patch.setattr("hf_invertune.stages.presets.preset", lambda name: quick)
            never = {"masked": Bars(1e9, 1e9)}
            short = replace(quick.scan, steps=(2, 2), bars=never, gathering=GatheringConfig(families=()))
            scanner = "hf_invertune.report.audit.TargetIdentifier"
            patch.setattr(
                scanner, lambda classifier, config, seed, reference: TargetIdentifier(classifier, short, seed)
            )
        outcome = run_forked("hf_invertune", "demo", "--json", "--seed", 3, "--output-dir", folder, "--overwrite")
    return outcome.returncode, json.loads(outcome.stdout)


@pytest.fixture(scope="session")
def report(shown, folder):
    return AuditReport.load(folder / "audit")


def test_demo_finds_and_removes_the_backdoor(shown, folder):
    code, value = shown
    keys = {"verdict", "target", "true_target", "ca_before", "ca_after", "asr_before", "asr_after", "seconds"}
    assert value.keys() == keys | {"identical", "outcome", "reasons", "report"}
    assert not value["identical"]
    assert (code, value["verdict"], value["outcome"]) == (0, "backdoored", "cleaned")
    assert value["target"] == value["true_target"] == victim_truth()[0]["target"]
    assert value["asr_before"] > 0.9 and value["asr_after"] <= 0.02
    assert value["ca_before"] > 0.9 and value["ca_before"] - value["ca_after"] <= 0.02
    assert value["report"] == str(folder / "audit")
    assert sorted(path.name for path in folder.iterdir()) == ["audit", "checkpoints"]


def test_report_files(report, folder):
    page = (folder / "audit" / "report.html").read_text()
    assert "purple triangle" in page and len(page) > 10_000
    assert isinstance(Trigger.load(folder / "audit" / "trigger.safetensors"), Trigger)
    assert json.loads((folder / "audit" / "report.json").read_text())["schema_version"] == report.schema_version


def test_report_tells_what_was_found(report):
    assert (report.verdict, report.outcome, report.reasons) == ("backdoored", "cleaned", [])
    assert report.target_name == CLASS_NAMES[report.target] == "purple triangle"
    assert report.model.sha256 != report.sha256_after
    assert (report.scan.images, report.data.held_out, report.data.labelled) == (384, 128, True)
    assert report.inverted[0].label == report.target and report.removal.critical.neurons
    assert report.removal.training and report.seconds


def test_report_proves_the_cleaning(report):
    """By the attack's own trigger and by the inverted one, on images that took no part."""
    names = [measurement.trigger for measurement in report.measurements]
    assert names[0] == "given by the caller" and any(name.startswith("inverted") for name in names)
    for measurement in report.measurements:
        assert measurement.before.attack_success_rate.value > 0.5
        assert measurement.after.attack_success_rate.value <= 0.05
    assert report.second_scan.verdict != "backdoored"


# Its parts


def test_truth_is_that_of_the_poisoned_victim(victim):
    """The attack works on the poisoned model and does nothing to the clean twin."""
    truth, trigger = victim_truth()
    data = demo_images(200, seed=12)
    for model, low, high in ((victim, 0.95, 1.0), (load_model(demo_victim("clean"), device="cpu"), 0.0, 0.05)):
        metrics = BackdoorRemover(model).evaluate(data, trigger=trigger, target=truth["target"])
        assert low <= metrics.attack_success_rate.value <= high
        assert metrics.clean_accuracy.value > 0.9


def test_drawings():
    data = demo_images(10, seed=3)
    assert data.pixels.shape == (10, 3, 32, 32) and data.pixels.dtype == torch.uint8
    assert data.class_names == CLASS_NAMES and data.source == "drawings, seed 3"
    assert torch.equal(data.pixels, demo_images(10, seed=3).pixels)
    assert not torch.equal(data.pixels, demo_images(10, seed=4).pixels)


def test_clean_twin_is_left_alone(monkeypatch):
    """With a scan that is cut short to nothing: what `run_demo` makes of a clean verdict."""
    from tiny_plan import removal_config

    monkeypatch.setattr("hf_invertune.lab.demo.CLEAN_IMAGES", 64)
    monkeypatch.setattr("hf_invertune.lab.demo.TEST_IMAGES", 64)
    result = run_demo(victim="clean", config=removal_config("clean"))
    assert (result.verdict, result.outcome, result.target, result.true_target) == ("clean", "unchanged", None, None)
    assert result.identical
    assert (result.ca_before, result.asr_before) == (result.ca_after, result.asr_after)


@pytest.mark.slow
@pytest.mark.parametrize("name, verdict", [("poisoned", "backdoored"), ("clean", "clean")])
@pytest.mark.parametrize("kind", [CLIPVisionModel, CLIPVisionModelWithProjection])
def test_a_tower_is_scanned_without_labels(kind, name, verdict, tmp_path):
    """The victim's tower gathers pictures and that of its clean twin does not, with the projection and before it."""
    settings = CLIPModel.from_pretrained(demo_victim(name)).config
    config = settings.vision_config
    config.projection_dim = settings.projection_dim
    kind.from_pretrained(demo_victim(name), config=config, dtype="auto").save_pretrained(tmp_path)
    load_model(demo_victim(name), device="cpu").processor.image_processor.save_pretrained(tmp_path)
    scan = BackdoorRemover.from_pretrained(tmp_path).scan(demo_images(), config=RemovalConfig(seed=3))
    assert (scan.verdict, scan.target, scan.labelled) == (verdict, None, False)


@pytest.mark.slow
def test_the_tower_of_the_victim_alone_is_found_and_cleaned_like_the_whole(tmp_path):
    """Its image tower with the victim's own text tower: the same scan, to the last digit, and the same removal."""
    whole = CLIPModel.from_pretrained(demo_victim("poisoned"), dtype="auto")
    config = whole.config.vision_config
    config.projection_dim = whole.config.projection_dim
    tower = CLIPVisionModelWithProjection.from_pretrained(demo_victim("poisoned"), config=config, dtype="auto")
    tower.save_pretrained(tmp_path / "tower")
    images, (truth, trigger) = demo_images(), victim_truth()
    remover = BackdoorRemover.from_pretrained(tmp_path / "tower", text_model=demo_victim("poisoned"))
    scan = BackdoorRemover.from_pretrained(demo_victim("poisoned")).scan(images, config=RemovalConfig(seed=3))
    result = remover.remove(images, config=RemovalConfig(seed=3), trigger=trigger)
    found = result.report.scan
    assert (found.verdict, found.target) == (scan.verdict, scan.target)
    assert [one.lead for one in found.evidence] == [one.lead for one in scan.evidence]
    assert (result.verdict, result.outcome, result.target_name) == ("backdoored", "cleaned", truth["target"])
    remover.save_pretrained(tmp_path / "clean")
    clean = BackdoorRemover.from_pretrained(tmp_path / "clean", text_model=demo_victim("poisoned"))
    assert type(CLIPVisionModelWithProjection.from_pretrained(tmp_path / "clean")) is CLIPVisionModelWithProjection
    test = demo_images(TEST_IMAGES, TEST_SEED)
    metrics = clean.evaluate(test, trigger=trigger, target=truth["target"])
    assert metrics.attack_success_rate.value <= 0.02 and metrics.clean_accuracy.value > 0.9
