"""One bar for a whole scan, which counts what it learns on and says what is done just now."""

import re

import pytest
from searches import search

from hf_invertune.stages import identification
from hf_invertune.stages.configs import Bars
from hf_invertune.utils import progress as module
from hf_invertune.utils.progress import advance, expect, progress, whole


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """The bars that were shown, in a terminal of 80 columns, which tqdm was told at its import to leave out."""
    made = []

    def make(*steps, **settings):
        bar = tqdm(*steps, **settings, disable=False, mininterval=0, ncols=79)
        bar.foreseen = bar.total
        made.append(bar)
        return bar

    tqdm = module.tqdm
    monkeypatch.setattr(module, "tqdm", make)
    return made


def test_within_a_whole_there_is_one_bar(capsys, shown):
    with whole(40, "Scanning"):
        for _ in progress(range(4), "Simulating a universal blended picture"):  # the longest there is
            advance(10)
    told = capsys.readouterr()
    bars = [line for line in re.split(r"[\r\n]", told.err) if line.strip()]
    assert told.out == "" and all(line.startswith("Scanning") for line in bars)
    assert re.search(r"100%\|█{10}\| 00:00 left, Simulating a universal blended picture", bars[-1])
    assert [(bar.n, bar.total) for bar in shown] == [(40, 40)]


def test_more_than_was_expected_makes_it_longer(shown):
    with whole(10, "Scanning"):
        advance(25)
        assert (shown[0].n, shown[0].total) == (25, 25)
        expect(15)
        assert (shown[0].n, shown[0].total) == (25, 40)
        advance(15)
    assert (shown[0].n, shown[0].total) == (40, 40)


def test_outside_each_stage_has_its_bar(capsys):
    assert list(progress([1, 2], "Reading")) == [1, 2]
    advance(5)
    expect(5)
    assert "Reading: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("looks", [1, 3])
def test_a_scan_reaches_the_end_of_its_bar(tiny, capsys, shown, monkeypatch, looks):
    """The least that it learns on is foreseen when it begins, and another look when that begins."""
    foreseen = []
    monkeypatch.setattr(identification, "expect", lambda pictures: foreseen.append(pictures) or expect(pictures))
    search(tiny, looks, Bars(-1e9, 1e9))
    bars = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if line.strip()]
    assert all(line.startswith("Scanning") for line in bars)
    (bar,) = shown
    behind = (
        2 * 2 * looks
    )  # of each race of masked triggers: one more label goes on, for the steps and batch of its last round
    assert bar.n == bar.total == bar.foreseen + sum(foreseen) + behind and len(foreseen) == 2 * (looks - 1)
