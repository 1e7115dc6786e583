"""Two runs of one command give the same bits: triggers, adapter, model and all that the report says but for times."""

import pytest
import torch
import yaml
from fleets import QUICK
from forked import run_forked
from killed import outcome
from tiny import CLASS_NAMES
from tiny_plan import pictures, save_pictures


@pytest.fixture
def command(tiny_folder, tmp_path):
    """A removal of a few steps."""
    save_pictures(pictures(24), tmp_path / "pictures")
    settings = {**QUICK, "inversion": {"steps": 2}, "audit": {"minimum_images": 16}}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(settings))
    words = ["remove", tiny_folder, "--images", tmp_path / "pictures", "--class-names", ",".join(CLASS_NAMES)]
    words += ["--config", tmp_path / "quick.yaml", "--target", CLASS_NAMES[1], "--max-steps", "3"]
    return [*words, "--set", "tuning.search_steps=2", "--deterministic"]


def test_two_runs_give_the_same_bits(command, tmp_path):
    given = []
    for name in ("one", "two"):
        done = run_forked("hf_invertune", *command, "--output-dir", tmp_path / name)
        assert done.returncode in (0, 4), done.stderr
        given.append(outcome(tmp_path / name))
    assert given[0] == given[1]


def test_what_differs_from_run_to_run_is_refused(monkeypatch):
    from hf_invertune.cli.options import Given

    asked = []
    monkeypatch.setattr("transformers.enable_full_determinism", asked.append)
    Given(seed=5).settings()
    assert asked == []
    Given(seed=5, deterministic=True).settings()
    assert asked == [5] and not torch.are_deterministic_algorithms_enabled()
