import copy
import json
import math
import shutil

import pytest
import torch
from PIL import Image
from tiny import CLASS_NAMES
from tiny_plan import TARGET, pictures, removal_config, scan_config, tiny_plan
from transformers import CLIPModel, CLIPProcessor, pipeline

from hf_invertune.data.pixels import PixelDataset
from hf_invertune.errors import InputError
from hf_invertune.models.evaluation import Measurement, Metrics, Rate
from hf_invertune.models.loading import load_model, state_digest
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report.report import AuditReport
from hf_invertune.stages.configs import AuditConfig, RemovalConfig
from hf_invertune.stages.families import MaskedFamily
from hf_invertune.stages.identification import ScanResult, TargetIdentifier
from hf_invertune.stages.plan import TuningPlan
from hf_invertune.stages.verdict import Verdict, missed_bars
from hf_invertune.triggers import AdditiveTrigger, PatchTrigger
from hf_invertune.tuning.trainer import InverTuneTrainer


pytestmark = pytest.mark.usefixtures("drawn_once")


@pytest.fixture
def remover(tiny):
    return BackdoorRemover(tiny)


@pytest.fixture(scope="module")
def half_folder(tiny_folder, tmp_path_factory):
    """The tiny model with its weights in float16."""
    folder = tmp_path_factory.mktemp("half") / "half"
    shutil.copytree(tiny_folder, folder)
    CLIPModel.from_pretrained(tiny_folder, dtype=torch.float16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def removal(half_folder):
    """A whole removal on the tiny model, two updates a stage, with a known trigger."""
    remover = BackdoorRemover.from_pretrained(half_folder, device="cpu")
    original = copy.deepcopy(remover.model)
    result = remover.remove(pictures(32), trigger=tiny_plan().inverted[0].trigger, config=removal_config())
    return remover, original, result


def never(*arguments, **settings):
    raise AssertionError("this must not run")


def interrupted(*arguments, **settings):
    raise KeyboardInterrupt


def counted(monkeypatch, kind, name):
    """How often a method runs from now on."""
    calls = []
    method = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda *args, **kwargs: calls.append(1) or method(*args, **kwargs))
    return calls


def assert_same_weights(model, state):
    assert model.state_dict().keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(model.state_dict()[name], tensor), name


# What comes back


@pytest.mark.parametrize("verdict", ["clean", "inconclusive"])
def test_model_without_a_backdoor_is_left_alone(remover, verdict, monkeypatch, tmp_path):
    monkeypatch.setattr(InverTuneTrainer, "train", never)
    original = copy.deepcopy(remover.model.state_dict())
    result = remover.remove(pictures(32), output_dir=tmp_path, config=removal_config(verdict, treat="backdoored"))
    assert (result.verdict, result.outcome) == (Verdict(verdict), "unchanged")
    assert result.report.reasons == [f"The scan's verdict is {verdict}, and no `target` was named."]
    assert result.report.model.sha256 == result.report.sha256_after
    assert (result.target is None) == (verdict == "clean")
    assert type(result.model) is CLIPModel and result.model is remover.model
    assert_same_weights(result.model, original)


def test_an_inconclusive_model_is_treated(remover):
    result = remover.remove(pictures(32), config=removal_config("inconclusive"))
    assert result.verdict is Verdict.INCONCLUSIVE and result.outcome in ("cleaned", "reduced", "not cleaned")
    assert result.report.target == result.report.scan.target


def test_backdoored_model_is_cleaned(removal):
    remover, original, result = removal
    report = result.report
    assert (result.verdict, result.outcome) == (Verdict.BACKDOORED, report.outcome)
    assert report.outcome in ("cleaned", "reduced", "not cleaned") and (report.outcome == "cleaned") == (
        not report.reasons
    )
    assert (result.target, result.target_name) == (report.scan.target, CLASS_NAMES[report.scan.target])
    assert type(result.model) is CLIPModel and result.model is remover.model is remover.source.encoder.model
    assert not result.model.training and all(p.requires_grad for p in result.model.parameters())
    changed = {
        name
        for (name, before), after in zip(
            original.state_dict().items(), result.model.state_dict().values(), strict=True
        )
        if not torch.equal(before, after)
    }
    leaves = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    assert changed
    assert all(
        name.startswith("vision_model.encoder.layers.") and name.endswith(".weight") and name.split(".")[-2] in leaves
        for name in changed
    )


