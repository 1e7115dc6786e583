import math

import pytest
import torch

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.evaluation import Measurement, Metrics, Rate
from hf_invertune.stages.configs import AuditConfig, Bars, ScanConfig
from hf_invertune.stages.families import AdditiveFamily, MaskedFamily
from hf_invertune.stages.verdict import (
    Evidence,
    Verdict,
    achieved,
    conclude,
    first_stranger,
    judge,
    missed_bars,
    robust_z,
)


def test_robust_z():
    scores = {7: math.e**2, 3: 1.0, 5: math.e}
    assert robust_z(scores) == pytest.approx({7: 1 / 1.4826, 3: -1 / 1.4826, 5: 0})
    assert list(robust_z(scores)) == [7, 3, 5]
    # logs 0, 2, 3, 7: median 2.5, deviations 2.5, 0.5, 0.5, 4.5, their median 1.5
    even = robust_z({k: math.exp(log) for k, log in enumerate([0, 2, 3, 7])})
    assert even == pytest.approx({0: -2.5 / 2.2239, 1: -0.5 / 2.2239, 2: 0.5 / 2.2239, 3: 4.5 / 2.2239})


def test_robust_z_without_spread():
    assert robust_z({0: 2.0, 1: 2.0, 2: 9.0}) == {0: 0.0, 1: 0.0, 2: 0.0}


BARS = {"masked": Bars(0.5, 1.0), "additive": Bars(2.0, 4.0)}


def evidence(family, label, lead):
    """A family whose easiest label leads label 0, or 1, by that much."""
    rival = 0 if label else 1
    return Evidence(family, {label: 1.0, rival: 1.0 + lead}, rival, [])


@pytest.mark.parametrize(
    ("masked", "additive", "expected"),
    [
        ((1, 0.1), (2, 1.9), (Verdict.CLEAN, None)),
        ((1, 0.1), (2, 2.0), (Verdict.INCONCLUSIVE, 2)),
        ((1, 1.0), (2, 3.9), (Verdict.BACKDOORED, 1)),
        ((1, 1.0), (2, 4.1), (Verdict.BACKDOORED, 2)),
        ((1, 1.1), (2, 4.1), (Verdict.BACKDOORED, 1)),
        ((1, 5.0), (2, 4.0), (Verdict.BACKDOORED, 1)),
        ((3, 0.9), (2, 1.0), (Verdict.INCONCLUSIVE, 3)),
    ],
)
def test_conclude(masked, additive, expected):
    """The gravest verdict counts, and of the families that reach it the one whose lead is furthest beyond its bar."""
    assert (
        conclude(
            [],
            [evidence("masked", *masked), evidence("additive", *additive)],
            ScanConfig((MaskedFamily(), AdditiveFamily()), bars=BARS),
        )
        == expected
    )


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        (0.49, Verdict.CLEAN),
        (0.5, Verdict.INCONCLUSIVE),
        (0.99, Verdict.INCONCLUSIVE),
        (1.0, Verdict.BACKDOORED),
        (math.inf, Verdict.BACKDOORED),
    ],
)
def test_judge(lead, expected):
    assert judge(lead, BARS["masked"]) is expected


# Kin


class Head(ZeroShotClassifier):
    """A classifier that is nothing but its head."""

    def __init__(self, head):
        self.head = head


def lead(scores, kinship=0.25, offset=0.0):
    """The lead among four labels, of which 0 and 1 are kin: cosine 0.98 when centred; 2 and 3 are not."""
    head = Head(torch.tensor([[1.0, 0.0], [0.8, 0.0], [-1.0, -0.2], [-0.8, 0.2]]) + torch.tensor([0.0, offset]))
    easiest = min(scores, key=scores.get)
    found = Evidence("masked", scores, first_stranger(scores, head.kinship(easiest), kinship), [])
    assert found.label == easiest
    return found.lead


def test_lead_passes_over_kin():
    scores = {3: 3.0, 1: 1.1, 0: 1.0, 2: 2.5}
    assert lead(scores) == pytest.approx(1.5)
    assert lead(scores, kinship=1.01) == pytest.approx(0.1)


def test_lead_when_all_are_kin():
    assert lead({0: 2.0, 1: 3.0}) == pytest.approx(0.5)
    assert lead({0: 2.0, 1: 3.0, 2: 8.0}, kinship=-1.01) == pytest.approx(3.0)


def test_kin_are_measured_after_centring():
    """All four embeddings point nearly the same way, as those of a CLIP do."""
    assert lead({0: 1.0, 1: 1.5, 2: 3.0, 3: 4.0}, offset=10.0) == pytest.approx(2.0)


# The bars of a cleaned model


def measured(asr=0, floor=0, clean=(90, 90), agreement=None):
    before = Metrics(
        clean_accuracy=None if agreement else Rate(clean[0], 100),
        attack_success_rate=Rate(100, 100),
        target_rate=Rate(floor, 100),
    )
    after = Metrics(
        clean_accuracy=None if agreement else Rate(clean[1], 100),
        agreement=agreement,
        attack_success_rate=Rate(asr, 100),
        target_rate=Rate(floor, 100),
    )
    return Measurement("inverted, masked", before, after, "0" * 64)


@pytest.mark.parametrize(
    ("given", "second", "expected"),
    [
        ({"asr": 5}, Verdict.CLEAN, []),
        ({"asr": 9, "floor": 4}, Verdict.INCONCLUSIVE, ["A second scan is inconclusive about 'cat'."]),
        ({"asr": 10, "floor": 4}, Verdict.CLEAN, ["Trigger 'inverted, masked' still succeeds on 6.0% of the images."]),
        ({"clean": (90, 84)}, Verdict.CLEAN, ["Clean accuracy fell by 6.0 points."]),
        ({"agreement": Rate(81, 100)}, Verdict.CLEAN, []),
        ({"agreement": Rate(79, 100)}, Verdict.CLEAN, ["The cleaned model agrees with the original on only 79.0%."]),
        ({}, Verdict.BACKDOORED, ["A second scan still finds a backdoor, towards 'cat'."]),
    ],
)
def test_missed_bars(given, second, expected):
    assert missed_bars([measured(**given)] * 2, second, "cat", AuditConfig()) == expected


@pytest.mark.parametrize(
    ("rates", "missed", "expected"),
    [
        ([(5, 0), (9, 4)], [], "cleaned"),
        ([(5, 0), (9, 4)], ["A second scan is inconclusive about 'cat'."], "reduced"),
        ([(5, 0), (51, 4)], ["A trigger still succeeds."], "reduced"),
        ([(5, 0), (53, 4)], ["A trigger still succeeds."], "not cleaned"),
    ],
)
def test_achieved(rates, missed, expected):
    """With a floor of 4 a trigger succeeded on 96 of 100 pictures beyond it, so 48 is half."""
    assert achieved([measured(asr, floor) for asr, floor in rates], missed, AuditConfig()) == expected
