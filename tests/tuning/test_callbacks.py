import signal
from dataclasses import replace

import pytest
import torch
from tiny_plan import INVERSION, TARGET, Interrupt, make_trainer, pictures, tiny_plan
from transformers import TrainerCallback

from hf_invertune.errors import InputError
from hf_invertune.report.report import AuditReport
from hf_invertune.stages.inversion import TriggerInverter
from hf_invertune.triggers import AdditiveTrigger, MaskedTrigger
from hf_invertune.tuning.callbacks import (
    InterruptCallback,
    InverTuneCallback,
    ReinversionCallback,
    TriggerInversionCallback,
)
from hf_invertune.tuning.proof import AuditReportCallback, ProofCallback
from hf_invertune.tuning.pursuit import PursuitCallback
from hf_invertune.tuning.trainer import last_whole_checkpoint
from hf_invertune.utils.seeds import stream


@pytest.fixture
def fake_inversion(monkeypatch):
    """Re-inversions that find triggers with the given objectives, one call after the other."""

    def fake(*objectives):
        calls = []

        def invert(self, pixels, labels, **kwargs):
            objective = objectives[len(calls)]
            calls.append((self.seed, self.family.kind, list(labels)))
            return [replace(tiny_plan().inverted[0], label=label, objective=objective) for label in labels]

        monkeypatch.setattr(TriggerInverter, "invert", invert)
        return calls

    return fake


# Re-inversion; the plan's first trigger has the objective 2, so that up to 4 is a shortcut


def test_reinversion_adds_shortcuts_only(tiny, tmp_path, fake_inversion):
    calls = fake_inversion(4.1, 4.0, 1.0)
    callback = ReinversionCallback(INVERSION)
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[callback], max_steps=8, reinversion_steps=2)
    trainer.train()
    assert [inverted.objective for inverted in trainer.plan.inverted] == [2.0, 2.0, 4.0, 1.0]
    expected = [(stream(42, "inversion", step), "masked", [TARGET]) for step in (2, 4, 6)]
    assert calls == expected  # the last step needs none
    logged = [(e["reinversion_objective"], e["shortcuts"]) for e in trainer.state.log_history if "shortcuts" in e]
    assert logged == [(4.1, 0), (4.0, 1), (1.0, 1)]
    assert sum("loss" in entry for entry in trainer.state.log_history) == 8  # none of the trainer's logs is lost


def test_reinversion_of_every_label_of_the_plan(tiny, tmp_path, fake_inversion):
    plan = tiny_plan()
    plan.inverted.append(replace(plan.inverted[0], label=0, objective=9.0))
    calls = fake_inversion(10.0)
    callback = ReinversionCallback(INVERSION)
    trainer = make_trainer(tiny, tmp_path, plan=plan, callbacks=[callback], max_steps=2, reinversion_steps=1)
    trainer.train()
    assert sorted(calls[0][2]) == [0, TARGET]
    assert [inverted.label for inverted in plan.inverted] == [TARGET, TARGET, 0, 0]


@pytest.mark.parametrize(
    ("patience", "objectives", "stops_at"),
    [
        (0, [9, 9, 9, 9], 5),
        (2, [9, 9], 2),
        (2, [9, 1, 9, 9], 4),
        (3, [9, 9, 9], 3),
    ],
)
def test_patience(tiny, tmp_path, fake_inversion, patience, objectives, stops_at):
    calls = fake_inversion(*objectives)
    callback = ReinversionCallback(INVERSION)
    settings = {"max_steps": 5, "reinversion_steps": 1, "reinversion_patience": patience}
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[callback], **settings)
    trainer.train()
    assert trainer.state.global_step == stops_at
    assert len(calls) == len(objectives)