def test_report_of_a_removal(removal):
    remover, original, result = removal
    report = result.report
    assert report.model.dtype == "float16"
    assert report.model.sha256 == state_digest(original, torch.float16)
    assert report.sha256_after == state_digest(remover.model, torch.float16) != report.model.sha256
    assert (report.data.held_out, report.data.labelled) == (8, True)
    assert report.second_scan.seed != report.scan.seed
    assert report.second_scan.images == report.scan.images == 24
    assert not any("train_loss" in entry for entry in report.removal.training)  # a resumed run has another one
    assert set(report.seconds) == {"inversion and localization", "tuning", "proof"}
    assert report.trigger_sha256 == report.inverted[0].trigger.digest() and report.removal.critical.neurons
    assert report.config.tuning.max_steps == 2 and len(report.scan.templates) > 1
    examples = report.removal.examples
    assert len(examples.clean_after) == len(examples.triggered_before) == len(examples.clean)
    assert result.metrics[0].trigger == "given by the caller"
    assert {measurement.trigger for measurement in result.metrics[1:]} <= {"inverted, masked", "inverted, additive"}


def test_measurements_are_of_the_held_out_images(removal):
    """Measured again by hand on the original and on the model that came back."""
    remover, original, result = removal
    held_out, _ = pictures(32).split(0.25, seed=0)
    assert result.report.removal.held_out_sha256 == held_out.digest()
    given = result.metrics[0]
    assert given.trigger_sha256 == tiny_plan().inverted[0].trigger.digest()
    again = remover.evaluate(held_out, trigger=tiny_plan().inverted[0].trigger, target=result.target)
    assert again == given.after
    before = BackdoorRemover(remover.source.holding(original))
    again = before.evaluate(held_out, trigger=tiny_plan().inverted[0].trigger, target=result.target)
    assert again == given.before
    assert given.before.clean_accuracy.count == 8


@pytest.mark.parametrize(("target", "expected"), [(TARGET, TARGET), ("blue square", 1)])
def test_named_target_is_cleaned_whatever_the_scan_says(remover, target, expected):
    result = remover.remove(pictures(32), target=target, config=removal_config("clean"))
    assert result.verdict is Verdict.CLEAN and result.outcome != "unchanged"
    assert (result.target, result.target_name) == (expected, CLASS_NAMES[expected])
    assert {inverted.label for inverted in result.report.inverted} == {expected}


def test_force_takes_the_most_suspicious_label(remover):
    result = remover.remove(pictures(32), force=True, config=removal_config("clean"))
    assert result.verdict is Verdict.CLEAN and result.outcome != "unchanged"
    assert result.target == max(result.report.scan.evidence, key=lambda family: family.lead).label


def test_images_without_labels_are_measured_by_agreement(remover):
    data = pictures(32, labelled=False)
    result = remover.remove(data, CLASS_NAMES, config=removal_config())
    assert not result.report.data.labelled
    for measurement in result.metrics:
        for metrics in (measurement.before, measurement.after):
            assert metrics.clean_accuracy is None and metrics.poisoned_accuracy is None
            assert metrics.agreement.count == 8
        assert measurement.before.agreement.value == 1.0


# The bars


def measured(after, before=None):
    def metrics(accuracy=None, agreement=None, success=0.0, floor=0.0):
        rates = {"clean_accuracy": accuracy, "agreement": agreement, "attack_success_rate": success}
        rates["target_rate"] = floor
        return Metrics(**{k: None if value is None else Rate(round(100 * value), 100) for k, value in rates.items()})

    return Measurement("patch", metrics(**(before or {"accuracy": 0.9})), metrics(**after), "0" * 64)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({"accuracy": 0.86, "success": 0.05, "floor": 0.02}, []),
        ({"accuracy": 0.9, "success": 0.10, "floor": 0.02}, ["Trigger 'patch' still succeeds on 8.0% of the images."]),
        ({"accuracy": 0.8}, ["Clean accuracy fell by 10.0 points."]),
        ({"accuracy": 0.95}, []),
        ({"agreement": 0.79}, ["The cleaned model agrees with the original on only 79.0%."]),
        ({"agreement": 0.81}, []),
    ],
)
def test_missed_bars(after, expected):
    assert missed_bars([measured(after)] * 2, Verdict.CLEAN, None, AuditConfig()) == expected


