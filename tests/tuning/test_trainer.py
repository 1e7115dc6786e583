import copy
import dataclasses

import pytest
import torch
from peft import PeftModel
from tiny import CLASS_NAMES
from tiny_plan import INVERSION, NEURONS, TARGET, make_trainer, pictures, removal_config, tiny_plan
from torch.nn.functional import normalize
from torch.utils.data import SequentialSampler
from transformers import HfArgumentParser, TrainerCallback

from hf_invertune.errors import InputError
from hf_invertune.models.adapter import add_adapter
from hf_invertune.models.loading import load_model
from hf_invertune.stages.configs import TuningConfig
from hf_invertune.stages.plan import TuningPlan
from hf_invertune.tuning.arguments import InverTuneArguments
from hf_invertune.tuning.callbacks import ReinversionCallback, TriggerInversionCallback
from hf_invertune.tuning.losses import alignment
from hf_invertune.tuning.trainer import InverTuneTrainer, collate, last_whole_checkpoint


def prepare(trainer, seed=5):
    """Add the adapter as `train` does, with B weights other than zero, and give the loss's inputs."""
    trainer._add_adapter()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapter(trainer.model).items():
        if "lora_B" in name:
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return collate([trainer.train_dataset[index] for index in range(6)])


def adapter(model):
    return {name: weight for name, weight in model.named_parameters() if "lora_" in name}


def base(model):
    """Every weight and buffer of the model under the adapter, by its plain name."""
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in model.state_dict().items()}
    return {name.replace(".base_layer", ""): tensor for name, tensor in state.items() if "lora_" not in name}


def embed(encoder, pixels):
    with torch.no_grad():
        return encoder.embed_images(pixels)


class Sequential(InverTuneTrainer):
    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(train_dataset or self.train_dataset)


# The loss


def test_alignment_by_hand():
    original = torch.tensor([[[3.0, 9.0, 0.0], [0.0, 9.0, 4.0]], [[0.0, 9.0, 2.0], [0.0, 9.0, 0.0]]])
    triggered = torch.tensor([[[3.0, 0.0, 3.0], [4.0, 0.0, 4.0]], [[0.0, 0.0, 2.0], [1.0, 0.0, 0.0]]])
    # neurons 0 and 2: ||(0, 3, 4, 0)|| / ||(3, 0, 0, 4)|| = 1 and ||(0, 0, 1, 0)|| / ||(0, 2, 0, 0)|| = 0.5
    assert alignment(triggered, original, [0, 2]).item() == pytest.approx(0.75)
    assert alignment(triggered, original, [1]).item() == pytest.approx(1.0)


def test_loss_by_hand(tiny, tmp_path):
    """Each term is what a model with the adapter merged gives beside the untouched original."""
    original = copy.deepcopy(tiny.model)
    weights = {"align_weight": 2.0, "preserve_weight": 3.0, "embedding_weight": 0.7}
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), **weights)
    inputs = prepare(trainer)
    clean, plan = inputs["pixels"], trainer.plan
    tuned = copy.deepcopy(trainer.model).merge_and_unload()

    triggered = clean.clone()
    triggered[0::2] = plan.inverted[0].trigger(clean[0::2])
    triggered[1::2] = plan.inverted[1].trigger(clean[1::2])

    def features(model, pixels):
        with torch.no_grad():
            values = trainer.encoder.pixel_values(pixels)
            return model.get_image_features(pixel_values=values, output_hidden_states=True)

    before, after, attacked = features(original, clean), features(tuned, clean), features(tuned, triggered)
    wanted = normalize(before.pooler_output, dim=-1)
    change = (attacked.hidden_states[2] - before.hidden_states[2])[..., NEURONS]
    terms = {
        "align": torch.stack(
            [a.norm() / b.norm() for a, b in zip(change, before.hidden_states[2][..., NEURONS], strict=True)]
        ).mean(),
        "preserve": (normalize(after.pooler_output, dim=-1) - wanted).pow(2).sum(1).sqrt().mean(),
        "embedding": (normalize(attacked.pooler_output, dim=-1) - wanted).pow(2).sum(1).sqrt().mean(),
    }
    loss = trainer.compute_loss(trainer.model, inputs)
    logged = {name.removeprefix("loss_"): values[0] for name, values in trainer._metrics["train"].items()}
    assert logged == pytest.approx({name: term.item() for name, term in terms.items()}, abs=1e-5)
    assert min(logged.values()) > 0.01
    expected = 2.0 * terms["align"] + 3.0 * terms["preserve"] + 0.7 * terms["embedding"]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


