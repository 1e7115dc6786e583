import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from forked import run_forked
from PIL import Image
from transformers import CLIPModel
from typer.testing import CliRunner

import hf_invertune
from hf_invertune.cli import main as cli
from hf_invertune.cli.options import Source
from hf_invertune.lab import drawings
from hf_invertune.models.evaluation import METRICS
from hf_invertune.stages.configs import RemovalConfig
from hf_invertune.triggers import PatchTrigger
from hf_invertune.utils import output_folder


VICTIMS = Path(hf_invertune.__file__).parent / "lab" / "victims"
PLAIN = {"NO_COLOR": "1", "COLUMNS": "200", "_TYPER_FORCE_DISABLE_TERMINAL": "1", "HF_HUB_OFFLINE": "1"}
ENTRY = [sys.executable, "-m", "hf_invertune"]


def run(*arguments):
    return subprocess.run(
        [*ENTRY, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **PLAIN}, timeout=300
    )


def fails(message, *arguments):
    """Wrong input: exit code 2, one line on stderr, nothing on stdout."""
    outcome = run(*arguments)
    assert (outcome.returncode, outcome.stdout) == (2, ""), outcome.stderr
    assert re.search(message, outcome.stderr), outcome.stderr
    assert outcome.stderr.startswith("error: ") and outcome.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Clean drawings in a folder, one sub-folder a class."""
    folder = tmp_path_factory.mktemp("pictures")
    count = 10 * len(drawings.CLASS_NAMES)
    labels = torch.arange(count) % len(drawings.CLASS_NAMES)
    batch = drawings.draw(count, seed=7, labels=labels)
    for index, (pixels, label) in enumerate(zip(batch.pixels, labels.tolist(), strict=True)):
        place = folder / drawings.CLASS_NAMES[label] / f"{index}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()).save(place)
    return folder


@pytest.fixture
def trigger(tmp_path):
    path = tmp_path / "trigger.safetensors"
    PatchTrigger(torch.rand(3, 4, 4), top=26, left=26).save(path)
    return path


@pytest.fixture
def results(tmp_path):
    """An output folder as an earlier run left it."""
    folder = tmp_path / "results"
    for name in ("audit/report.json", "audit/trigger.safetensors", "model/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


# Help and imports


@pytest.mark.parametrize("verb", [None, "scan", "invert", "remove", "push", "demo", "arena"])
def test_help_is_quick_and_tells_the_exit_codes(verb):
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        outcome = run(*filter(None, [verb]), "--help")
        seconds.append(time.perf_counter() - begin)
    assert outcome.returncode == 0
    assert min(seconds) <= 3
    for code in hf_invertune.ExitCode:
        assert re.search(rf"^ +{int(code)}  \w", outcome.stdout, re.MULTILINE)
    assert "[bold]" not in outcome.stdout


def test_no_arguments_is_help():
    outcome = run()
    assert "Usage: hf-invertune" in outcome.stdout + outcome.stderr


def test_version():
    assert run("--version").stdout == importlib.metadata.version("hf_invertune") + "\n"
    assert hf_invertune.__version__ == importlib.metadata.version("hf_invertune")


def test_nothing_heavy_is_imported_early():
    code = (
        "import sys, hf_invertune.cli.main; print(sorted({'torch', 'transformers', 'datasets'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("name", hf_invertune.__all__)
def test_public_name(name):
    assert getattr(hf_invertune, name) is not None
    assert name in dir(hf_invertune)


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'Backdoor'"):
        hf_invertune.Backdoor  # noqa: B018


# Wrong input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat", r"--class-names: got 1 name\(s\)"),
        ("cat,dog,cat", "--class-names: 'cat' appear more than once"),
        ("cat,,dog", "--class-names: got ''"),
        ("nowhere.txt", r"--class-names: nowhere.txt cannot be read \(No such file"),
    ],
)
def test_wrong_class_names(content, message):
    fails(message, "scan", "model", "--images", "images", "--class-names", content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"\n \n", r"--class-names: got 0 name\(s\)"),
        ("twice.txt", b"cat\ndog\ncat\n", "'cat' appear more than once"),
        ("latin.txt", b"caf\xe9\nbar\n", "is no text in UTF-8"),
        ("broken.json", b'["cat", ', "is no json file"),
        ("object.json", b'{"cat": 0}', "maps other keys than 0, 1, 2"),
        ("numbers.json", b"[1, 2]", "got 1 among them"),
    ],
)
def test_wrong_class_names_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    fails(message, "evaluate", "model", "--images", "images", "--class-names", tmp_path / name)


def test_unknown_target_names_the_nearest(tmp_path):
    arguments = ("--images", "images", "--class-names", "red ball,blue ball,tree", "--target", "red bal")
    message = "--target: 'red bal' is not among the 3 class names; the nearest are 'red ball', 'blue ball'"
    fails(message, "remove", "model", *arguments, "--output-dir", tmp_path)


@pytest.mark.parametrize("given", ["trigger", "target"])
def test_trigger_and_target_go_together(given, trigger):
    value = trigger if given == "trigger" else "cat"
    fails("--trigger and --target go together", "evaluate", "model", "--images", "images", f"--{given}", value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remove", "model", "--images", "images"], "Missing option '--output-dir'"),
        (["scan", "model", "--images", "images", "--limit", "0"], "'--limit'"),
        (["evaluate", "model", "--images", "i", "--trigger", "nowhere.safetensors"], "does not exist"),
        (["demo", "--victim", "innocent"], "'--victim'"),
        (["scrub"], "No such command 'scrub'"),
    ],
)
def test_wrong_usage(arguments, message):
    outcome = run(*arguments)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert message in outcome.stderr and "Traceback" not in outcome.stderr


# Output folders


def fails_here(message, *arguments):
    """As `fails`, in this process: before anything heavy is needed, that makes no difference."""
    outcome = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert re.search(message, outcome.stderr) and outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", [["demo"], ["scan", "model", "--images", "i"], ["remove", "model", "--images", "i"]])
def test_output_dir_must_be_empty(results, verb):
    fails_here("--output-dir: .* is not empty; .*--overwrite", *verb, "--output-dir", results)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_output_dir_must_be_a_folder(tmp_path, place):
    (tmp_path / "file").write_text("")
    fails_here("--output-dir: .* cannot be written to", "demo", "--output-dir", tmp_path / place)


@pytest.mark.parametrize("foreign", ["audit/notes.md", "model/.git/HEAD", "audit/figures/one.safetensors"])
def test_overwrite_spares_what_others_wrote(results, foreign):
    (results / foreign).parent.mkdir(exist_ok=True)
    (results / foreign).write_text("mine")
    fails_here("holds what this tool did not write", "demo", "--output-dir", results, "--overwrite")
    assert (results / foreign).read_text() == "mine"


def test_overwrite_spares_a_model_without_an_audit(results):
    (results / "audit" / "report.json").unlink()
    arguments = ("--images", "i", "--output-dir", results)
    fails_here("holds what this tool did not write", "remove", "model", *arguments, "--overwrite")
    fails_here("holds what this tool did not write", "remove", "model", *arguments, "--resume")


def test_overwrite_spares_the_model_that_is_read(results):
    arguments = ("--images", "i", "--output-dir", results, "--overwrite")
    fails_here("would be replaced, and it holds the model", "remove", results / "model", *arguments)


def test_write_replaces_whole_or_not_at_all(results):
    def broken(folder):
        (folder / "report.json").write_text("half")
        raise OSError("disk full")

    def whole(folder):
        (folder / "report.json").write_text("new")

    with pytest.raises(OSError, match="disk full"):
        output_folder.write_whole(results / "audit", broken)
    assert sorted(path.name for path in (results / "audit").iterdir()) == ["report.json", "trigger.safetensors"]
    output_folder.write_whole(results / "audit", whole)
    assert [path.name for path in (results / "audit").iterdir()] == ["report.json"]
    assert (results / "audit" / "report.json").read_text() == "new"
    assert sorted(path.name for path in results.iterdir()) == ["audit", "model"]


# Trouble on the way


def raises(error):
    def load(*arguments, **named):
        print("a library talks")  # noqa: T201
        raise error

    return load


@pytest.mark.parametrize("verb", ["scan", "invert", "remove", "evaluate"])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (FloatingPointError("the loss is\nnot finite"), 1, "error: the loss is not finite"),
        (
            hf_invertune.InputError("`source`: no pictures; see `split`."),
            2,
            "error: --images: no pictures; see --split.",
        ),
    ],
)
def test_trouble(tmp_path, monkeypatch, verb, error, code, message):
    monkeypatch.setattr(Source, "load", raises(error))
    monkeypatch.setattr("hf_invertune.fleet.scanner.read_model", raises(error))
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    output = ["--output-dir", str(tmp_path)] if verb in ("invert", "remove") else []
    outcome = CliRunner().invoke(cli.app, [verb, "model", "--images", "images", *output])
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    if code == 130 and verb == "remove":
        message += "; run the same command with --resume to go on"
    assert outcome.stderr == f"a library talks\n{message}\n"


@pytest.mark.parametrize(
    ("verdict", "outcome", "code"),
    [
        ("backdoored", "cleaned", 0),
        ("inconclusive", "cleaned", 0),
        ("clean", "unchanged", 0),
        ("backdoored", "not cleaned", 4),
        ("backdoored", "reduced", 4),
        ("inconclusive", "unchanged", 5),
        ("backdoored", "scanned", 3),
        ("inconclusive", "scanned", 5),
        ("clean", "scanned", 0),
    ],
)
def test_exit_code_of_a_scan_or_a_removal(verdict, outcome, code):
    assert hf_invertune.ExitCode.of(verdict, outcome) == code


def test_model_that_is_not_there(pictures):
    outcome = run_forked("hf_invertune", "scan", "./nowhere", "--images", pictures, **PLAIN)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: MODEL: ./nowhere is no folder") and outcome.stderr.count("\n") == 1


def test_images_that_cannot_be_read(tmp_path):
    (tmp_path / "images.parquet").write_bytes(b"PAR1 and so on")
    outcome = run_forked("hf_invertune", "scan", VICTIMS / "clean", "--images", tmp_path / "images.parquet", **PLAIN)
    assert (outcome.returncode, outcome.stdout, outcome.stderr.count("\n")) == (2, "", 1)
    assert re.match(r"error: --images: .*images.parquet cannot be read \(.*\); it may be damaged.", outcome.stderr)


def test_scan_of_a_model_alone_where_the_hub_has_no_pictures(tmp_path):
    outcome = run_forked("hf_invertune", "scan", VICTIMS / "clean", "--output-dir", tmp_path / "out", **PLAIN)
    assert (outcome.returncode, outcome.stdout, outcome.stderr.count("\n")) == (2, "", 1)
    assert re.match(r"error: --images: none were given, .* Pass a folder of a few hundred", outcome.stderr)


# The victims that come along


def run_here(*arguments):
    """As `run`, in this process, which has loaded torch already."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def result_of(outcome, code):
    """The one JSON object on stdout."""
    assert outcome.exit_code == code, outcome.output
    return json.loads(outcome.stdout)