def test_second_scan_is_a_bar():
    found = missed_bars([], Verdict.BACKDOORED, "blue square", AuditConfig())
    assert found == ["A second scan still finds a backdoor, towards 'blue square'."]
    found = missed_bars([], Verdict.INCONCLUSIVE, "blue square", AuditConfig())
    assert found == ["A second scan is inconclusive about 'blue square'."]
    assert missed_bars([], Verdict.CLEAN, None, AuditConfig()) == []


# Saving


def test_saved_model_is_a_plain_clip(removal, half_folder, tmp_path):
    remover, _, result = removal
    remover.save_pretrained(tmp_path / "saved")
    saved = CLIPModel.from_pretrained(tmp_path / "saved", dtype="auto")
    assert saved.dtype == torch.float16
    assert state_digest(saved, torch.float16) == result.report.sha256_after
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {path.name for path in half_folder.iterdir()}
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (half_folder, tmp_path / "saved"))
    assert after == before
    assert remover.model.dtype == torch.float32  # saving leaves the model in memory as it is


def test_saved_model_reads_pictures_like_the_one_in_memory(removal, tmp_path):
    remover, _, _ = removal
    remover.save_pretrained(tmp_path / "saved")
    pixels = pictures(6).pixels
    images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]
    model = CLIPModel.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    processor = CLIPProcessor.from_pretrained(tmp_path / "saved")
    inputs = processor(images=images, text=["a"], return_tensors="pt")
    with torch.no_grad():
        wanted = remover.source.encoder.embed_images(pixels.float() / 255)
        torch.testing.assert_close(model(**inputs).image_embeds, wanted, atol=1e-5, rtol=0)


def test_saved_model_works_in_a_pipeline(removal, tmp_path):
    removal[0].save_pretrained(tmp_path / "saved")
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path / "saved"), device="cpu")
    picture = Image.fromarray(pictures(1).pixels[0].permute(1, 2, 0).numpy())
    scores = classify(picture, candidate_labels=list(CLASS_NAMES))
    assert {score["label"] for score in scores} == set(CLASS_NAMES)
    assert math.isclose(sum(score["score"] for score in scores), 1, abs_tol=1e-2)


def test_unchanged_model_is_saved_bit_for_bit(half_folder, tmp_path):
    remover = BackdoorRemover.from_pretrained(half_folder, device="cpu")
    remover.remove(pictures(32), config=removal_config("clean"))
    remover.save_pretrained(tmp_path / "saved")
    saved = CLIPModel.from_pretrained(tmp_path / "saved", dtype="auto")
    assert_same_weights(saved, CLIPModel.from_pretrained(half_folder, dtype="auto").state_dict())
    assert (tmp_path / "saved" / "config.json").read_bytes() == (half_folder / "config.json").read_bytes()


