"""docs/report-schema.json against the reports of every outcome, and against the dataclasses that it describes."""

import dataclasses
import json
import typing
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from reports import CASES, make_report

from hf_invertune.report.content import SCHEMA_VERSION
from hf_invertune.report.report import AuditReport
from hf_invertune.report.wellformed import DTYPES
from hf_invertune.stages.families import FAMILIES, GATHERING, KEYED, TriggerFamily
from hf_invertune.stages.verdict import Verdict
from hf_invertune.triggers import Trigger
from hf_invertune.utils.settings import Settings


SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report-schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)


def written(report, folder):
    report.save(folder)
    return json.loads((folder / "report.json").read_text())


def dataclasses_of(kind):
    """The dataclasses that a type is made of, itself included."""
    for argument in typing.get_args(kind):
        yield from dataclasses_of(argument)
    if dataclasses.is_dataclass(kind):
        yield kind
        for hint in typing.get_type_hints(kind).values():
            yield from dataclasses_of(hint)


KINDS = sorted(set(dataclasses_of(AuditReport)), key=lambda kind: kind.__name__)
SETTINGS = [*(kind for kind in KINDS if issubclass(kind, Settings)), *FAMILIES]
BOUNDS = {"least": "minimum", "above": "exclusiveMinimum", "most": "maximum", "below": "exclusiveMaximum"}


def entries(name):
    """The entries of a class with kinds by kind, and that of a kind of one's own."""
    *known, own = SCHEMA["$defs"][name]["oneOf"]
    return {entry["properties"]["kind"]["const"]: entry for entry in known}, own


def ours(kinds):
    """Without those that other tests define."""
    return {kind: one for kind, one in kinds.items() if one.__module__.startswith("hf_invertune.")}


def entry_of(kind):
    if kind is AuditReport:
        return SCHEMA
    return entries("TriggerFamily")[0][kind.kind] if kind in FAMILIES else SCHEMA["$defs"][kind.__name__]


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    monkeypatch.setattr("hf_invertune.report.report.render", lambda report: "")


@pytest.fixture
def cleaned(tmp_path):
    return written(make_report(), tmp_path)


def test_schema_is_one_and_names_its_version():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$id"].endswith(f":{SCHEMA_VERSION}")
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "unlabelled"])
def test_report_of_every_outcome_is_valid(tmp_path, case, labelled):
    VALIDATOR.validate(written(make_report(*CASES[case], labelled=labelled), tmp_path))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("include_trigger", [True, False])
def test_published_report_is_valid(tmp_path, case, include_trigger):
    value = written(make_report(*CASES[case]).published(include_trigger), tmp_path)
    VALIDATOR.validate(value)
    assert value["trigger_withheld"] is not include_trigger


@pytest.mark.parametrize("kind", [*KINDS, *FAMILIES])
def test_every_field_has_an_entry(kind):
    entry = entry_of(kind)
    names = ["kind"] * (kind in FAMILIES) + [field.name for field in dataclasses.fields(kind)]
    assert list(entry["properties"]) == names
    assert entry["required"] == names and entry["additionalProperties"] is False
    assert all(value.get("description") for value in [entry, *entry["properties"].values()])


def test_every_kind_of_trigger_has_an_entry():
    known, own = entries("Trigger")
    kinds = ours(Trigger.kinds)
    assert known.keys() == kinds.keys() == set(own["properties"]["kind"]["not"]["enum"])
    for kind, trigger in kinds.items():
        fields = {"kind", *trigger.scalars, *trigger.tensors}
        assert set(known[kind]["properties"]) == set(known[kind]["required"]) == fields


def test_every_family_has_an_entry():
    known, own = entries("TriggerFamily")
    assert (
        list(known)
        == [family.kind for family in (*FAMILIES, *GATHERING, *KEYED)]
        == own["properties"]["kind"]["not"]["enum"]
    )
    assert set(known) == set(ours(TriggerFamily.kinds))


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_have_the_help_and_the_ranges_of_the_code(kind):
    for field in dataclasses.fields(kind):
        entry = entry_of(kind)["properties"][field.name]
        if help := field.metadata.get("help"):
            assert entry["description"] == help
        limits = [
            one for one in (entry, entry.get("items", {}), *entry.get("anyOf", [])) if set(one) & {*BOUNDS.values()}
        ]
        wanted = {BOUNDS[name]: bound for name, bound in kind.ranges[field.name].items()}
        assert [{name: one[name] for name in BOUNDS.values() if name in one} for one in limits] == [wanted] * bool(
            wanted
        )


