import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CLASS_NAMES
from tiny_plan import (
    EASY,
    INVERSION,
    NEURONS,
    Interrupt,
    make_trainer,
    pictures,
    removal_config,
    scan_config,
    tiny_plan,
)
from transformers import TrainerCallback

from hf_invertune.errors import InputError
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.evaluation import Metrics, Rate
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report.figures import audit_figures, plan_figures, scan_figures
from hf_invertune.stages.configs import Bars, GatheringConfig, TuningConfig
from hf_invertune.stages.families import WindowFamily
from hf_invertune.stages.identification import TargetIdentifier
from hf_invertune.tuning.callbacks import ReinversionCallback, TriggerInversionCallback
from hf_invertune.tuning.proof import AuditReportCallback


GATHERED = scan_config(
    gathering=GatheringConfig((WindowFamily(),), starts=4, steps=1, batch_size=2, bars={"window": Bars(EASY, EASY)})
)
GIVEN = tiny_plan().inverted[1].trigger
PLACEHOLDERS = {
    "<family>": "(masked|additive|window)",
    "<trigger>": "(inverted_masked|inverted_additive|given_by_the_caller)",
}


class Tracker(TrainerCallback):
    """Keeps what it is told, as trackers do, between the beginning and the end of the training."""

    def __init__(self):
        self.open, self.told = False, []

    def on_train_begin(self, args, state, control, **kwargs):
        self.open = True

    def on_log(self, args, state, control, logs=None, **kwargs):
        assert self.open, f"told outside of its run: {sorted(logs)}"
        self.told.append((state.global_step, dict(logs)))

    def on_train_end(self, args, state, control, **kwargs):
        self.open = False

    def names(self):
        return {name for _, logs in self.told for name in logs}


def whole_training(tiny, folder, *, labelled=True, **settings):
    """Every stage of a bare trainer, two updates each."""
    tracker = Tracker()
    callbacks = [
        TriggerInversionCallback(),
        ReinversionCallback(INVERSION),
        AuditReportCallback(trigger=GIVEN),
        tracker,
    ]
    every = {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 2, "reinversion_steps": 2, **settings}
    held_out, config = pictures(labelled=labelled, seed=9), removal_config(scan=GATHERED)
    trainer = make_trainer(tiny, folder, eval_dataset=held_out, callbacks=callbacks, config=config, **every)
    trainer.train()
    return trainer, tracker, callbacks[2].result.report


def documented():
    """The patterns of the names in the first column of the table."""
    table = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text().split("|---|---|---|")[1]
    names = [
        name for row in table.strip().split("\n\n")[0].splitlines() for name in row.split("|")[1].split("`")[1::2]
    ]
    assert len(names) > 30 and len(set(names)) == len(names)
    patterns = {}
    for name in names:
        patterns[name] = name
        for placeholder, values in PLACEHOLDERS.items():
            patterns[name] = patterns[name].replace(placeholder, values)
    return patterns


# The figures


def test_figures_of_a_scan(encoder, pixels):
    scan = TargetIdentifier(ZeroShotClassifier(encoder, CLASS_NAMES), GATHERED).identify(pixels)
    figures = scan_figures(scan)
    masked, additive = scan.evidence
    assert figures["scan/lead_masked"] == masked.lead != figures["scan/lead_additive"] == additive.lead
    assert figures["scan/z_masked"] == masked.z_scores[masked.label] == min(masked.z_scores.values())
    assert figures["scan/objective_additive"] == min(additive.scores.values())
    assert figures["scan/label_additive"] == additive.label
    assert figures["scan/shift_patch"] == max(scan.simulations[0].shift)
    assert figures["scan/shift_full_image"] == max(scan.simulations[1].shift)
    assert (figures["scan/images"], figures["scan/labels"], figures["scan/seconds"]) == (12, 4, scan.seconds)
    assert figures["scan/backdoored"] == 1
    assert figures["scan/concentration_window"] == max(place.concentration for place in scan.gatherings)
    assert figures["scan/places"] == len(scan.gatherings)  # with these bars each is planted
    assert scan_figures(replace(scan, verdict="inconclusive"), "second")["second/backdoored"] == 0
    assert not {"scan/concentration_window", "scan/places"} & scan_figures(replace(scan, gatherings=[])).keys()


