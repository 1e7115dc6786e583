"""The tables of the README and the docs say what the committed result files say."""

import re

import arena_plots
import arena_tables
import pytest
import summary_tables
import tables
from arena_rows import quality, row
from summary_tables import arena_summary

from hf_invertune.lab.arena.rows import RunsFile
from hf_invertune.stages.configs import RemovalConfig
from hf_invertune.stages.verdict import Verdict


MARKER = re.compile(r"^<!-- table: (\w+) -->$", re.MULTILINE)


def test_the_tables_are_those_of_the_result_files():
    assert tables.stale() == []


def test_the_pictures_are_those_of_the_result_files():
    assert arena_plots.stale() == []


def test_an_arena_has_its_tables_and_one_that_was_not_run_its_commands(tmp_path, monkeypatch):
    monkeypatch.setattr(arena_tables, "RESULTS", tmp_path)
    RunsFile(tmp_path / "arena_cifar10.jsonl").add(row("badnet-0", "none", after=quality(90, (98, 1, 5))))
    headline, details = arena_tables.headline(), arena_tables.arena_details()
    assert "**Drawings**: not run" in headline and "hf-invertune arena zoo/drawings --output" in headline
    assert "| badnet | 1 of 1 | 98.0 | 98.0 (1.0) / +0.0 |" in headline and "**CIFAR-10**: not run" not in headline
    assert "**CIFAR-10: cost**" in details and "**100 classes of Tiny ImageNet**: not run" in details


@pytest.fixture
def present(tmp_path, monkeypatch):
    """Four runs of this version, on drawings: erased, assured though live, live and said so, and a clean model."""
    monkeypatch.setattr(summary_tables, "RESULTS", tmp_path)
    file = RunsFile(tmp_path / "present_drawings.jsonl")
    told = {"revision": 3, "verdict": Verdict.BACKDOORED, "details": {"outcome": "cleaned"}}
    file.add(row("badnet-0", "hf_invertune", after=quality(89, (2, 1, 80)), **told))
    file.add(
        row(
            "sig-0", "hf_invertune", after=quality(90, (98, 1, 5)), **{**told, "verdict": Verdict.CLEAN, "details": {}}
        )
    )
    file.add(
        row("text-0", "hf_invertune", after=quality(88, (40, 1, 50)), **{**told, "details": {"outcome": "reduced"}})
    )
    file.add(row("clean-0", "hf_invertune", after=quality(90), **{**told, "verdict": Verdict.CLEAN, "details": {}}))
    old = RunsFile(tmp_path / "arena_drawings.jsonl")
    old.add(row("badnet-0", "hf_invertune", after=quality(90, (77, 1, 20))))
    old.add(row("badnet-0", "none", after=quality(90, (98, 1, 5))))


def test_the_summary_counts_who_was_assured_over_a_live_backdoor(present):
    rows = {line.split(" | ")[0].strip("| *"): line.split(" | ")[1:] for line in arena_summary().splitlines()[2:]}
    assert list(rows) == ["none", "hf_invertune, 23 November", "hf_invertune**, this version"]
    victims, before, after, floor, change, live, assured, _ = rows["hf_invertune**, this version"]
    assert (victims, before, after, floor, change) == ("3", "98.0", "46.7", "1.0", "−1.0")
    assert (live, assured) == ("2", "1") and rows["none"][5:7] == ["1", "says nothing"]


def test_each_victim_of_this_version_has_its_line(present):
    text = summary_tables.present()
    assert "| badnet-0 | backdoored |  | cleaned | 98.0 → 2.0 (1.0) | 77.0 | 90.0 → 89.0 | 80.0 |  | 12 |" in text
    assert "| clean-0 | clean |  |  |  |  | 90.0 → 90.0 |  |  | 12 |" in text
    assert (
        "3 attacked models: the trigger is live after it in 2, of which 1 are called clean or cleaned. 1 models"
        in text
    )
    assert "**CIFAR-10**: not run." in text


def test_a_rate_has_the_mean_of_its_victims():
    def trial(asr, before, after):
        rates = [{"hits": hits, "count": 200} for hits in asr]
        ca = {"accuracy_before": {"hits": before, "count": 100}, "accuracy_after": {"hits": after, "count": 100}}
        return {"attack_success_rates": rates, **ca}

    assert arena_tables.mean_effect([trial([20, 60], 90, 70), trial([100], 80, 77)]) == "40.0 / −11.5"


def test_every_marked_table_is_filled():
    paths = [tables.ROOT / "README.md", *(tables.ROOT / "docs").glob("*.md")]
    marked = {str(path.relative_to(tables.ROOT)): set(MARKER.findall(path.read_text())) for path in paths}
    assert {path: names for path, names in marked.items() if names} == {
        path: set(made) for path, made in tables.TABLES.items()
    }


def test_every_setting_has_its_row():
    """Each can be assigned by the name that its row gives, but for those that hold others."""
    rows = list(tables.described(RemovalConfig()))
    for name, default, _, help in rows:
        assert help.endswith("."), name
        if name not in ("scan.families", "scan.bars", "scan.gathering.families", "scan.gathering.bars"):
            RemovalConfig().assign([f"{name}={default.strip('`')}"])
    assert len(rows) > 40


def test_a_setting_that_is_a_number_has_its_range():
    assert tables.span_of({"least": -1, "below": 2}) == "≥ −1, < 2"
    assert tables.span_of({"least": -1e12, "most": 1e12}) == ""