def test_lists_of_words_are_those_of_the_code():
    assert SCHEMA["$defs"]["verdict"]["enum"] == [verdict.value for verdict in Verdict]
    assert {outcome for outcome, _ in CASES.values()} == set(SCHEMA["properties"]["outcome"]["enum"])
    assert tuple(SCHEMA["$defs"]["ModelIdentity"]["properties"]["dtype"]["enum"]) == DTYPES


def rate(report):
    return report["removal"]["measurements"][0]["before"]["clean_accuracy"]


def trigger(report):
    return report["removal"]["inverted"][0]["trigger"]


def scores(report):
    return report["scan"]["evidence"][0]["scores"]


BROKEN = {
    "an unknown field": lambda r: r.update(extra=1),
    "an unknown field deep down": lambda r: rate(r).update(value=1),
    "a missing field": lambda r: r.pop("trigger_withheld"),
    "another version": lambda r: r.update(schema_version="1.1"),
    "an unknown outcome": lambda r: r.update(outcome="fixed"),
    "an unknown verdict": lambda r: r["scan"].update(verdict="fine"),
    "negative hits": lambda r: rate(r).update(hits=-1),
    "hits that are no integer": lambda r: rate(r).update(hits=0.5),
    "a share above one": lambda r: r["scan"]["simulations"][0]["clean"].__setitem__(0, 1.01),
    "a short digest": lambda r: r["scan"]["inputs"]["model"].update(sha256="aa"),
    "a digest in capitals": lambda r: r["removal"]["measurements"][0].update(trigger_sha256="AA" * 32),
    "no digest": lambda r: r["removal"].update(sha256=None),
    "a file elsewhere": lambda r: trigger(r).update(mask="../mask"),
    "a trigger of no kind": lambda r: trigger(r).update(kind=None),
    "a trigger with a scalar too many": lambda r: trigger(r).update(epsilon=0.1),
    "a trigger of one's own with a list": lambda r: trigger(r).update(kind="swirl", mask=[1]),
    "a score of zero": lambda r: scores(r).update({"0": 0}),
    "a label that is no number": lambda r: scores(r).update({"cat": 1.0}),
    "a scan that names no model": lambda r: r["scan"].update(inputs=None),
    "an unknown setting": lambda r: r["config"]["tuning"].update(lora_rank=8),
    "a setting out of its range": lambda r: r["config"]["audit"].update(held_out=1),
    "a setting of a family out of its range": lambda r: r["config"]["scan"]["families"][1].update(epsilon=0),
    "cleaned without a second scan": lambda r: r["removal"].update(second_scan=None),
    "cleaned without figures after": lambda r: r["removal"]["measurements"][0].update(after=None),
    "cleaned without a trigger": lambda r: r["removal"].update(inverted=[]),
    "cleaned without a removal": lambda r: r.update(removal=None),
    "scanned, with a removal": lambda r: r.update(outcome="scanned"),
    "backdoored and unchanged": lambda r: r.update(outcome="unchanged", removal=None),
    "withheld, with its pictures": lambda r: r.update(trigger_withheld=True),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_schema_refuses(cleaned, fault):
    assert VALIDATOR.is_valid(cleaned)
    BROKEN[fault](cleaned)
    assert not VALIDATOR.is_valid(cleaned)


def test_kinds_of_ones_own_are_valid(cleaned):
    trigger(cleaned).update(kind="swirl", turns=2)
    cleaned["config"]["scan"]["families"].append({"kind": "swirl", "strength": 0.2})
    cleaned["removal"]["inverted"][0]["family"] = cleaned["scan"]["evidence"][0]["family"] = "swirl"
    VALIDATOR.validate(cleaned)