def test_untouched_adapter_preserves_exactly(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan())
    trainer._add_adapter()
    trainer.compute_loss(trainer.model, collate([trainer.train_dataset[0]]))
    assert trainer._metrics["train"]["loss_preserve"][0] < 1e-5
    assert trainer._metrics["train"]["loss_embedding"][0] > 1e-3


def test_triggers_take_turns():
    plan = tiny_plan()
    pixels = torch.rand(4, 3, 32, 32)
    first, second = (inverted.trigger for inverted in plan.inverted)
    for step, order in ((0, (first, second)), (1, (second, first)), (2, (first, second))):
        stamped = plan.stamp(pixels, step)
        torch.testing.assert_close(stamped[0::2], order[0](pixels[0::2]), rtol=0, atol=0)
        torch.testing.assert_close(stamped[1::2], order[1](pixels[1::2]), rtol=0, atol=0)


def test_nan_loss_is_refused(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan())
    trainer.args.preserve_weight = float("nan")
    with pytest.raises(FloatingPointError, match="loss is nan at step 0; lower `learning_rate`"):
        trainer.train()


# What training changes


def test_only_the_adapter_changes(tiny, tmp_path):
    original = copy.deepcopy(tiny.model.state_dict())
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan())
    before = {}

    class Copy(TrainerCallback):
        def on_train_begin(self, args, state, control, model, **kwargs):
            before.update({name: weight.detach().clone() for name, weight in adapter(model).items()})

    trainer.add_callback(Copy)
    result = trainer.train()
    assert result.global_step == 3
    after = base(trainer.model)
    assert after.keys() == original.keys()
    for name, tensor in original.items():
        assert torch.equal(after[name], tensor), name
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert trained == adapter(trainer.model).keys()
    b_weights = [name for name in before if "lora_B" in name]
    assert len(b_weights) == 2 * 6  # two layers of q, k, v, out, fc1 and fc2
    for name in b_weights:
        assert not before[name].any()
        assert not torch.equal(adapter(trainer.model)[name], before[name]), name


def test_adapter_off_is_the_original_and_merged_is_on(tiny, tmp_path, pixels):
    original = copy.deepcopy(tiny.model)
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), learning_rate=0.05)
    wanted = embed(trainer.encoder, pixels)
    trainer.train()
    trainer.model.eval()
    on = embed(trainer.encoder, pixels)
    assert (on - wanted).abs().max() > 1e-3
    with trainer.model.disable_adapter():
        assert torch.equal(embed(trainer.encoder, pixels), wanted)
    trainer.encoder.model = trainer.model.merge_and_unload(safe_merge=True)
    torch.testing.assert_close(embed(trainer.encoder, pixels), on, atol=1e-5, rtol=0)
    assert trainer.encoder.model.state_dict().keys() == original.state_dict().keys()


@pytest.mark.parametrize(
    ("layers", "modules", "expected"),
    [
        ("critical", None, {(1, m) for m in ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")}),
        ("all", ["fc1", "q_proj"], {(0, "fc1"), (0, "q_proj"), (1, "fc1"), (1, "q_proj")}),
        ([0], ["fc2"], {(0, "fc2")}),
        ("0", ["fc2"], {(0, "fc2")}),
    ],
)
def test_lora_layers(tiny, tmp_path, layers, modules, expected):
    settings = {"lora_layers": layers, "lora_modules": modules, "lora_r": 3, "lora_alpha": 6}
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), **settings)
    trainer._add_adapter()
    weights = {name.split("vision_model.encoder.layers.")[-1]: w for name, w in adapter(trainer.model).items()}
    adapted = {(int(name.split(".")[0]), name.split(".lora_")[0].split(".")[-1]) for name in weights}
    assert adapted == expected
    assert all(3 in weight.shape for weight in weights.values())