def test_a_figure_for_the_most_concentrated_place_of_each_family(encoder, pixels):
    scan = TargetIdentifier(ZeroShotClassifier(encoder, CLASS_NAMES), GATHERED).identify(pixels)
    scan.config.gathering.bars["wave"] = Bars(EASY, EASY)
    first = scan.gatherings[0]
    values = [("window", 0.9), ("window", 0.8), ("wave", 0.7), ("wave", 0.6)]
    scan.gatherings = [replace(first, family=family, concentration=value) for family, value in values]
    figures = scan_figures(scan)
    assert (figures["scan/concentration_window"], figures["scan/concentration_wave"]) == (0.9, 0.7)
    assert figures["scan/places"] == 4


def test_figures_of_a_plan():
    plan = tiny_plan()
    plan.inverted.insert(1, replace(plan.inverted[0], label=0, objective=1.0))
    plan.inverted.append(replace(plan.inverted[0], objective=0.5))  # by a re-inversion
    plan.inverted[2].objective, plan.inverted[2].coverage = 7.0, 0.25
    assert plan_figures(plan) == {
        "inversion/triggers": 4,
        "inversion/objective_masked": 2.0,
        "inversion/cross_entropy_masked": 0.5,
        "inversion/coverage_masked": plan.inverted[0].coverage,
        "inversion/objective_additive": 7.0,
        "inversion/cross_entropy_additive": 0.5,
        "inversion/coverage_additive": 0.25,
        "localization/layers": 1,
        "localization/neurons": len(NEURONS),
    }


def test_rate_of_no_images_is_no_figure(tiny, tmp_path):
    _, _, report = whole_training(tiny, tmp_path, max_steps=1)
    measurement = report.measurements[0]
    measurement.after = Metrics(clean_accuracy=Rate(3, 4), attack_success_rate=Rate(0, 0))
    figures = audit_figures(report)
    assert figures["audit/clean_accuracy_after"] == report.measurements[-1].after.clean_accuracy.value
    assert "audit/attack_success_rate_after_given_by_the_caller" not in figures


# A bare trainer


@pytest.fixture(scope="module")
def trainings(tiny_folder, tmp_path_factory):
    from hf_invertune.models.loading import load_model

    return [
        whole_training(load_model(tiny_folder, device="cpu"), tmp_path_factory.mktemp("training"), labelled=labelled)
        for labelled in (True, False)
    ]


def test_every_stage_reaches_an_open_tracker(trainings):
    trainer, tracker, report = trainings[0]
    assert not tracker.open
    steps = {name: [step for step, logs in tracker.told if name in logs] for name in tracker.names()}
    told = {name: value for _, logs in tracker.told for name, value in logs.items()}
    for name, value in (scan_figures(report.scan) | plan_figures(trainer.plan)).items():
        assert steps[name] == [0]
        if name not in ("inversion/triggers", "scan/seconds"):  # a re-inversion may have added one since
            assert told[name] == value, name
    for name, value in audit_figures(report).items():
        assert (steps[name], told[name]) == ([3], value), name
    assert told["audit/attack_success_rate_before_given_by_the_caller"] == (
        report.measurements[0].before.attack_success_rate.value
    )
    assert told["second_scan/lead_masked"] == report.second_scan.evidence[0].lead
    assert (steps["loss"], steps["eval_clean_accuracy"], steps["shortcuts"]) == ([1, 2, 3], [2, 3], [2])


def test_the_log_of_the_tuning_is_its_own(trainings):
    trainer, _, report = trainings[0]
    assert not [name for entry in trainer.state.log_history for name in entry if "/" in name]
    *logged, closing = [{k: float(v) for k, v in entry.items()} for entry in trainer.state.log_history]
    assert report.removal.training == logged and "train_runtime" in closing
    assert [entry["step"] for entry in report.removal.training if "loss" in entry] == [1, 2, 3]


def test_the_documented_names_are_the_logged_ones(trainings):
    logged = set().union(*(tracker.names() for _, tracker, _ in trainings))
    patterns = documented()
    unknown = [name for name in logged if not any(re.fullmatch(pattern, name) for pattern in patterns.values())]
    never = [name for name, pattern in patterns.items() if not any(re.fullmatch(pattern, one) for one in logged)]
    assert (sorted(unknown), sorted(never)) == ([], [])


def test_a_second_attempt_tells_nothing_twice(tiny, tmp_path):
    tracker = Tracker()
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[tracker])
    compute = trainer.compute_loss

    def crowded(model, inputs, **kwargs):
        if len(inputs["pixels"]) == 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute(model, inputs, **kwargs)

    trainer.compute_loss = crowded
    trainer.train()
    assert sum("inversion/triggers" in logs for _, logs in tracker.told) == 1