def test_save_into_an_empty_folder_only(remover, tmp_path):
    (tmp_path / "empty").mkdir()
    remover.save_pretrained(tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(InputError, match=rf"`folder`: .*{name} exists and is not empty"):
            remover.save_pretrained(tmp_path / name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_failed_save_leaves_nothing(remover, tmp_path, monkeypatch):
    monkeypatch.setattr(CLIPProcessor, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remover.save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


# Interrupted and resumed


def resume_equals(whole, parts):
    assert_same_weights(parts.model, whole.model.state_dict())
    assert [m.after for m in parts.metrics] == [m.after for m in whole.metrics]
    assert parts.outcome == whole.outcome


@pytest.mark.parametrize("where", ["scan", "plan", "tuning"])
def test_interrupted_removal_goes_on(tiny_folder, tmp_path, monkeypatch, where):
    """It makes no finished stage anew, and ends as an uninterrupted one does."""
    stage = {
        "scan": "hf_invertune.remover.TargetIdentifier.identify",
        "plan": "hf_invertune.remover.make_plan",
        "tuning": "transformers.Trainer.train",
    }[where]
    remover = BackdoorRemover.from_pretrained(tiny_folder, device="cpu")
    original = copy.deepcopy(remover.model)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, interrupted)
        remover.remove(pictures(32), output_dir=tmp_path, config=removal_config())

    # the model is the one that came, so that the same object can go on
    assert type(remover.model) is CLIPModel and remover.model is remover.source.encoder.model
    assert_same_weights(remover.model, original.state_dict())
    assert remover.model.config.to_dict() == original.config.to_dict()
    assert all(parameter.requires_grad for parameter in remover.model.parameters())

    scans = counted(monkeypatch, TargetIdentifier, "identify")
    with monkeypatch.context() as patch:
        if where == "tuning":
            patch.setattr("hf_invertune.remover.make_plan", never)
        parts = remover.remove(pictures(32), output_dir=tmp_path, resume=True, config=removal_config())
    assert len(scans) == (2 if where == "scan" else 1)  # the last is the second scan
    fresh = BackdoorRemover.from_pretrained(tiny_folder, device="cpu")
    resume_equals(fresh.remove(pictures(32), config=removal_config()), parts)


@pytest.mark.no_cover
def test_tuning_goes_on_from_its_checkpoint(remover, tmp_path, monkeypatch):
    """And the report knows the triggers that were found before the interruption."""
    config = removal_config(tuning={"max_steps": 101, "learning_rate": 1e-5})
    reached = []

    def stop(callback, args, state, control, **kwargs):
        reached.append(state.global_step)
        if len(reached) == 60:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hf_invertune.tuning.callbacks.InterruptCallback.on_step_end", stop)
        remover.remove(pictures(32), output_dir=tmp_path, config=config)
    saved = TuningPlan.load(tmp_path / "checkpoints" / "tuning" / "checkpoint-50")
    with monkeypatch.context() as patch:
        patch.setattr("hf_invertune.tuning.callbacks.InterruptCallback.on_step_end", stop)
        result = remover.remove(pictures(32), output_dir=tmp_path, resume=True, config=config)
    assert reached == [*range(1, 61), *range(51, 102)]
    planned = TuningPlan.load(tmp_path / "checkpoints" / "plan")
    assert len(result.report.inverted) >= len(saved.inverted) > len(planned.inverted)
    assert [i.objective for i in result.report.inverted][: len(saved.inverted)] == [
        i.objective for i in saved.inverted
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": pictures(32, seed=9)}, "images"),
        ({"class_names": CLASS_NAMES[::-1]}, "images|class_names"),
        ({"config": removal_config(tuning={"max_steps": 3})}, "config"),
        ({"target": 1}, "target"),
        ({"templates": ["a {}"]}, "templates"),
    ],
)
def test_resume_with_something_else_is_refused(remover, tmp_path, monkeypatch, change, named):
    given = {"images": pictures(32), "config": removal_config(), "output_dir": tmp_path}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hf_invertune.remover.make_plan", interrupted)
        remover.remove(**given)
    monkeypatch.setattr(TargetIdentifier, "identify", never)
    message = rf"`resume`: the run in .*checkpoints began with other ({named}); repeat its arguments"
    with pytest.raises(InputError, match=message):
        remover.remove(**{**given, **change}, resume=True)


def test_resume_of_another_model_is_refused(remover, half_folder, tmp_path):
    given = {"images": pictures(32), "config": removal_config("clean"), "output_dir": tmp_path}
    remover.remove(**given)
    other = BackdoorRemover.from_pretrained(half_folder, device="cpu")
    with pytest.raises(InputError, match="began with other model"):
        other.remove(**given, resume=True)


def test_new_run_forgets_the_old_one(remover, tmp_path, monkeypatch):
    given = {"images": pictures(32), "config": removal_config("clean"), "output_dir": tmp_path}
    remover.remove(**given)
    scans = counted(monkeypatch, TargetIdentifier, "identify")
    remover.remove(**given)
    assert len(scans) == 1
    remover.remove(**given, resume=True)
    assert len(scans) == 1


@pytest.mark.parametrize("resume", [False, True])
def test_checkpoints_of_another_tool_are_spared(remover, tmp_path, resume):
    mine = tmp_path / "checkpoints" / "mine.bin"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match="`output_dir`: .*checkpoints holds what this tool did not write"):
        remover.remove(pictures(32), output_dir=tmp_path, resume=resume, config=removal_config("clean"))
    assert mine.read_text() == "mine"


def test_failed_tuning_gives_the_model_back(remover, monkeypatch):
    original = copy.deepcopy(remover.model.state_dict())
    monkeypatch.setattr("hf_invertune.tuning.losses.alignment", lambda *_: torch.tensor(math.nan))
    with pytest.raises(FloatingPointError):
        remover.remove(pictures(32), config=removal_config())
    assert type(remover.model) is CLIPModel
    assert_same_weights(remover.model, original)