NEVER = {"quiet": 1e9, "suspicious": 1e9}
QUICK = {
    "steps": [2, 2],
    "simulation_steps": 2,
    "families": ["masked", "additive"],
    "bars": {"masked": NEVER, "additive": NEVER},
    "gathering": {"families": ["window"], "starts": 2, "steps": 2, "bars": {"window": NEVER}},
}


@pytest.fixture
def quick(tmp_path):
    """Options with which a scan takes seconds and finds nothing."""
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump({"scan": QUICK}))
    return ["--config", str(path)]


@pytest.fixture(scope="module")
def few(pictures):
    """Names of six classes, for a scan that takes seconds."""
    return ",".join(["purple triangle", "red circle", "blue square", "green ring", "white cross", "yellow diamond"])


@pytest.fixture(scope="module")
def flat(pictures, tmp_path_factory):
    """The clean drawings without their classes."""
    folder = tmp_path_factory.mktemp("flat")
    for path in pictures.glob("*/*.png"):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.no_cover
def test_scan_finds_the_backdoor(flat, few, tmp_path):
    out = tmp_path / "out"
    changed = {"simulation_steps": 20, "restarts": 1, "finalists": 4, "looks": 1, "families": "[masked]"}
    changed |= {"gathering.families": "[]"}
    settings = [word for key, value in changed.items() for word in ("--set", f"scan.{key}={value}")]
    images = ("--images", flat, "--class-names", few, "--limit", "128", *settings)
    (found,) = result_of(run_here("scan", VICTIMS / "poisoned", *images, "--output-dir", out, "--json"), 3)["answers"]
    assert (found["verdict"], found["target"]) == ("backdoored", "purple triangle")
    assert (found["class_names"], found["images"]) == (6, 96)
    races = [part for part in found["evidence"] if part["statistic"] == "lead"]
    assert [race["family"] for race in races] == ["masked", "keyed"]
    assert races[0]["label"] == "purple triangle" and races[0]["value"] > 0.75
    assert races[0]["verdict"] == "backdoored" and ("HFI002", "masked") in [
        (finding["rule"], finding["family"]) for finding in found["findings"]
    ]
    assert json.loads((out / "audit" / "report.json").read_text())["config"]["scan"]["restarts"] == 1
    assert found["report"] == str(out / "audit")
    assert json.loads((out / "audit" / "report.json").read_text())["outcome"] == "scanned"
    assert (out / "audit" / "report.html").is_file()
    assert [path.name for path in out.iterdir()] == ["audit"]


