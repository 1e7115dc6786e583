"""The tables of the README and the docs say what the committed result files say."""

import re

import arena_plots
import arena_tables
import glance
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
    old.add(row("badnet-0", "hf_invertune", after=quality(90, (77, 1, 20)), created="2026-11-23T10:00:00+00:00"))
    old.add(row("badnet-0", "none", after=quality(90, (98, 1, 5))))
    return tmp_path


def test_the_summary_counts_who_was_assured_over_a_live_backdoor(present):
    rows = {line.split(" | ")[0].strip("| *"): line.split(" | ")[1:] for line in arena_summary().splitlines()[2:]}
    assert list(rows) == ["none", "hf_invertune, 23 November", "hf_invertune**, this version"]
    victims, before, after, floor, change, live, assured, _ = rows["hf_invertune**, this version"]
    assert (victims, before, after, floor, change) == ("3", "98.0", "46.7", "1.0", "−1.0")
    assert (live, assured) == ("2", "1") and rows["none"][5:7] == ["1", "says nothing"]


def test_the_glance_has_a_dot_for_each_defence_of_a_world(present):
    """It follows the result files: with those of a later run alone ours is one dot, and the only one of ours."""
    none, then, now = glance.dots("drawings")
    assert (none.title, none.change, none.left, none.victims) == ("none", 0.0, 98.0, 1)
    assert (then.title, then.change, then.left, then.victims) == ("hf_invertune, 23 November", 0.0, 77.0, 1)
    assert (now.name, now.change, now.victims) == ("hf_invertune", pytest.approx(-1), 3)
    assert now.left == pytest.approx((2 + 98 + 40) / 3) and glance.dots("cifar10") == []
    (present / "present_drawings.jsonl").unlink()
    none, now = glance.dots("drawings")
    assert (now.title, now.left, now.look["markersize"]) == ("hf_invertune", 77.0, 11)


def test_the_glance_is_drawn_the_same_each_time_and_names_every_dot(present):
    chart = glance.glance()
    (axes,) = chart.figure.axes
    assert axes.get_title() == "Drawings, 1 attacked models"
    named = {text.get_text() for text in axes.texts}
    assert named >= {"better", "none", "hf_invertune, 23 November", "hf_invertune\non 3 models"}
    assert chart.png("a") == glance.glance().png("a")
    assert "Drawings, hf_invertune, 3 models: -1.0 points, 46.7 %" in chart.description


def test_names_at_a_glance_stand_on_no_other_name():
    for axes in glance.glance().figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text() and text.arrow_patch is None]
        assert len(boxes) == len(axes.lines)
        assert not any(box.count_overlaps(boxes[place + 1 :]) for place, box in enumerate(boxes))


def test_a_glance_at_other_results_is_stale(present, tmp_path):
    before = glance.sources()
    RunsFile(tmp_path / "arena_drawings.jsonl").add(row("sig-0", "none", after=quality(90, (98, 1, 5))))
    assert glance.sources() != before and arena_plots.GLANCE in arena_plots.stale()


@pytest.mark.parametrize(
    ("days", "title"),
    [
        (["2026-11-23"], "ours, 23 November"),
        (["2026-11-30", "2026-11-23"], "ours, 23 to 30 November"),
        (["2026-12-01", "2026-11-30"], "ours, 30 November to 1 December"),
    ],
)
def test_an_earlier_version_is_told_by_the_days_of_its_runs(days, title):
    rows = [row("sig-0", "hf_invertune", created=f"{day}T10:00:00+00:00") for day in days]
    assert summary_tables.dated("ours", rows) == title


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
