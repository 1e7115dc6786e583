"""`hf-invertune scan` of one model, started as `accelerate launch` starts it: the processes share the search."""

import json

import pytest
import yaml
from fleets import QUICK
from forked import run_forked, run_two_ranks
from tiny import CLASS_NAMES
from tiny_plan import pictures, save_pictures


@pytest.fixture
def command(tiny_folder, tmp_path):
    save_pictures(pictures(16), tmp_path / "pictures")
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    words = ["scan", tiny_folder, "--images", tmp_path / "pictures", "--class-names", ",".join(CLASS_NAMES)]
    return [*words, "--config", tmp_path / "quick.yaml", "--format", "json"]


def test_the_main_process_gives_the_answer(command, tmp_path):
    """The verdict and the figures of one process; and again from the cache, which both look into."""
    alone = json.loads(run_forked("hf_invertune", *command, "--no-cache").stdout)["answers"][0]
    for name, said in (("first", True), ("second", False)):
        main, other = run_two_ranks("hf_invertune", *command, "--output-dir", tmp_path / name)
        assert other.returncode == 0 and other.stdout == "", other.stderr[-3000:]
        (answer,) = json.loads(main.stdout)["answers"]
        assert (answer["verdict"], answer["target"]) == (alone["verdict"], alone["target"])
        values = [[part["value"] for part in one["evidence"]] for one in (answer, alone)]
        assert values[0] == pytest.approx(values[1], rel=1e-3)
        assert ("pictures and" in main.stderr) is said  # what it will cost is said by one, before a scan alone
        assert "pictures and" not in other.stderr
        assert (tmp_path / name / "audit" / "report.json").is_file()