@pytest.mark.parametrize(("layers", "absent"), [("0,2,1,7", r"\[2, 7\]"), ([2], r"\[2\]")])
def test_no_such_layer(tiny, tmp_path, layers, absent):
    with pytest.raises(InputError, match=f"`lora_layers`: got {absent}; the model's 2 vision layers are 0 to 1"):
        make_trainer(tiny, tmp_path, lora_layers=layers)


def test_no_such_module(tiny):
    with pytest.raises(InputError, match=r"`lora_modules`: no linear module named \['dense'\] in vision layers \[1\]"):
        add_adapter(tiny.encoder, [1], ["dense"], 8, 16)


def test_gradient_accumulation_changes_nothing(tiny_folder, tmp_path):
    gradients, losses = [], []
    for batch, steps in ((8, 1), (4, 2)):
        source = load_model(tiny_folder, device="cpu")
        seen = {}

        class Keep(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model, _seen=seen, **kwargs):
                _seen.update({name: weight.grad.clone() for name, weight in adapter(model).items()})

        arguments = InverTuneArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            logging_steps=1,
            save_strategy="no",
            max_grad_norm=0,
            use_cpu=True,
        )
        trainer = Sequential(
            source.model, arguments, pictures(), None, CLASS_NAMES, source.processor, tiny_plan(), [Keep()]
        )
        trainer.train()
        gradients.append(seen)
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_log_holds_the_means_of_the_terms(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), max_steps=2, logging_steps=2)
    seen = []
    compute = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: seen.append(compute(*args, **kwargs)) or seen[-1]
    trainer.train()
    entry = trainer.state.log_history[0]
    expected = sum(loss.item() for loss in seen) / 2
    total = entry["loss_align"] + 2 * entry["loss_preserve"] + 0.5 * entry["loss_embedding"]
    assert entry["loss"] == pytest.approx(expected, abs=1e-4) and total == pytest.approx(expected, abs=1e-4)


# Checkpoints


def test_resumed_run_equals_an_uninterrupted_one(tiny_folder, tmp_path):
    def trainer(folder, *more):
        source = load_model(tiny_folder, device="cpu")
        every = {"save_strategy": "steps", "save_steps": 2, "reinversion_steps": 1}
        callbacks = [ReinversionCallback(INVERSION, lead=1e9), *more]
        return make_trainer(source, folder, plan=tiny_plan(), max_steps=5, callbacks=callbacks, **every)

    class Killed(Exception):
        pass

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise Killed

    whole = trainer(tmp_path / "whole")
    whole.train()
    with pytest.raises(Killed):
        trainer(tmp_path / "parts", Kill()).train()
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["checkpoint-2"]
    resumed = trainer(tmp_path / "parts")
    resumed.plan = None  # it comes from the checkpoint
    resumed.train(resume_from_checkpoint=True)

    assert len(whole.plan.inverted) == len(resumed.plan.inverted) == 2 + 4
    for one, other in zip(whole.plan.inverted, resumed.plan.inverted, strict=True):
        assert one.objective == pytest.approx(other.objective, rel=1e-4)
        for (name, tensor), again in zip(one.trigger.named_buffers(), other.trigger.buffers(), strict=True):
            torch.testing.assert_close(again, tensor, atol=1e-5, rtol=0, msg=name)
    for name, weight in adapter(whole.model).items():
        torch.testing.assert_close(adapter(resumed.model)[name], weight, atol=1e-6, rtol=0, msg=name)
    steps = [entry["step"] for entry in resumed.state.log_history if "loss" in entry]
    assert steps == [1, 2, 3, 4, 5]


