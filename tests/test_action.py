"""action.yml and the workflow that uses it: their shell steps are run here, on tiny models."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fleets import QUICK
from tiny_plan import pictures, save_pictures


ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOW = yaml.safe_load((ROOT / "examples" / "scan_workflow.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
ALWAYS = {"quiet": -1e9, "suspicious": -1e9}


def run(step, folder, values, before=Path(sys.executable).parent, **more):
    """The step's script under bash as a runner starts it, with `values` for the expressions of its environment, and programs of `before` first."""
    output = folder / "github-output"
    output.touch()
    given = {
        name: re.sub(r"\$\{\{ (.+?) \}\}", lambda m: values[m[1]], text) for name, text in step.get("env", {}).items()
    }
    path = f"{before}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**os.environ, "PATH": path, **given, **more, "GITHUB_OUTPUT": str(output), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done, dict(line.split("=", 1) for line in output.read_text().splitlines())


def inputs(**given):
    values = {f"inputs.{name}": one.get("default", "") for name, one in ACTION["inputs"].items()}
    return values | {f"inputs.{name.replace('_', '-')}": value for name, value in given.items()}


@pytest.fixture
def project(tmp_path):
    """A repository with pictures, and with settings by which a scan takes no time and finds something everywhere."""
    save_pictures(pictures(12), tmp_path / "pictures")
    scan = {**QUICK["scan"], "bars": {"additive": ALWAYS}}
    (tmp_path / "hf-invertune.toml").write_text("[settings.scan]\n" + _toml(scan))
    return tmp_path


def _toml(settings):
    return "".join(f"{name} = {_inline(value)}\n" for name, value in settings.items())


def _inline(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_inline(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)


def test_scan_step(project, tiny_folder):
    token = "hf_" + "a1B2" * 8
    values = inputs(models=f"{tiny_folder}\n", images="pictures", class_names="cat,dog", token=token)
    done, outputs = run(STEPS["Scan"], project, values)
    assert done.returncode == 3, done.stderr
    assert outputs == {"exit-code": "3", "answer": "hf-invertune.sarif"}
    sarif = (project / "hf-invertune.sarif").read_text()
    assert json.loads(sarif)["runs"][0]["results"][0]["ruleId"] == "HFI002"
    assert token not in done.stdout + done.stderr + sarif


@pytest.fixture
def stub(project):
    """A folder with an `hf-invertune` that writes down its words, and whether there is a token, and ends with 5."""
    folder = project / "bin"
    folder.mkdir()
    (folder / "hf-invertune").write_text(
        '#!/usr/bin/env bash\nprintf "%s\\n" "$@" > words\necho "${HF_TOKEN-none}" > token\nexit 5\n'
    )
    (folder / "hf-invertune").chmod(0o755)
    return folder


def test_inputs_are_words_for_the_scan_and_no_commands(project, stub):
    """Whatever they look like; and none is pasted into a script."""
    evil = '$(touch owned) "; touch owned; `touch owned`'
    values = inputs(models="org/one\norg/two --fail-on never", images="a b", class_names=evil, fail_on="backdoored")
    done, outputs = run(STEPS["Scan"], project, values, before=stub)
    assert done.returncode == int(outputs["exit-code"]) == 5
    assert (project / "words").read_text().splitlines() == [
        *("scan", "--fail-on", "backdoored", "--format", "sarif", "--output", "hf-invertune.sarif"),
        *("--images", "a b", "--class-names", evil, "--", "org/one", "org/two", "--fail-on", "never"),
    ]
    assert (project / "token").read_text() == "none\n" and not (project / "owned").exists()
    for step in [*ACTION["runs"]["steps"], *WORKFLOW["jobs"]["scan"]["steps"]]:
        assert "${{" not in step.get("run", "")


def test_an_output_of_several_lines_sets_no_other_output(project, stub):
    done, outputs = run(STEPS["Scan"], project, inputs(output="a.sarif\nanswer=b"), before=stub)
    assert done.returncode == 2 and done.stderr == "output: got a name of several lines; pass one.\n"
    assert outputs == {} and not (project / "words").exists()


def test_an_answer_that_is_there_is_not_taken_for_this_scans(project, stub):
    """The stub writes none."""
    (project / "hf-invertune.sarif").write_text("old")
    run(STEPS["Scan"], project, inputs(models="org/one"), before=stub)
    assert not (project / "hf-invertune.sarif").exists()


def test_install_step(project):
    """With pip's own dry run, of a package that is there, and beside a folder that has pip's name."""
    (project / "pip").mkdir()
    (project / "pip" / "__main__.py").write_text("raise SystemExit('another pip')")
    done, _ = run(STEPS["Install"], project, inputs(package="typer"), PIP_DRY_RUN="1", PIP_NO_INDEX="1")
    assert done.returncode == 0, done.stderr


def test_the_action_installs_the_commit_that_it_is_of(project):
    pip = project / "python"
    pip.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" > words\n')
    pip.chmod(0o755)
    run(STEPS["Install"], project, inputs(), before=project, GITHUB_ACTION_PATH="/actions/one commit")
    assert (project / "words").read_text().splitlines() == ["-P", "-m", "pip", "install", "/actions/one commit"]


def test_workflow(project):
    """It gives the action inputs that it has, and the step before names the models of the list."""
    steps = {step.get("name"): step for step in WORKFLOW["jobs"]["scan"]["steps"]}
    assert steps["Scan"]["with"].keys() <= ACTION["inputs"].keys()
    assert steps["Show the findings under Security"]["with"]["sarif_file"] == ACTION["inputs"]["output"]["default"]
    (project / "models.txt").write_text("# ours\norg/one\norg/two\n")
    done, outputs = run(steps["Name the models"], project, {})
    assert done.returncode == 0 and outputs["names"].split() == ["org/one", "org/two"]