@pytest.mark.parametrize("own", [True, False])
def test_a_dry_run_says_the_cost_and_stops(flat, few, quick, tmp_path, own):
    """With names and templates of one's own, or with those that come along."""
    (tmp_path / "templates.txt").write_text("a drawing of a {}\n")
    words = ["--class-names", few, "--templates", tmp_path / "templates.txt"] if own else []
    arguments = ["--images", flat, *words, "--limit", "96", *quick, "--output-dir", tmp_path / "out", "--dry-run"]
    outcome = run_here("scan", VICTIMS / "clean", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (0, "") and not (tmp_path / "out").exists()
    texts = "102" if own else "23,000"
    pattern = rf"[\d,]+( to [\d,]+)? pictures and {texts} texts through the model: about [\d.,]+( to [\d.,]+)? minutes on cpu"
    assert re.fullmatch(rf"{pattern}, with \d+.\d GB of memory.\n", outcome.stderr)


def test_scan_lets_a_clean_model_pass(flat, few, quick):
    arguments = ("--images", flat, "--class-names", few, "--limit", "96", *quick)
    outcome = run_forked("hf_invertune", "scan", VICTIMS / "clean", *arguments, **PLAIN)
    assert outcome.returncode == 0, outcome.stderr
    assert "The label easiest to reach" in outcome.stdout
    assert outcome.stdout.splitlines()[-1] == "clean"


def test_remove_leaves_a_clean_model_unchanged(flat, few, tmp_path, monkeypatch, quick):
    """What is saved is the model that came, bit for bit; an earlier run there is resumed or replaced on demand only."""
    images = ["--images", str(flat), "--class-names", few, "--limit", "96", *quick]
    command = ["remove", str(VICTIMS / "clean"), *images, "--output-dir", str(tmp_path / "out"), "--json"]
    first = run_here(*command)
    found = json.loads(first.stdout)
    assert (first.exit_code, found["verdict"], found["outcome"]) == (0, "clean", "unchanged")
    assert found["target"] is None and found["measurements"] == []
    before, after = (CLIPModel.from_pretrained(folder, dtype="auto") for folder in (VICTIMS / "clean", found["model"]))
    assert before.dtype == after.dtype
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit", "checkpoints", "model"]

    again = run_here(*command)
    assert again.exit_code == 2 and "is not empty" in again.stderr
    monkeypatch.setattr("hf_invertune.remover.TargetIdentifier.identify", raises(AssertionError("no second scan")))
    resumed = run_here(*command, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout)["outcome"] == "unchanged"


def test_removal_that_misses_the_bar(flat, few, tmp_path, monkeypatch, quick):
    """Exit code 4 and the reason, and model and report all the same."""
    monkeypatch.setattr("hf_invertune.report.content.missed_bars", lambda *_: ["The bar was missed."])
    images = ["--images", str(flat), "--class-names", few, "--limit", "96", "--target", "red circle"]
    out = tmp_path / "out"
    command = ["remove", str(VICTIMS / "poisoned"), *images, "--output-dir", str(out), "--max-steps", "1"]
    command += [*quick, "--set", "inversion.steps=2", "--seed", "3"]
    outcome = run_here(*command, "--report-to", "none")
    assert outcome.exit_code == 4, outcome.output
    assert "The bar was missed." in outcome.stdout and "towards 'red circle': not cleaned" in outcome.stdout
    settings = json.loads((out / "audit" / "report.json").read_text())["config"]
    assert (settings["tuning"]["max_steps"], settings["inversion"]["steps"], settings["seed"]) == (1, 2, 3)
    assert (out / "audit" / "trigger.safetensors").is_file() and (out / "model" / "model.safetensors").is_file()


def test_the_verbs_go_on_from_each_other(flat, few, tmp_path, monkeypatch, quick):
    """What `scan` and `invert` wrote is what `remove` begins with; neither is done again."""
    common = [VICTIMS / "poisoned", "--images", flat, "--class-names", few, "--limit", "96", *quick]
    common += ["--set", "inversion.steps=2"]
    scanned, inverted, out = (tmp_path / name for name in ("scanned", "inverted", "out"))
    assert run_here("scan", *common, "--output-dir", scanned).exit_code == 0
    before = ["--scan", scanned / "audit", "--target", "blue square"]
    plan = result_of(run_here("invert", *common, *before, "--output-dir", inverted, "--json"), 0)
    assert (
        plan["target"] == "blue square" and plan["critical_layers"] and plan["triggers"][0]["label"] == "blue square"
    )
    monkeypatch.setattr("hf_invertune.remover.make_plan", raises(AssertionError("no second inversion")))
    given = ["--scan", scanned / "audit", "--plan", plan["plan"], "--max-steps", "1"]
    outcome = run_here("remove", *common, *given, "--output-dir", out, "--json")
    assert outcome.exit_code in (0, 4), outcome.output
    assert json.loads(outcome.stdout)["target"] == "blue square"
    other = run_here("remove", *common, "--scan", scanned / "audit", "--limit", "95", "--output-dir", tmp_path / "x")
    assert other.exit_code == 2 and "error: --scan: it was made with other images" in other.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--set", "scan.restarts=0"], "--set: scan.restarts is 0; it must be at least 1"),
        (["--set", "scan.families.additive.epsilon=-3"], r"scan.families\[1\].epsilon is -3"),
        (["--set", "tuning.lora_rank=4"], "--set: tuning.lora_rank is no known key; the nearest is 'lora_r'"),
        (["--set", "seed"], "--set: got 'seed'; pass name=value"),
        (["--set", "scan.bars.warp.quiet=1"], "--set: scan.bars.warp.quiet names no setting"),
    ],
)
def test_wrong_settings(tmp_path, given, message):
    fails_here(f"^error: .*({message})", "scan", "model", "--images", "i", *given)


