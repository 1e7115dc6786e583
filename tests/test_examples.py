import ast
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from forked import run_forked
from PIL import Image
from tiny import CLASS_NAMES
from tiny_plan import pictures, scan_config
from transformers import CLIPModel

import hf_invertune
from hf_invertune.answers.gate import ORDER
from hf_invertune.errors import ExitCode
from hf_invertune.lab.demo import demo_victim
from hf_invertune.models.evaluation import Metrics
from hf_invertune.models.loading import state_digest
from hf_invertune.stages.configs import ScanConfig
from hf_invertune.stages.identification import ScanResult
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.localization import CriticalNeurons
from hf_invertune.stages.plan import TuningPlan


EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def folder(tmp_path):
    """Clean pictures, one sub-folder a class."""
    data = pictures(16)
    for index, (pixels, label) in enumerate(zip(data.pixels, data.labels.tolist(), strict=True)):
        place = tmp_path / "pictures" / CLASS_NAMES[label] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place)
    return tmp_path / "pictures"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_header_and_imports(script):
    """A PEP 723 header, a docstring, and nothing heavy imported before `main`."""
    text = script.read_text()
    assert text.startswith('# /// script\n# requires-python = ">=3.11"\n# dependencies = ["hf-invertune"]\n# ///\n')
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    imported = {
        name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    bases = {"hf_invertune", "torch"} if script.stem == "benchmark_a_defence" else set()  # of its class
    assert imported <= {"argparse", "dataclasses", "pathlib", "sys"} | bases


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_public_names_alone(script):
    """An example imports what is exported from the package's top, and nothing else of it."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_invertune"):
            assert node.module == "hf_invertune", node.module
            assert {alias.name for alias in node.names} <= set(hf_invertune.__all__)


def launch_two(script):
    """`accelerate launch` with two processes."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--main_process_port", 0]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = list(map(str, [sys.executable, *launch, *script]))
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("processes", [1, 2])
def test_remove_backdoor(tiny_folder, folder, tmp_path, processes):
    """One process and two save a merged model of their own making, in the dtype and with the settings it came with."""
    out = tmp_path / "out"
    small = [
        "--set",
        "inversion.steps=2",
        "--max_steps",
        2,
        "--save_strategy",
        "no",
        "--per_device_train_batch_size",
        4,
    ]
    arguments = ["--model", tiny_folder, "--images", folder, "--output_dir", out, "--target", "blue square", *small]
    arguments += ["--class_names", *CLASS_NAMES]  # which this model, being random, does not read
    script = [EXAMPLES / "remove_backdoor.py", *arguments, "--use_cpu", "true"]
    outcome = launch_two(script) if processes == 2 else run_forked(*script)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.count("target: blue square") == 1  # the main process alone reports
    assert "CA " in outcome.stdout and "ASR " in outcome.stdout
    original, saved = CLIPModel.from_pretrained(tiny_folder), CLIPModel.from_pretrained(out / "model")
    assert state_digest(saved, torch.float32) != state_digest(original, torch.float32)
    assert saved.state_dict().keys() == original.state_dict().keys()
    CLIPModel.from_pretrained(tiny_folder, dtype="auto").save_pretrained(tmp_path / "plain")
    before, after = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "plain", out / "model"))
    assert after == before
    assert (out / "model" / "processor_config.json").is_file()


def test_scan_in_ci(tiny_folder, folder, tmp_path):
    """The exit code says the verdict that the report tells."""
    report = tmp_path / "report"
    settings = tmp_path / "quick.yaml"
    settings.write_text(yaml.safe_dump({"scan": scan_config(bars=ScanConfig().bars).plain()}))
    small = ["--config", settings, "--report", report, "--class_names", *CLASS_NAMES]
    outcome = run_forked(EXAMPLES / "scan_in_ci.py", "--model", tiny_folder, "--images", folder, *small)
    verdict = json.loads((report / "report.json").read_text())["scan"]["verdict"]
    assert outcome.returncode == {"clean": 0, "backdoored": 3, "inconclusive": 5}[verdict], outcome.stderr
    assert outcome.stdout.startswith(verdict)


@pytest.mark.parametrize(("verdict", "code"), [("clean", 0), ("inconclusive", 5), ("backdoored", 3), (None, 2)])
def test_exit_code_of_scan_in_ci(tiny_folder, folder, tmp_path, monkeypatch, capsys, verdict, code):
    model = tmp_path / "nowhere" if verdict is None else tiny_folder
    settings = tmp_path / "forced.yaml"
    settings.write_text(yaml.safe_dump({"scan": scan_config(verdict or "clean").plain()}))
    arguments = ["--model", model, "--images", folder, "--report", tmp_path / "report", "--config", settings]
    arguments += ["--class_names", *CLASS_NAMES]
    monkeypatch.setattr(sys, "argv", ["scan_in_ci.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(EXAMPLES / "scan_in_ci.py"), run_name="__main__")
    assert stop.value.code == code
    shown = capsys.readouterr()
    assert shown.out.startswith(verdict) if verdict else "`model`" in shown.err and not shown.out


def test_scan_in_ci_names_every_code_that_a_scan_may_end_with():
    said = ast.get_docstring(ast.parse((EXAMPLES / "scan_in_ci.py").read_text())).partition("Exit codes")[2]
    codes = {int(code) for code in re.findall(r"\b\d+\b", said)}
    assert codes == set(ORDER)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("benchmark_a_defence", ["--zoo", "nowhere"]),
        ("remove_backdoor", ["--model", "./nowhere"]),
        ("scan_in_ci", ["--model", "./nowhere"]),
        ("step_by_step", ["--set", "scan.families=[warped]"]),
    ],
)
def test_wrong_input_ends_as_on_the_command_line(tmp_path, script, arguments):
    output = {"remove_backdoor": ["--output_dir", tmp_path / "out", "--use_cpu", "true"]}.get(script, [])
    outcome = run_forked(EXAMPLES / f"{script}.py", *arguments, *output)
    assert (outcome.returncode, outcome.stdout) == (ExitCode.WRONG_INPUT, ""), outcome.stderr
    assert outcome.stderr.startswith("error: ") and "Traceback" not in outcome.stderr


def test_step_by_step(tmp_path):
    small = ["--target", "purple triangle", "--set", "scan.families=[masked]", "scan.steps=[1,1]", "scan.words=[]"]
    small += ["scan.gathering.families=[]", "scan.simulation_steps=1", "inversion.steps=2", "tuning.max_steps=2"]
    outcome = run_forked(EXAMPLES / "step_by_step.py", "--output_dir", tmp_path, *small)
    assert outcome.returncode == 0, outcome.stderr
    scan, inverted = ScanResult.load(tmp_path / "1-scan"), InvertedTrigger.load(tmp_path / "2-inversion")
    assert len(scan.class_names) == 36 and scan.class_names[inverted.label] == "purple triangle"
    critical, plan = CriticalNeurons.load(tmp_path / "3-localization"), TuningPlan.load(tmp_path / "4-tuning")
    assert plan.critical == critical and plan.target == inverted.label
    before, after = (Metrics.load(tmp_path / f"metrics-{when}") for when in ("before", "after"))
    assert before.clean_accuracy.value > 0.9 and after.attack_success_rate.count == before.attack_success_rate.count
    original = CLIPModel.from_pretrained(demo_victim("poisoned"), dtype="auto")
    saved = CLIPModel.from_pretrained(tmp_path / "5-model", dtype="auto")
    assert saved.dtype == original.dtype
    assert state_digest(saved, saved.dtype) != state_digest(original, original.dtype)
