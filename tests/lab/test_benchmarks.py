"""The tables of the README and the docs say what the committed result files say."""

import arena_plots
import tables
from arena_rows import quality, row

from hf_invertune.lab.arena.rows import RunsFile


def test_the_tables_are_those_of_the_result_files():
    assert tables.stale() == []


def test_the_pictures_are_those_of_the_result_files():
    assert arena_plots.stale() == []


def test_an_arena_has_its_tables_and_one_that_was_not_run_its_commands(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    RunsFile(tmp_path / "arena_cifar10.jsonl").append(row("badnet-0", "none", after=quality(90, (98, 1, 5))))
    headline, details = tables.headline(), tables.arena_details()
    assert "**Drawings**: not run" in headline and "hf-invertune arena zoo/drawings --output" in headline
    assert "| badnet | 1 of 1 | 98.0 | 98.0 (1.0) / +0.0 |" in headline and "**CIFAR-10**: not run" not in headline
    assert "**CIFAR-10: cost**" in details and "**100 classes of Tiny ImageNet**: not run" in details


def test_a_rate_has_the_mean_of_its_victims():
    def trial(asr, before, after):
        rates = [{"hits": hits, "count": 200} for hits in asr]
        ca = {"accuracy_before": {"hits": before, "count": 100}, "accuracy_after": {"hits": after, "count": 100}}
        return {"attack_success_rates": rates, **ca}

    assert tables.mean_effect([trial([20, 60], 90, 70), trial([100], 80, 77)]) == "40.0 / −11.5"