# Wrong input, told before any long work


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (pictures(32), {"target": "zebra"}, "`target`: 'zebra' is not among the 4 class names"),
        (pictures(32), {"target": 4}, "`target`: got 4; it must lie between 0 and 3"),
        (pictures(32), {"target": -1}, "`target`: got -1"),
        (pictures(63), {"config": None}, r"`source`: 63 picture\(s\) came and at least 64 are needed"),
        (pictures(32), {"class_names": ["cat", "cat"]}, "`class_names`: 'cat' appear more than once"),
        (pictures(32), {"class_names": ["red circle", "cat"]}, "`class_names`: 'blue square'"),
        (pictures(32), {"templates": ["a photo"]}, "`templates`"),
        (PixelDataset(torch.zeros(32, 3, 8, 8, dtype=torch.uint8)), {}, "`source`: its pixels are 8x8"),
        (
            pictures(32),
            {"trigger": AdditiveTrigger(torch.zeros(3, 8, 8), 0.1)},
            "`trigger`: it fits images of 8x8 pixels, and these have 32x32",
        ),
        (
            pictures(32),
            {"trigger": PatchTrigger(torch.zeros(3, 4, 4), 26, 30)},
            "`trigger`: the patch covers rows 26-30 and columns 30-34, outside images of 32x32 pixels",
        ),
    ],
)
def test_wrong_input(remover, monkeypatch, tmp_path, images, settings, message):
    monkeypatch.setattr(TargetIdentifier, "identify", never)
    with pytest.raises(InputError, match=message):
        remover.remove(images, output_dir=tmp_path, **{"config": removal_config(), **settings})
    assert list(tmp_path.iterdir()) == []


# The other verbs


def test_scan_leaves_the_held_out_images_alone(remover, tmp_path):
    scan = remover.scan(pictures(16), config=removal_config())
    assert (scan.images, scan.inputs.data.held_out, scan.verdict) == (12, 4, Verdict.BACKDOORED)
    assert scan.inputs.model.sha256 == state_digest(remover.model, torch.float32)
    AuditReport("scanned", scan).save(tmp_path)
    assert AuditReport.load(tmp_path).target == scan.target


@pytest.mark.parametrize("given", ["scan", "target"])
def test_invert_starts_from_a_scan_or_a_target(remover, monkeypatch, given):
    data, config = pictures(16), removal_config()
    start = {"scan": remover.scan(data, config=config)} if given == "scan" else {"target": "blue square"}
    monkeypatch.setattr(TargetIdentifier, "identify", never)
    plan = remover.invert(data, config=config, **start)
    assert plan.target == (start["scan"].target if given == "scan" else 1)
    assert plan.inverted[0].label == plan.target and plan.critical.neurons


def test_invert_scans_by_itself(remover, monkeypatch):
    scans = counted(monkeypatch, TargetIdentifier, "identify")
    remover.invert(pictures(16), config=removal_config())
    assert len(scans) == 1


@pytest.mark.parametrize("kept", ["memory", "scan folder", "report"])
def test_remove_goes_on_from_a_scan_and_a_plan(tiny_folder, tmp_path, monkeypatch, kept):
    """From memory or from disk, with nothing done twice, and it ends as a removal in one go does."""
    remover = BackdoorRemover.from_pretrained(tiny_folder, device="cpu")
    scan = remover.scan(pictures(32), config=removal_config())
    plan = remover.invert(pictures(32), scan=scan, config=removal_config())
    given = {"scan": scan, "plan": plan}
    if kept != "memory":
        plan.save(tmp_path / "plan")
        (AuditReport("scanned", scan) if kept == "report" else scan).save(tmp_path / "scan")
        given = {"scan": str(tmp_path / "scan"), "plan": tmp_path / "plan"}
    scans = counted(monkeypatch, TargetIdentifier, "identify")
    with monkeypatch.context() as patch:
        patch.setattr("hf_invertune.remover.make_plan", never)
        parts = remover.remove(pictures(32), config=removal_config(), **given)
    assert len(scans) == 1  # the second scan
    fresh = BackdoorRemover.from_pretrained(tiny_folder, device="cpu")
    resume_equals(fresh.remove(pictures(32), config=removal_config()), parts)


