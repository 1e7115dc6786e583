"""docs/report-schema.json against the reports of every outcome, and against the dataclasses that it describes."""

import dataclasses
import json
import typing
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from reports import CASES, make_report

from hf_invertune.report.report import FILES, SCHEMA_VERSION, AuditReport
from hf_invertune.stages.identification import Verdict
from hf_invertune.stages.inversion import Family
from hf_invertune.triggers import Trigger


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


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    monkeypatch.setattr("hf_invertune.report.html.render", lambda report: "")


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


@pytest.mark.parametrize("kind", sorted(set(dataclasses_of(AuditReport)), key=lambda kind: kind.__name__))
def test_every_field_has_an_entry(kind):
    entry = SCHEMA if kind is AuditReport else SCHEMA["$defs"][kind.__name__]
    names = [field.name for field in dataclasses.fields(kind)]
    assert list(entry["properties"]) == names
    assert entry["required"] == names and entry["additionalProperties"] is False
    assert all(value.get("description") for value in [entry, *entry["properties"].values()])


def test_every_kind_of_trigger_has_an_entry():
    entries = {entry["properties"]["kind"]["const"]: entry for entry in SCHEMA["$defs"]["Trigger"]["oneOf"]}
    assert entries.keys() == Trigger.kinds.keys()
    for kind, trigger in Trigger.kinds.items():
        assert set(trigger.scalars) < set(entries[kind]["properties"]) == set(entries[kind]["required"])


def test_lists_of_words_are_those_of_the_code():
    assert SCHEMA["$defs"]["verdict"]["enum"] == [verdict.value for verdict in Verdict]
    assert SCHEMA["$defs"]["family"]["enum"] == list(typing.get_args(Family))
    assert {outcome for outcome, _ in CASES.values()} == set(SCHEMA["properties"]["outcome"]["enum"])
    assert SCHEMA["properties"]["trigger"]["enum"][0] in FILES


BROKEN = {
    "an unknown field": lambda r: r.update(extra=1),
    "an unknown field deep down": lambda r: r["measurements"][0]["before"]["clean_accuracy"].update(value=1),
    "a missing field": lambda r: r.pop("trigger_withheld"),
    "another version": lambda r: r.update(schema_version="1.0"),
    "an unknown outcome": lambda r: r.update(outcome="fixed"),
    "an unknown verdict": lambda r: r["scan"].update(verdict="fine"),
    "negative hits": lambda r: r["measurements"][0]["before"]["clean_accuracy"].update(hits=-1),
    "hits that are no integer": lambda r: r["measurements"][0]["before"]["clean_accuracy"].update(hits=0.5),
    "a share above one": lambda r: r["scan"]["simulations"][0]["clean"].__setitem__(0, 1.01),
    "a short digest": lambda r: r["model"].update(sha256_before="aa"),
    "a digest in capitals": lambda r: r.update(trigger_sha256="AA" * 32),
    "a file elsewhere": lambda r: r.update(trigger="../trigger.safetensors"),
    "a trigger of no kind": lambda r: r["inverted"][0]["trigger"].update(kind="none"),
    "a score of zero": lambda r: r["scan"]["evidence"][0]["scores"].update({"0": 0}),
    "a label that is no number": lambda r: r["scan"]["evidence"][0]["scores"].update({"cat": 1.0}),
    "cleaned without a second scan": lambda r: r.update(verification=None),
    "cleaned with reasons": lambda r: r.update(reasons=["no"]),
    "cleaned without figures after": lambda r: r["measurements"][0].update(after=None),
    "withheld, with its file": lambda r: r.update(trigger_withheld=True),
    "scanned, with a digest after": lambda r: r.update(outcome="scanned"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_schema_refuses(cleaned, fault):
    assert VALIDATOR.is_valid(cleaned)
    BROKEN[fault](cleaned)
    assert not VALIDATOR.is_valid(cleaned)