def test_an_interruption_closes_the_trackers(tiny, tmp_path):
    tracker = Tracker()
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[tracker, Interrupt(1)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not tracker.open and "inversion/triggers" in tracker.names()


def test_figures_of_ones_own(tiny, tmp_path):
    tracker = Tracker()
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[tracker], max_steps=1)
    trainer.track({"mine": 1.0})
    trainer.track({"mine too": 2.0})
    trainer.train()
    step, logs = tracker.told[0]
    assert (step, logs["mine"], logs["mine too"]) == (0, 1.0, 2.0)


# A removal


def scalars(folder):
    """What TensorBoard shows of the one run below `folder`: {name: [(step, value)]}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = folder.rglob("events.out.*")
    run = EventAccumulator(str(events))
    run.Reload()
    return {tag: [(event.step, event.value) for event in run.Scalars(tag)] for tag in run.Tags()["scalars"]}


def shown(name):
    return name.replace("eval_", "eval/", 1) if name.startswith("eval_") else f"train/{name}"


def test_removal_in_tensorboard(tiny, tmp_path):
    """Every stage is in the same file, so in one run: a second writer would have opened a second one."""
    pytest.importorskip("tensorboard")
    remover = BackdoorRemover(tiny)
    config = removal_config(tuning={"report_to": "tensorboard"})
    report = remover.remove(pictures(32), trigger=GIVEN, output_dir=tmp_path, config=config).report
    found = scalars(tmp_path)
    plan = replace(tiny_plan(), target=report.target, inverted=report.inverted, critical=report.removal.critical)
    for figures, step in ((scan_figures(report.scan) | plan_figures(plan), 0), (audit_figures(report), 2)):
        assert len(figures) > 8
        for name, value in figures.items():
            assert found[shown(name)] == [(step, pytest.approx(value, rel=1e-6))], name
    assert [step for step, _ in found["train/train_loss"]] == [2]
    patterns = [shown(pattern) for pattern in documented().values()]
    assert [name for name in found if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
    assert not [name for entry in report.removal.training for name in entry if "/" in name]


def test_removal_in_trackio(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(
        "TRACKIO_DIR", str(tmp_path / "trackio")
    )  # read when trackio is imported, here for the first time
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    config = removal_config(tuning={"report_to": "trackio"})
    report = BackdoorRemover(tiny).remove(pictures(32), config=config).report
    assert (tmp_path / "trackio").is_dir()
    (run,) = SQLiteStorage.get_run_records("huggingface")
    found = {}
    for entry in SQLiteStorage.get_logs("huggingface", run["name"], run_id=run["id"]):
        found |= entry
    for name, value in (scan_figures(report.scan) | audit_figures(report)).items():
        assert found[shown(name)] == pytest.approx(value), name
    assert {"train/inversion/triggers", "train/localization/neurons", "train/epoch"} <= found.keys()


def test_resumed_removal_tells_all_stages_again(tiny_folder, tmp_path, monkeypatch):
    """A removal that was interrupted in its second scan has no step left to train."""
    pytest.importorskip("tensorboard")
    config = removal_config(tuning={"report_to": "tensorboard"})
    identify = TargetIdentifier.identify

    def second_scan_interrupted(identifier, pixels):
        if identifier.seed != config.seed:
            raise KeyboardInterrupt
        return identify(identifier, pixels)

    monkeypatch.setattr(TargetIdentifier, "identify", second_scan_interrupted)
    with pytest.raises(KeyboardInterrupt):
        BackdoorRemover.from_pretrained(tiny_folder, device="cpu").remove(
            pictures(32), output_dir=tmp_path / "out", config=config
        )
    monkeypatch.setattr(TargetIdentifier, "identify", identify)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "again"))
    remover = BackdoorRemover.from_pretrained(tiny_folder, device="cpu")
    report = remover.remove(pictures(32), output_dir=tmp_path / "out", resume=True, config=config).report
    found = scalars(tmp_path / "again")
    for figures in (scan_figures(report.scan), audit_figures(report)):
        for name, value in figures.items():
            assert found[shown(name)] == [(2, pytest.approx(value, rel=1e-6))], name
    assert "train/inversion/triggers" in found


def test_unknown_tracker_is_refused_at_once():
    with pytest.raises(InputError, match=r"`report_to`: got nowhere; the trackers installed here are \["):
        TuningConfig(report_to=["none", "nowhere"])


def test_tensorboard_needs_a_folder(tiny, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(TargetIdentifier, "identify", None)
    with pytest.raises(InputError, match="`output_dir`: got None; name the folder in which tensorboard"):
        BackdoorRemover(tiny).remove(pictures(32), config=removal_config(tuning={"report_to": "tensorboard"}))
