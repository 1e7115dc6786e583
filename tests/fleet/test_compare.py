"""Models that are alike are each other's null."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hf_invertune.answers.answer import Answer, Part
from hf_invertune.fleet.compare import FAR, compared, deviations, group_of
from hf_invertune.remover import BackdoorRemover


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def answer(lead, group="g", model="m", **fields):
    part = Part("masked", "red circle", "lead", lead, None, None, 0.5, 0.7, "clean")
    return Answer(model=model, exit_code=0, verdict="clean", evidence=[part], group=group, **fields)


def test_one_that_is_far_above_the_others_stands_out():
    answers = compared([answer(lead) for lead in (0.10, 0.12, 0.09, 0.11, 0.13, 1.5)])
    assert [len(one.stands_out) for one in answers] == [0, 0, 0, 0, 0, 1]
    (found,) = answers[-1].stands_out
    assert (found.family, found.statistic, found.value, found.models) == ("masked", "lead", 1.5, 6) and found.z > FAR
    assert answers[-1].verdict == "clean" and answers[-1].exit_code == 0


def test_one_that_is_far_below_does_not():
    assert not any(one.stands_out for one in compared([answer(x) for x in (1.5, 1.52, 1.49, 1.51, 1.53, 0.1)]))


def test_groups_are_apart_and_copies_count_once():
    few = [answer(lead) for lead in (0.10, 0.12, 0.09, 1.5)]
    assert not any(one.stands_out for one in compared([*few, *[answer(0.10)] * 9]))
    assert not any(one.stands_out for one in compared([*few, answer(0.11, group="h"), answer(0.12, group=None)]))


def test_what_stood_out_earlier_is_forgotten():
    answers = compared([answer(lead) for lead in (0.10, 0.12, 0.09, 0.11, 0.13, 1.5)])
    assert [one.stands_out for one in compared(answers[-1:])] == [[]]


@pytest.mark.parametrize(("zoo", "least"), [("drawings", 9), ("cifar10", 8)])
def test_the_models_for_development(zoo, least):
    """Among its clean fellows no clean model stands out, and most victims do."""
    victims = json.loads((RESULTS / f"detection_{zoo}.json").read_text())["victims"].values()
    values = [
        {f"{place['family']} concentration": place["concentration"] for place in reversed(one["places"])}
        | {race["family"]: race["lead"] for race in one["races"]}
        for one in victims
    ]
    clean = [value for value, one in zip(values, victims, strict=True) if not one["attack_name"]]
    attacked = [value for value, one in zip(values, victims, strict=True) if one["attack_name"]]

    def farthest(model, others):
        group = [*others, model]
        return max(deviations({i: one[name] for i, one in enumerate(group)}, model[name]) for name in model)

    assert all(farthest(one, [other for other in clean if other is not one]) < FAR for one in clean)
    assert sum(farthest(one, clean) >= FAR for one in attacked) >= least


def test_models_of_a_group_have_shapes_names_and_settings_in_common(tiny, looked_at, config):
    scan = BackdoorRemover(tiny).scan(looked_at, ["red circle", "blue square"], config=config)
    group = group_of(tiny, scan)
    assert group == group_of(tiny, replace(scan, seconds=0.0))
    for change in ({"class_names": ["red circle", "green ring"]}, {"templates": ["{}"]}, {"seed": 1}):
        assert group_of(tiny, replace(scan, **change)) != group