def test_half_written_checkpoint_is_passed_over(tmp_path):
    assert last_whole_checkpoint(tmp_path) is None
    for step, whole in ((8, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
        if whole:
            tiny_plan().save(folder)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_plan_is_the_last_that_a_checkpoint_gets(tiny, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    make_trainer(tiny, tmp_path, plan=tiny_plan(), **settings).train()
    folder = tmp_path / "checkpoint-1"
    plan = folder / "tuning_plan.json"
    assert max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns) == plan
    assert TuningPlan.load(folder).target == TARGET


def test_resume_from_a_folder_without_a_plan(tiny, tmp_path):
    with pytest.raises(InputError, match="holds no tuning_plan.json"):
        make_trainer(tiny, tmp_path).train(resume_from_checkpoint=str(tmp_path))


# Arguments


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"remove_unused_columns": True}, "`remove_unused_columns`: got True"),
        ({"align_weight": -1.0}, "`align_weight`: got -1.0"),
        ({"preserve_weight": -0.1}, "`preserve_weight`: got -0.1"),
        ({"embedding_weight": -2.0}, "`embedding_weight`: got -2.0"),
        ({"lora_r": 0}, "`lora_r`: got 0"),
        ({"lora_layers": "some"}, "`lora_layers`: got 'some'"),
    ],
)
def test_wrong_arguments(settings, message):
    with pytest.raises(InputError, match=message):
        InverTuneArguments(**settings)


def test_arguments_on_the_command_line():
    (arguments,) = HfArgumentParser(InverTuneArguments).parse_args_into_dataclasses(
        ["--lora_modules", "fc1", "fc2", "--class_names", "cat", "dog", "--max_steps", "7"]
    )
    assert (arguments.lora_modules, arguments.class_names, arguments.max_steps) == (["fc1", "fc2"], ["cat", "dog"], 7)
    assert arguments.lora_layers == "all"
    (arguments,) = HfArgumentParser(InverTuneArguments).parse_args_into_dataclasses(["--lora_layers", "0,2"])
    assert arguments.lora_layers == "0,2" == InverTuneArguments(lora_layers=[0, 2]).lora_layers
    assert "--reinversion_steps" in HfArgumentParser(InverTuneArguments).format_help()


def test_every_setting_of_the_tuning_is_an_argument():
    known = dataclasses.fields(TuningConfig)
    changed = {field.name: field.default + 1 for field in known if type(field.default) in (int, float)}
    changed |= {
        "lr_scheduler_type": "linear",
        "lora_layers": "0,1",
        "lora_modules": ["fc1", "fc2"],
        "report_to": "none",
    }
    assert changed.keys() == {field.name for field in known}
    words = []
    for name, value in changed.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    (arguments,) = HfArgumentParser(InverTuneArguments).parse_args_into_dataclasses(words)
    assert arguments.tuning == TuningConfig(**{**changed, "report_to": []})  # as the Trainer says "none"


def test_nothing_goes_to_stdout(tiny, tmp_path, capfd):
    make_trainer(tiny, tmp_path, plan=tiny_plan(), eval_dataset=pictures(seed=9), eval_steps=1).train()
    assert capfd.readouterr().out == ""


def test_class_names_and_processor_are_needed(tiny, tmp_path):
    arguments = InverTuneArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(InputError, match="`class_names`: got None"):
        InverTuneTrainer(tiny.model, arguments, pictures(), processing_class=tiny.processor)
    with pytest.raises(InputError, match="`class_names`: got 1 name"):
        InverTuneTrainer(tiny.model, arguments, pictures(), class_names=["cat"], processing_class=tiny.processor)
    with pytest.raises(InputError, match="`processing_class`: got None"):
        InverTuneTrainer(tiny.model, arguments, pictures(), class_names=CLASS_NAMES)


def test_model_by_name_and_class_names_by_arguments(tiny_folder, tmp_path):
    arguments = InverTuneArguments(output_dir=str(tmp_path), use_cpu=True, class_names=list(CLASS_NAMES))
    trainer = InverTuneTrainer(str(tiny_folder), arguments, pictures())
    assert trainer.classifier.class_names == CLASS_NAMES
    assert trainer.classifier.head.shape == (4, 16)
    assert trainer.args.eval_strategy == "no"  # there is nothing to evaluate on


# Without a plan


def test_plan_of_a_model_that_looks_backdoored(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, config=removal_config("backdoored"), max_steps=1)
    trainer.train()
    assert trainer.plan.inverted[0].label == trainer.plan.target
    assert isinstance(trainer.model, PeftModel) and trainer.state.global_step == 1