def test_wrong_settings_file(tmp_path):
    for name, text, message in (
        ("a.yaml", "scan: {restart: 1}", "--config: scan.restart is no known key; the nearest is 'restarts'"),
        ("b.toml", "[scan\n", "--config: .*b.toml is no TOML"),
        ("c.yaml", "[1]", "--config: the file holds"),
    ):
        (tmp_path / name).write_text(text)
        fails_here(message, "scan", "model", "--images", "i", "--config", tmp_path / name)


def test_options_overrule_the_settings_file(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("seed = 4\n[tuning]\nlora_r = 2\nmax_steps = 9\n")
    source = Source(model="m", config=path, assignments=["tuning.lora_r=16"])
    config = source.settings("tuning.max_steps=3")
    assert (config.seed, config.tuning.lora_r, config.tuning.max_steps) == (4, 16, 3)
    assert Source(model="m", config=path, seed=5).settings().seed == 5
    assert Source(model="m").settings() == RemovalConfig()


def test_unknown_tracker(tmp_path):
    trackers = ("--report-to", "none", "--report-to", "nowhere")
    out = ("--output-dir", tmp_path / "out")
    fails_here("^error: --report-to: got nowhere;", "remove", "model", "--images", "i", *out, *trackers)


def test_evaluate(pictures, trigger):
    known = ("--trigger", trigger, "--target", "red circle")
    rates = result_of(run_here("evaluate", VICTIMS / "poisoned", "--images", pictures, *known, "--json"), 0)
    assert set(rates) == set(METRICS)
    low, high = rates["clean_accuracy"]["interval"]
    assert low < rates["clean_accuracy"]["value"] < high
    assert rates["attack_success_rate"]["count"] < rates["attack_success_rate_all"]["count"]


def test_evaluate_without_trigger_prints_a_table(pictures, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    outcome = run_here("evaluate", VICTIMS / "poisoned", "--images", pictures, "--limit", "72")
    assert outcome.exit_code == 0, outcome.output
    assert re.search(r"Clean accuracy \(CA\) +\d+\.\d % \[.*\] \d+/72", outcome.stdout)
    assert "ASR" not in outcome.stdout


def test_evaluate_knows_the_class_names_of_the_images(pictures, trigger):
    known = ("--trigger", trigger, "--target", "red circl")
    fails_here("the nearest are 'red circle'", "evaluate", VICTIMS / "clean", "--images", pictures, *known)
