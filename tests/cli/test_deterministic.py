"""Two runs of one command give the same bits: triggers, adapter, model and all that the report says but for times."""

import json

import pytest
import torch
import yaml
from fleets import QUICK
from forked import run_forked
from PIL import Image
from tiny import CLASS_NAMES
from tiny_plan import pictures

from hf_invertune.utils.files import json_digest


TIMES = {"seconds", "created"}


@pytest.fixture
def command(tiny_folder, tmp_path):
    """A removal of a few steps."""
    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(pictures(24).pixels):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / "pictures" / f"{index}.png")
    settings = {**QUICK, "inversion": {"steps": 2}, "audit": {"minimum_images": 16}}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(settings))
    words = ["remove", tiny_folder, "--images", tmp_path / "pictures", "--class-names", ",".join(CLASS_NAMES)]
    words += ["--config", tmp_path / "quick.yaml", "--target", CLASS_NAMES[1], "--max-steps", "3"]
    return [*words, "--set", "tuning.search_steps=2", "--deterministic"]


def without_times(value):
    if isinstance(value, dict):
        kept = {name: item for name, item in value.items() if name not in TIMES}
        return {
            name: without_times(item) for name, item in kept.items() if not name.endswith(("runtime", "_per_second"))
        }
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_two_runs_give_the_same_bits(command, tmp_path):
    given = []
    for name in ("one", "two"):
        done = run_forked("hf_invertune", *command, "--output-dir", tmp_path / name)
        assert done.returncode in (0, 4), done.stderr
        report = json.loads((tmp_path / name / "audit" / "report.json").read_text())
        files = ["model/model.safetensors", "adapter/adapter_model.safetensors", "audit/trigger.safetensors"]
        given.append((json_digest(without_times(report)), *((tmp_path / name / file).read_bytes() for file in files)))
    assert given[0] == given[1]


def test_what_differs_from_run_to_run_is_refused(monkeypatch):
    from hf_invertune.cli.options import Given

    asked = []
    monkeypatch.setattr("transformers.enable_full_determinism", asked.append)
    Given(seed=5).settings()
    assert asked == []
    Given(seed=5, deterministic=True).settings()
    assert asked == [5] and not torch.are_deterministic_algorithms_enabled()