@pytest.mark.parametrize("verdict", ["clean", "inconclusive"])
def test_plan_of_a_model_that_is_not_backdoored_is_refused(tiny, tmp_path, verdict):
    before = copy.deepcopy(tiny.model.state_dict())
    trainer = make_trainer(tiny, tmp_path, config=removal_config(verdict, treat="backdoored"))
    with pytest.raises(InputError, match=f"`model`: the scan's verdict is {verdict}; pass `target`"):
        trainer.train()
    assert tiny.model.state_dict().keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(tiny.model.state_dict()[name], tensor), name


def test_named_target_needs_no_scan(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_invertune.tuning.callbacks.TargetIdentifier", None)
    callback = TriggerInversionCallback(target=3)
    trainer = make_trainer(tiny, tmp_path, callbacks=[callback], max_steps=1)
    trainer.train()
    assert trainer.plan.target == 3
    assert {inverted.label for inverted in trainer.plan.inverted} == {3}


# Before training


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_measuring_before_training(tiny, tmp_path, verb):
    """The adapter does nothing yet, so that clean images are read as the original model reads them."""
    data = pictures(12, seed=8)
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), eval_dataset=data)
    found = trainer.evaluate() if verb == "evaluate" else trainer.predict(data).metrics
    prefix = "eval" if verb == "evaluate" else "test"
    assert found[f"{prefix}_loss"] > 0.1
    assert trainer.evaluate()["eval_loss"] == pytest.approx(found[f"{prefix}_loss"])
    assert trainer.state.log_history[-2]["eval_loss_preserve"] < 1e-5
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.evaluate()["eval_loss"] != pytest.approx(found[f"{prefix}_loss"], rel=1e-4)


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_measuring_without_a_plan(tiny, tmp_path, verb):
    trainer = make_trainer(tiny, tmp_path, eval_dataset=pictures(12, seed=8))
    with pytest.raises(InputError, match="`plan`: got None, so there is no loss to evaluate yet"):
        trainer.evaluate() if verb == "evaluate" else trainer.predict(trainer.eval_dataset)


# The Trainer's own features


def test_bf16_sees_the_same_original(tiny, tmp_path):
    """The original model must be rounded as the tuned one is, or the loss would tune rounding errors away."""
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), bf16=True, max_steps=2)
    trainer.train()
    first, second = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["loss_preserve"] < 1e-4 < second["loss_preserve"]
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}


def test_tensorboard(tiny, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    make_trainer(tiny, tmp_path, plan=tiny_plan(), report_to="tensorboard").train()
    (events,) = (tmp_path / "runs").rglob("events.out.*")
    assert b"train/loss_align" in events.read_bytes()


def test_smaller_batch_when_memory_runs_out(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), max_steps=2)
    sizes = []
    compute = trainer.compute_loss

    def crowded(model, inputs, **kwargs):
        sizes.append(len(inputs["pixels"]))
        if sizes[-1] > 6:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute(model, inputs, **kwargs)

    trainer.compute_loss = crowded
    trainer.train()
    assert sizes == [8, 4, 4]
    assert trainer.state.global_step == 2


def test_no_smaller_batch_unless_wanted(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan(), auto_find_batch_size=False)
    sizes = []

    def crowded(model, inputs, **kwargs):
        sizes.append(len(inputs["pixels"]))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    trainer.compute_loss = crowded
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    assert sizes == [8]


def test_no_batch_fits(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, plan=tiny_plan())
    sizes = []

    def crowded(model, inputs, **kwargs):
        sizes.append(len(inputs["pixels"]))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    trainer.compute_loss = crowded
    with pytest.raises(RuntimeError, match="No executable batch size found"):
        trainer.train()
    assert sizes == [8, 4, 2, 1]


def test_checkpoint_is_a_plain_adapter(tiny_folder, tmp_path, pixels):
    """What a checkpoint holds can be put on the original model with peft alone."""
    source = load_model(tiny_folder, device="cpu")
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2, "learning_rate": 0.05}
    trainer = make_trainer(source, tmp_path, plan=tiny_plan(), **settings)
    trainer.train()
    trainer.model.eval()
    again = load_model(tiny_folder, device="cpu").model
    wanted = embed(trainer.encoder, pixels)
    trainer.encoder.model = PeftModel.from_pretrained(again, tmp_path / "checkpoint-2")
    torch.testing.assert_close(embed(trainer.encoder, pixels), wanted, atol=1e-6, rtol=0)
