import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import xmlschema
from answers import COMMIT, make_answer, make_answers

from hf_invertune.answers.answer import Answer
from hf_invertune.answers.formats import FORMATS, render
from hf_invertune.answers.rules import RULES
from hf_invertune.answers.sarif import place
from hf_invertune.errors import HubError, InputError
from hf_invertune.stages.verdict import CALIBRATION, Verdict


SCHEMAS = Path(__file__).parent / "schemas"
SARIF = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "sarif-2.1.0.json").read_text()))
JUNIT = xmlschema.XMLSchema(SCHEMAS / "jenkins-junit.xsd")
UGLY = ["a|b", "<script>", "nul\x00", "back`tick", "new\nline", "\ud800", "`[x](y)`", "ü", "]]>"]


@pytest.fixture(scope="module")
def answers():
    return make_answers()


def sarif(answers):
    log = json.loads(render(answers, "sarif"))
    SARIF.validate(log)
    (run,) = log["runs"]
    return run


def junit(answers):
    text = render(answers, "junit")
    JUNIT.validate(text)
    (suite,) = ET.fromstring(text)
    return suite


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_tells_every_model_its_verdict_and_its_findings(answers, form):
    text = render(answers, form)
    assert text.endswith("\n") and not text.endswith("\n\n")
    plain = text.replace("\\`", "`")
    for answer in answers:
        assert answer.model in plain
        for finding in answer.findings:
            assert finding.rule in text and (form == "table" or finding.fingerprint in text)
    flat = " ".join(plain.split())
    assert form in ("json", "jsonl", "table") or "not scanned: `model`: org/nowhere is no model on the Hub." in flat
    assert "not scanned" in flat or "no model on the Hub" in flat


def test_no_such_format(answers):
    with pytest.raises(InputError, match="`format`: got 'sarf'; the nearest are 'sarif'"):
        render(answers, "sarf")


@pytest.mark.parametrize("form", FORMATS)
def test_no_answers_at_all(form):
    text = render([], form)
    assert form != "sarif" or SARIF.is_valid(json.loads(text))
    assert form != "junit" or JUNIT.is_valid(text)


# JSON


def test_json_is_one_object_and_jsonl_one_a_line(answers):
    whole = json.loads(render(answers, "json"))
    lines = [json.loads(line) for line in render(answers, "jsonl").splitlines()]
    assert whole["answers"] == lines and len(lines) == len(answers)
    assert (whole["tool"], lines[0]["exit_code"], lines[0]["verdict"]) == ("hf-invertune", 3, "backdoored")


def test_json_has_no_number_that_is_not_finite(answers):
    odd = replace(answers[0], seconds=math.nan)
    for form in ("json", "jsonl"):
        assert "NaN" not in render([odd], form)


def test_evidence_holds_every_place_and_race(answers):
    evidence = answers[0].evidence
    assert [part.value for part in evidence[:3]] == [0.9, 0.8, 0.72]
    assert [part.verdict for part in evidence[:3]] == ["backdoored", "backdoored", "inconclusive"]
    races = ["masked", "additive", "blend", "keyed"]
    assert [part.statistic for part in evidence] == ["concentration"] * 3 + ["lead"] * 4
    assert [part.family for part in evidence] == ["window"] * 3 + races
    assert (evidence[0].quiet, evidence[0].suspicious, evidence[0].share) == (0.693, 0.74, 0.75)
    assert evidence[3].share is None and answers[2].findings == [] and len(answers[2].evidence) == 4


# Fingerprints


def test_a_fingerprint_is_of_weights_rule_family_and_label():
    def marks(**changes):
        return [finding.fingerprint for finding in make_answer(**changes).findings]

    first = marks(concentrations=(0.9,))
    assert first == marks(concentrations=(0.95,), model="elsewhere/copy")  # the weights are the same
    assert len(set(marks(concentrations=(0.9, 0.8)))) == len(
        marks(concentrations=(0.9, 0.8))
    )  # two places of one label
    other = make_answer(concentrations=(0.72,)).findings
    assert first[0] not in {finding.fingerprint for finding in other}  # no longer judged backdoored


# SARIF


def test_sarif_has_a_result_for_each_finding(answers):
    run = sarif(answers)
    found = [finding for answer in answers for finding in answer.findings]
    assert [result["ruleId"] for result in run["results"]] == [finding.rule for finding in found]
    rules = run["tool"]["driver"]["rules"]
    for result, finding in zip(run["results"], found, strict=True):
        assert rules[result["ruleIndex"]]["id"] == finding.rule
        ((location,), region) = result["locations"], result["locations"][0]["physicalLocation"]["region"]
        assert location["physicalLocation"]["artifactLocation"]["uri"] and region == {"startLine": 1}
        assert result["fingerprints"] == {"hf-invertune/v1": finding.fingerprint}
        assert result["partialFingerprints"] == {"primaryLocationLineHash": f"{finding.fingerprint}:1"}
        assert result["level"] == {"HFI001": "error", "HFI002": "error"}.get(finding.rule, "warning")
        assert finding.label in result["message"]["text"] and CALIBRATION in result["message"]["text"]
        assert "suppressions" not in result