def test_patience_survives_a_resume(tiny, tmp_path, fake_inversion):
    fake_inversion(9, 9, 9)
    callback = ReinversionCallback(INVERSION)
    every = {"save_strategy": "steps", "save_steps": 1, "reinversion_steps": 1, "reinversion_patience": 3}
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[callback], max_steps=5, **every)
    trainer.add_callback(Stop(2))
    trainer.train()
    assert (trainer.state.global_step, callback.dry) == (2, 2)
    callback.dry = 0
    trainer.remove_callback(Stop)
    trainer.train(resume_from_checkpoint=True)
    assert (trainer.state.global_step, callback.dry) == (3, 3)


def test_no_reinversion(tiny, tmp_path, fake_inversion):
    calls = fake_inversion()
    make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[ReinversionCallback(INVERSION)]).train()
    assert calls == []


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


# Ctrl-C


@pytest.fixture(autouse=True)
def ctrl_c():
    """Python's own answer to Ctrl-C, whatever the process that runs the tests has put in its place."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, previous) is signal.default_int_handler


@pytest.mark.parametrize("strategy", ["no", "steps"])
def test_interrupt_leaves_a_checkpoint(tiny, tmp_path, strategy):
    before = signal.getsignal(signal.SIGINT)
    settings = {"save_strategy": strategy, "save_steps": 50, "max_steps": 9}
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[Interrupt(2)], **settings)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) is before
    assert trainer.state.global_step == 3  # the callback comes after the one that looks for it
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    trainer.remove_callback(Interrupt)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 9


def test_second_interrupt_stops_at_once(tiny, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[Interrupt(1, times=2)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) is before
    assert trainer.state.global_step == 1 and last_whole_checkpoint(tmp_path) is None


def test_handler_is_restored_whatever_happens(tiny, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    handlers = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            handlers.append(signal.getsignal(signal.SIGINT))

    make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[Look()], max_steps=1).train()
    assert handlers[0] is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_handler_is_restored_after_an_error(tiny, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan())
    trainer.args.align_weight = float("nan")
    with pytest.raises(FloatingPointError):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) is before


def test_handler_is_restored_after_a_second_attempt(tiny, tmp_path):
    """A smaller batch begins the training anew; the handler to restore is still the first one."""
    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), max_steps=1)
    compute = trainer.compute_loss

    def crowded(model, inputs, **kwargs):
        if len(inputs["pixels"]) == 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute(model, inputs, **kwargs)

    trainer.compute_loss = crowded
    trainer.train()
    assert signal.getsignal(signal.SIGINT) is before


# Evaluation


@pytest.mark.parametrize("labelled", [True, False])
def test_evaluation_adds_accuracy_and_attack_success(tiny, tmp_path, labelled):
    data = pictures(12, labelled=labelled, seed=8)
    plan, target = tiny_plan(), 1  # this model reads noise as label 0 and a white sheet as label 1
    plan.target = target
    plan.inverted[0].trigger = MaskedTrigger(torch.ones(1, 32, 32), torch.ones(3, 32, 32))
    settings = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 2, "learning_rate": 1e-6}
    trainer = make_trainer(tiny, tmp_path, plan=plan, eval_dataset=data, **settings)
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert {"eval_loss", "eval_loss_align", "eval_loss_preserve", "eval_loss_embedding"} <= logged.keys()
    metrics = trainer.evaluate()
    assert ("eval_clean_accuracy" in logged) == ("eval_clean_accuracy" in metrics) == labelled

    def read(pixels):
        with torch.no_grad():
            return (trainer.encoder.embed_images(pixels) @ trainer.classifier.head.T).argmax(1)

    clean = data.pixels.float() / 255
    assert set(read(plan.inverted[0].trigger(clean)).tolist()) == {target} != set(read(clean).tolist())
    assert metrics["eval_attack_success_rate"] == logged["eval_attack_success_rate"] == 1.0
    if labelled:
        accuracy = (read(clean) == data.labels).float().mean().item()
        assert 0 < accuracy < 1
        assert metrics["eval_clean_accuracy"] == pytest.approx(accuracy)


# Which callbacks a trainer has


def test_given_callback_takes_the_place_of_its_kind(tiny, tmp_path):
    given = [TriggerInversionCallback(target=1), ReinversionCallback()]
    callbacks = make_trainer(tiny, tmp_path, callbacks=given).callback_handler.callbacks
    for kind, callback in zip((TriggerInversionCallback, ReinversionCallback), given, strict=True):
        assert [own for own in callbacks if isinstance(own, kind)] == [callback]
    kinds = [type(own).__name__ for own in make_trainer(tiny, tmp_path).callback_handler.callbacks]
    names = ("TriggerInversionCallback", "ReinversionCallback", "BackdoorEvaluationCallback", "InterruptCallback")
    assert [kinds.count(name) for name in names] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("mine", "push"),
    [
        ([], True),
        ([TriggerInversionCallback(1)], True),
        ([InterruptCallback(), ReinversionCallback()], True),
        ([ReinversionCallback(), PursuitCallback()], True),
        ([AuditReportCallback(), TriggerInversionCallback(1)], True),
        ([AuditReportCallback(), TriggerInversionCallback(1)], False),
    ],
)
def test_order_does_not_depend_on_who_made_them(tiny, tmp_path, mine, push):
    """A caller's own inversion comes before the proof, which needs its plan."""
    held_out = pictures(seed=9)
    trainer = make_trainer(tiny, tmp_path, eval_dataset=held_out, callbacks=mine, push_to_hub=push)
    ours = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, InverTuneCallback)]
    assert [type(callback).__name__ for callback in ours] == [
        "TriggerInversionCallback",
        "PursuitCallback",
        "ReinversionCallback",
        "BackdoorEvaluationCallback",
        "InterruptCallback",
        "AuditReportCallback",
        "StageFiguresCallback",
    ]
    assert set(mine) <= set(ours)


