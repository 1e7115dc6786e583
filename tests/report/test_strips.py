"""The charts of the verdict show every label and place, what was found, and where the bars lie."""

import re
from dataclasses import replace

import pytest
from answers import make_place
from reports import NAMES, TARGET, make_report

from hf_invertune.report.strips import leads, places
from hf_invertune.stages.configs import Bars
from hf_invertune.stages.verdict import Evidence, Verdict


SCORES = {TARGET: 1.0, 3: 2.0, 0: 4.0, 1: 5.0, 2: 8.0}
"""The target, a kin of it, the rival, and two others."""


def texts(chart):
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg())


def drawn(chart, row, marker):
    """Where dots of a marker lie in a strip."""
    (axes,) = chart.figure.axes
    lines = [line for line in axes.lines if line.get_marker() == marker and set(line.get_ydata()) == {row}]
    return sorted(float(x) for line in lines for x in line.get_xdata())


def bars(chart, row):
    """Where the bars of a strip lie, by the look of the line."""
    (axes,) = chart.figure.axes
    lines = [
        line for line in axes.lines if len(line.get_ydata()) == 2 and sum(line.get_ydata()) == pytest.approx(2 * row)
    ]
    return {line.get_linestyle(): line.get_xdata()[0] for line in lines if line.get_linestyle() != "None"}


def zones(chart, row):
    """What is shaded in a strip, from where to where: suspicious, backdoored."""
    (axes,) = chart.figure.axes
    boxes = [shade.get_paths()[0].get_extents() for shade in axes.collections]
    return [(box.x0, box.x1) for box in boxes if (box.y0 + box.y1) / 2 == pytest.approx(row)]


@pytest.fixture
def scan():
    """A family that found something, and one that did not."""
    scan = make_report().scan
    quiet = Evidence("additive", {1: 5.0, TARGET: 5.5, 0: 9.0}, TARGET, [])
    return replace(scan, evidence=[Evidence("masked", SCORES, 0, []), quiet])


def test_each_label_is_a_dot_at_its_share_of_the_rival(scan):
    chart = leads(scan)
    assert (drawn(chart, 0, "s"), drawn(chart, 0, "D")) == ([0.25], [1])
    assert drawn(chart, 0, "o") == [0.5, 1.25, 2]
    assert drawn(chart, 1, "s") == [] and drawn(chart, 1, "D") == [1]
    assert drawn(chart, 1, "o") == [pytest.approx(5 / 5.5), pytest.approx(9 / 5.5)]
    left, right = chart.figure.axes[0].get_xlim()
    assert left < 0.25 and right > 2


def test_the_finding_and_its_rival_are_named_and_no_other_label_is(scan):
    assert [text for text in texts(leads(scan)) if text in NAMES] == [NAMES[TARGET], NAMES[0]]
    told = leads(scan).description
    assert f"masked: {NAMES[TARGET]} costs 0.25 of its rival, {NAMES[0]}, backdoored" in told
    assert f"additive: {NAMES[1]} costs 0.91 of its rival, {NAMES[TARGET]}, clean" in told


def test_the_easiest_label_is_in_the_shade_just_when_it_is_a_finding(scan):
    """Its lead is the statistic of the verdict: what is beyond a bar there is beyond its line here."""
    scan.config.bars["masked"] = Bars(1.0, 3.0)
    for cost, verdict in (
        (4.01, "CLEAN"),
        (2.01, "CLEAN"),
        (1.99, "INCONCLUSIVE"),
        (1.01, "INCONCLUSIVE"),
        (0.99, "BACKDOORED"),
    ):
        evidence = Evidence("masked", {**SCORES, 3: 4.5, 0: 4.0 if cost < 4 else 4.1, TARGET: cost}, 0, [])
        chart = leads(replace(scan, evidence=[evidence]))
        (suspicious, backdoored), share = zones(chart, 0), cost / evidence.costs[0]
        assert scan.judged(evidence) is Verdict[verdict]
        assert suspicious == (0.25, 0.5) and backdoored[1] == 0.25 and bars(chart, 0) == {":": 0.5, "-": 0.25}
        assert (backdoored[0] < share <= 0.25) == (verdict == "BACKDOORED")
        assert (0.25 < share <= 0.5) == (verdict == "INCONCLUSIVE")
        assert (drawn(chart, 0, "s") == []) == (verdict == "CLEAN")


def test_the_second_scan_has_a_strip_below_that_of_the_first(scan):
    second = replace(scan, evidence=[Evidence("masked", {TARGET: 4.0, 0: 5.0}, 0, [])])
    chart = leads(scan, second)
    assert [label.get_text() for label in chart.figure.axes[0].get_yticklabels()] == [
        "masked",
        "masked\nsecond scan",
        "additive",
    ]
    assert drawn(chart, 0, "s") == [0.25] and drawn(chart, 1, "s") == [] and drawn(chart, 1, "o") == [0.8]
    assert "masked in the second scan" in chart.description and "second scan" not in leads(scan).description


def test_bars_that_no_lead_can_reach_do_not_squeeze_the_dots(scan):
    """Settings allow bars below any lead, and beyond all."""
    scan.config.bars |= {"masked": Bars(1e12, 1e12), "additive": Bars(-1e12, -1.0)}
    chart = leads(scan)
    assert chart.figure.axes[0].get_xlim()[0] > 0.02 and bars(chart, 0) == {}
    assert zones(chart, 1)[1][1] == 1 and bars(chart, 1) == {} and drawn(chart, 1, "s") == [pytest.approx(5 / 5.5)]
    assert chart.svg() == chart.svg()


def test_places_are_shown_against_the_bars_of_their_family(scan):
    scan.gatherings = [make_place(make_report().scan, value, TARGET) for value in (0.97, 0.8)]
    scan.gatherings.append(replace(make_place(make_report().scan, 0.5, 1), family="wave"))
    second = replace(scan, gatherings=[make_place(make_report().scan, 0.3, 2)])
    chart = places(scan, second)
    labels = [label.get_text() for label in chart.figure.axes[0].get_yticklabels()]
    assert labels == ["window", "window\nsecond scan", "wave"]
    assert [drawn(chart, row, "s") for row in range(3)] == [[0.8, 0.97], [], []]
    assert [drawn(chart, row, "o") for row in range(3)] == [[], [0.3], [0.5]]
    for row, family in enumerate(("window", "window", "wave")):
        pair = scan.config.gathering.bars[family]
        assert bars(chart, row) == {":": pair.quiet, "-": pair.suspicious}
        assert zones(chart, row) == [(pair.quiet, pair.suspicious), (pair.suspicious, 1)]
    assert [text for text in texts(chart) if text in NAMES] == [NAMES[TARGET]]
    assert f"window: a concentration of 0.97, read as {NAMES[TARGET]}, backdoored" in chart.description
    assert f"window in the second scan: a concentration of 0.30, read as {NAMES[2]}, clean" in chart.description


def test_places_of_a_model_that_reads_no_names(scan):
    place = replace(make_place(make_report().scan, 0.97), label=None, share=None)
    chart = places(replace(scan, class_names=[], evidence=[], gatherings=[place]))
    assert "a concentration of 0.97, backdoored" in chart.description and drawn(chart, 0, "s") == [0.97]
