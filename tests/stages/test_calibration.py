import math

import pytest
import torch

from hf_invertune.errors import InputError
from hf_invertune.stages import calibration
from hf_invertune.stages.calibration import SCALES, Null, bars_at, chance_of, nulls
from hf_invertune.stages.configs import FALSE_ALARMS, RemovalConfig, ScanConfig
from hf_invertune.stages.gathering import Gathering
from hf_invertune.stages.verdict import CALIBRATION, Evidence, chance
from hf_invertune.triggers import BlendTrigger


def test_one_more_clean_model_is_beyond_the_bound_as_often_as_asked():
    """Eight models and one more, drawn 20,000 times from one normal law."""
    drawn = torch.randn(20_000, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.2 + 1
    known, new = drawn[:, :8], drawn[:, 8]
    bound = Null("world", 8, 0.0, 1.0).beyond(0.05)
    rate = float((new > known.mean(1) + bound * known.std(1)).double().mean())
    assert rate == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("statistic", SCALES)
@pytest.mark.parametrize("rate", [0.2, 0.01])
def test_a_value_at_the_bar_has_the_chance_that_was_asked_for(statistic, rate):
    for family, (quiet, suspicious) in bars_at(statistic, rate).items():
        assert chance_of(statistic, family, quiet) == pytest.approx(rate, rel=0.1)
        assert chance_of(statistic, family, suspicious) == pytest.approx(0.1 * rate, rel=0.1)


@pytest.mark.parametrize("statistic", SCALES)
def test_there_and_back(statistic):
    there, back = SCALES[statistic]
    assert back(there(0.37)) == pytest.approx(0.37)


def test_the_world_in_which_clean_models_go_furthest_counts(monkeypatch):
    worlds = {"near": Null("near", 8, 0.1, 0.1), "far": Null("far", 8, 0.5, 0.1)}
    monkeypatch.setattr(calibration, "nulls", lambda: {("lead", "masked"): list(worlds.values())})
    assert bars_at("lead", 0.01) == {
        "masked": (
            pytest.approx(math.expm1(worlds["far"].beyond(0.01)), abs=1e-3),
            pytest.approx(math.expm1(worlds["far"].beyond(0.001)), abs=1e-3),
        )
    }
    assert chance_of("lead", "masked", math.expm1(0.5)) == pytest.approx(0.5)


def test_the_rate_is_divided_among_all_families(monkeypatch):
    one = bars_at("lead", 0.01)["masked"]
    monkeypatch.setattr(calibration, "nulls", lambda: {("lead", "masked"): nulls()["lead", "masked"]})
    assert bars_at("lead", 0.01)["masked"] < one


def test_every_family_of_a_scan_is_calibrated_and_no_other():
    config = ScanConfig()
    assert set(bars_at("lead", 0.01)) == {*(one.kind for one in config.families), "keyed"}
    assert set(bars_at("concentration", 0.01)) == {one.kind for one in config.gathering.families}
    assert chance_of("lead", "swirl", 3.0) is None


def test_chances_of_evidence():
    place = Gathering("window", BlendTrigger(torch.zeros(3, 2, 2), 0.1), 0.99, 0, 1.0, 0.5, torch.zeros(2))
    assert chance(place) == chance_of("concentration", "window", 0.99) < 1e-3
    race = Evidence("masked", {0: 1.0, 1: 1.2}, 1, [])
    assert chance(race) == pytest.approx(chance_of("lead", "masked", 0.2)) and chance(race) > 0.5


def test_false_alarms_move_all_bars():
    usual, lax = RemovalConfig(), RemovalConfig().with_false_alarms(0.1)
    assert usual == RemovalConfig().with_false_alarms(FALSE_ALARMS)
    for one, other in ((usual.scan.bars, lax.scan.bars), (usual.scan.gathering.bars, lax.scan.gathering.bars)):
        assert all(other[family].quiet < bars.quiet for family, bars in one.items())


@pytest.mark.parametrize("rate", [0, -0.1, 0.6, math.nan])
def test_a_rate_out_of_range(rate):
    with pytest.raises(InputError, match="`false_alarms`: got .*; it must be above 0 and at most 0.5"):
        RemovalConfig().with_false_alarms(rate)


def test_what_the_bars_follow_from_is_said():
    assert "8 of cifar10 and 8 of drawings" in CALIBRATION


@pytest.mark.parametrize(
    ("share", "shown"), [(None, "not known"), (1.0, "100 %"), (0.9964, "100 %"), (0.0291, "2.9 %"), (1e-5, "< 0.01 %")]
)
def test_a_chance_is_shown_with_two_digits(share, shown):
    assert calibration.by_chance(share) == shown