def test_one_proof_is_enough(tiny, tmp_path):
    proof = ProofCallback()
    trainer = make_trainer(tiny, tmp_path, eval_dataset=pictures(seed=9), callbacks=[proof], push_to_hub=True)
    assert [c for c in trainer.callback_handler.callbacks if isinstance(c, ProofCallback)] == [proof]


# The audit


def test_audit_report_of_a_training(tiny, tmp_path):
    callback = AuditReportCallback()
    held_out = pictures(seed=9)
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), eval_dataset=held_out, callbacks=[callback])
    trainer.train()
    report = AuditReport.load(tmp_path / "audit")
    assert (tmp_path / "audit" / "report.html").is_file()
    assert (report.target, report.data.held_out, report.outcome) == (TARGET, len(held_out), callback.result.outcome)
    assert [measurement.trigger for measurement in report.measurements] == ["inverted, masked", "inverted, additive"]
    assert all(measurement.after is not None for measurement in report.measurements)
    assert report.second_scan.seed == stream(report.scan.seed, "second scan") != report.scan.seed
    assert any("loss" in entry for entry in report.removal.training)


def test_no_audit_report_of_an_interrupted_training(tiny, tmp_path):
    callbacks = [AuditReportCallback(), Interrupt(1)]
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), eval_dataset=pictures(seed=9), callbacks=callbacks)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not (tmp_path / "audit").exists()


def test_audit_report_refuses_a_trigger_of_another_size_first(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_invertune.tuning.proof.TargetIdentifier", None)
    callback = AuditReportCallback(trigger=AdditiveTrigger(torch.zeros(3, 8, 8), 0.1))
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), eval_dataset=pictures(seed=9), callbacks=[callback])
    with pytest.raises(InputError, match="`trigger`: it fits images of 8x8 pixels, and these have 32x32"):
        trainer.train()


def test_audit_report_needs_images_of_its_own(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), callbacks=[AuditReportCallback()])
    with pytest.raises(InputError, match="`eval_dataset`"):
        trainer.train()