ONE_FAMILY = scan_config(families=(MaskedFamily(),))
OTHER_INPUTS = [
    ({"images": pictures(32, seed=9)}, "made with other images"),
    ({"config": removal_config(audit={"held_out": 0.5})}, "made with other images"),
    ({"class_names": ("blue square", "red circle", "green ring", "white cross")}, "other images|other class names"),
    ({"model": "half"}, "made with another model"),
]


@pytest.mark.parametrize(
    ("verb", "change", "message"),
    [
        *[(verb, change, message) for verb in ("scan", "plan") for change, message in OTHER_INPUTS],
        ("scan", {"templates": ["a {}"]}, "templates"),
        ("scan", {"config": removal_config(seed=1)}, "seed"),
        ("scan", {"config": removal_config(scan=ONE_FAMILY)}, "it searched by additive triggers too"),
    ],
)
def test_results_of_other_inputs_are_refused(remover, half_folder, monkeypatch, verb, change, message):
    result = remover.scan(pictures(32), config=removal_config())
    if verb == "plan":
        result = remover.invert(pictures(32), scan=result, config=removal_config())
    monkeypatch.setattr(TargetIdentifier, "identify", never)
    other = BackdoorRemover.from_pretrained(half_folder, device="cpu") if change.get("model") else remover
    given = {"images": pictures(32), "config": removal_config(), **change}
    given.pop("model", None)
    if "class_names" in change:  # the same pictures under other names
        given["images"] = PixelDataset(pictures(32).pixels)
    with pytest.raises(InputError, match=rf"`{verb}`: .*({message})"):
        other.remove(**given, **{verb: result})


def test_what_is_no_result_is_refused(remover, tmp_path):
    for verb, wrong in (("scan", 3), ("plan", {}), ("scan", tmp_path), ("plan", str(tmp_path))):
        with pytest.raises(InputError, match=rf"`{verb}`: "):
            remover.remove(pictures(32), config=removal_config(), **{verb: wrong})
    bare = TargetIdentifier(remover._task(pictures(32), None, ("a {}",), removal_config(), 8).classifier)
    scan = ScanResult(Verdict.CLEAN, None, list(CLASS_NAMES), ["a {}"], bare.config, 0, [], [], [], 1, 0.0)
    with pytest.raises(InputError, match="`scan`: it does not tell its model and images"):
        remover.remove(pictures(32), config=removal_config(), scan=scan)


def test_a_plan_and_another_target_are_refused(remover):
    plan = remover.invert(pictures(32), target=1, config=removal_config())
    with pytest.raises(InputError, match="`target`: got 2, and the plan leads to label 1"):
        remover.remove(pictures(32), plan=plan, target=2, config=removal_config())


def test_one_seed_reaches_every_stage(remover, monkeypatch):
    seeds = {}
    for stage, where in {"split": "data.pixels.draw", "kmeans": "stages.localization.critical_neurons"}.items():
        module, name = f"hf_invertune.{where}".rsplit(".", 1)
        function = getattr(__import__(module, fromlist=[name]), name)

        def watched(*given, stage=stage, function=function):
            seeds[stage] = given[-1]
            return function(*given)

        monkeypatch.setattr(f"hf_invertune.{where}", watched)
    result = remover.remove(pictures(32), config=removal_config(seed=7))
    assert result.report.scan.seed == result.report.config.seed == 7
    assert seeds == {"split": 7, "kmeans": 7}
    assert RemovalConfig(seed=7).seed == 7


def test_evaluate(remover):
    data = pictures(12)
    assert remover.evaluate(data).attack_success_rate is None
    metrics = remover.evaluate(data, trigger=tiny_plan().inverted[0].trigger, target="green ring")
    assert (metrics.clean_accuracy.count, metrics.attack_success_rate.count) == (12, 9)


def test_evaluate_refuses_a_trigger_of_another_size_first(remover, monkeypatch):
    monkeypatch.setattr("hf_invertune.remover.evaluate", never)
    with pytest.raises(InputError, match="`trigger`: it fits images of 8x8 pixels, and these have 32x32"):
        remover.evaluate(pictures(12), trigger=AdditiveTrigger(torch.zeros(3, 8, 8), 0.1), target=0)


def test_model_from_a_folder(tiny_folder):
    remover = BackdoorRemover.from_pretrained(tiny_folder, device="cpu")
    assert_same_weights(remover.model, load_model(tiny_folder, device="cpu").model.state_dict())
    assert (remover.source.name, remover.source.revision) == ("tiny", None)