def test_sarif_tells_what_was_not_scanned(answers):
    run = sarif(answers)
    invocations, notes = run["invocations"], run["tool"]["driver"]["notifications"]
    assert [one["executionSuccessful"] for one in invocations] == [True, True, True, False, False]
    assert [one["exitCode"] for one in invocations] == [3, 5, 0, 2, 8]
    said = [one["toolExecutionNotifications"][0] for one in invocations[3:]]
    assert [notes[one["descriptor"]["index"]]["id"] for one in said] == ["HFI102", "HFI101"]
    assert [one["descriptor"]["id"] for one in said] == ["HFI102", "HFI101"]


def test_sarif_explains_its_rules(answers):
    driver = sarif(answers)["tool"]["driver"]
    told = {rule["id"]: rule["help"] for rule in driver["rules"] + driver["notifications"]}
    assert told.keys() == {rule.id for rule in RULES}
    for rule in RULES:
        assert all(
            part in told[rule.id][form] for part in (rule.meaning, rule.remedy) for form in ("text", "markdown")
        )


def test_sarif_of_the_same_answers_is_the_same_however_long_they_took(answers):
    again = [replace(answer, seconds=answer.seconds + 1) for answer in make_answers()]
    assert render(again, "sarif") == render(answers, "sarif")


def test_where_sarif_shows_a_finding(tmp_path, monkeypatch):
    """Relative URIs, from the repository's root even in a folder below; the Hub's need no network to be stable."""
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "repo" / "below")
    here = make_answer(model="my models/clip", revision=None)
    assert place(here) == "below/my%20models/clip/config.json"
    assert place(make_answer(model="../clip", revision=None)) == "clip/config.json"
    assert place(make_answer(model="../../clip", revision=None)) == (tmp_path / "clip" / "config.json").as_uri()
    assert place(make_answer(model="caf\udce9", revision=None)) == "below/caf%E9/config.json"  # no UTF-8
    assert place(make_answer(subfolder="vision")) == "org/clip/vision/config.json"
    assert place(make_answer(revision=COMMIT[::-1])) == "org/clip/config.json"
    open_clip = replace(here, source={**here.source, "format": "open_clip"})
    assert place(open_clip) == "below/my%20models/clip/open_clip_config.json"


# JUnit


def test_junit_has_a_case_for_each_model(answers):
    suite = junit(answers)
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["5", "2", "2"]
    assert [case.get("name") for case in suite] == [answer.model for answer in answers]
    kinds = [[part.tag for part in case if part.tag != "system-out"] for case in suite]
    assert kinds == [["failure"], ["failure"], [], ["error"], ["error"]]
    assert suite[0][0].get("message") == "backdoored, towards 'green square'" and suite[0][0].get("type") == "HFI001"
    assert suite[3][0].get("type") == "HFI102" and suite[4][0].get("type") == "HFI101"


@pytest.mark.parametrize("form", FORMATS)
def test_names_that_markup_would_trip_over(form):
    """Labels, folders and errors are foreign: whatever is in them, the text stays well-formed."""
    names = UGLY
    ugly = [make_answer(names=[*names], model="x", concentrations=(0.9,))]
    ugly = [replace(one, model=f"m{name}", target=name) for one in ugly for name in names]
    ugly += [Answer.failed(f"e{name}", HubError(f"because of {name}")) for name in names]
    text = render(ugly, form)
    text.encode()
    if form == "sarif":
        sarif(ugly)
    if form == "junit":
        assert len(junit(ugly)) == 2 * len(names)
    if form == "markdown":
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
        assert not re.search(r"(?<!\\)<", text)


# Words


def test_a_clean_model_is_said_to_be_clean_of_what_was_searched_alone(answers):
    for form in ("table", "junit", "markdown"):
        text = render([make_answer(Verdict.CLEAN)], form)
        assert CALIBRATION in text
    assert "Searched with 200 pictures among 9 labels for triggers of the families" in render(answers, "markdown")


def test_markdown_says_what_to_do(answers):
    text = render(answers, "markdown")
    for answer in answers:
        for finding in answer.findings:
            assert next(rule for rule in RULES if rule.id == finding.rule).remedy in text
    assert "refs/pr/1" in text and "they flag a.bin (unsafe)" in text
