"""One bar for a whole scan, which counts what it learns on and says what is done just now."""

import re
from functools import partial

import pytest

from hf_invertune.utils import progress as module
from hf_invertune.utils.progress import advance, progress, whole


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """Bars, which tqdm was told at its import to leave out."""
    monkeypatch.setattr(module, "tqdm", partial(module.tqdm, disable=False, mininterval=0))


def test_within_a_whole_there_is_one_bar(capsys):
    with whole(40, "Scanning"):
        for _ in progress(range(4), "Inverting 3 masked trigger(s)"):
            advance(10)
    told = capsys.readouterr()
    bars = [line for line in re.split(r"[\r\n]", told.err) if line.strip()]
    assert told.out == "" and all(line.startswith("Scanning") for line in bars)
    assert "Inverting 3 masked trigger(s)" in bars[-1] and "40.0/40.0" in bars[-1]


def test_more_than_was_expected_makes_it_longer(capsys):
    with whole(10, "Scanning"):
        advance(25)
    assert "25.0/25.0" in capsys.readouterr().err


def test_outside_each_stage_has_its_bar(capsys):
    assert list(progress([1, 2], "Reading")) == [1, 2]
    advance(5)
    assert "Reading: 100%" in capsys.readouterr().err


def test_a_scan_reaches_the_end_of_its_bar(tiny, capsys):
    """All that it learns on is counted, no more than was foreseen, when each race decides at its first look."""
    from searches import search

    search(tiny)
    bars = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if line.strip()]
    assert all(line.startswith("Scanning") for line in bars)
    done, total = re.search(r"\| ([\d.]+k?)/([\d.]+k?) ", bars[-1]).groups()
    assert done == total
