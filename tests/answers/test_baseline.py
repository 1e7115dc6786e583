import json
from datetime import date, timedelta

import pytest
from answers import make_answer

from hf_invertune.answers.baseline import Baseline
from hf_invertune.answers.formats import FORMATS, render
from hf_invertune.answers.gate import exit_code
from hf_invertune.errors import InputError


TODAY = date(2026, 11, 27)
MARK = "0" * 32


@pytest.fixture(scope="module")
def answer():
    return make_answer(concentrations=(0.9,))


def written(folder, answer, until=TODAY, reason="known since we made it", form="toml"):
    """A baseline that accepts all findings of `answer`."""
    marks = [finding.fingerprint for finding in answer.findings]
    path = folder / f"baseline.{form}"
    if form == "json":
        entries = [{"fingerprint": mark, "reason": reason, "until": until.isoformat()} for mark in marks]
        path.write_text(json.dumps({"accepted": entries}))
    else:
        entry = '[[accepted]]\nfingerprint = "{}"\nreason = "{}"\nuntil = {}\n'
        path.write_text("".join(entry.format(mark, reason, until) for mark in marks))
    return path


@pytest.mark.parametrize("form", ["toml", "json"])
def test_accepted_until_its_last_day(tmp_path, answer, form):
    baseline = Baseline.load(written(tmp_path, answer, form=form))
    marked = baseline.mark(answer, TODAY)
    assert {one.accepted for one in marked.findings} == {"known since we made it, until 2026-11-27"}
    assert (marked.verdict, marked.exit_code, marked.open_findings) == ("backdoored", 3, [])
    assert exit_code([marked]) == 0 and list(baseline.expired([answer], TODAY)) == []

    tomorrow = TODAY + timedelta(days=1)
    assert baseline.mark(answer, tomorrow) == answer and exit_code([answer]) == 3
    said = list(baseline.expired([answer], tomorrow))
    assert len(said) == len(answer.findings)
    assert said[0] == (
        f"{answer.findings[0].fingerprint} (HFI001) was accepted until 2026-11-27, and counts again: known since we made it"
    )


def test_other_findings_still_count(tmp_path, answer):
    path = written(tmp_path, answer)
    path.write_text("[[accepted]]" + path.read_text().split("[[accepted]]")[1])  # the first entry alone
    marked = Baseline.load(path).mark(answer, TODAY)
    assert [one.accepted is None for one in marked.findings] == [False, *[True] * 4]
    assert exit_code([marked]) == 3
    assert Baseline.load(path).mark(make_answer(concentrations=(0.72,)), TODAY).open_findings  # judged otherwise


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_marks_what_is_accepted(tmp_path, answer, form):
    marked = Baseline.load(written(tmp_path, answer)).mark(answer, TODAY)
    text = render([marked], form)
    assert text.count("known since we made it, until 2026-11-27") >= len(answer.findings)
    assert "backdoored" in text and "accepted" in text
    if form == "sarif":
        suppressed = [result["suppressions"] for result in json.loads(text)["runs"][0]["results"]]
        why = "known since we made it, until 2026-11-27"
        assert suppressed == [[{"kind": "external", "status": "accepted", "justification": why}]] * len(
            answer.findings
        )
    if form == "junit":
        assert "<failure" not in text and 'failures="0"' in text


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ('accepted = "all"', "accepted is 'all'; it must be a list"),
        ("", "the key accepted is missing"),
        ("[[accept]]\n", "accept is no known key; the nearest is 'accepted'"),
        (f'[[accepted]]\nfingerprint = "{MARK}"\nuntil = 2027-01-01', r"accepted\[0\].reason is missing"),
        (f'[[accepted]]\nfingerprint = "{MARK}"\nreason = "x"', r"accepted\[0\].until is missing"),
        (f'[[accepted]]\nfingerprint = "{MARK}"\nreason = " "\nuntil = 2027-01-01', r"accepted\[0\].reason is empty"),
        (f'[[accepted]]\nfingerprint = "{MARK}"\nreason = "x"\nuntil = "soon"', r"accepted\[0\].until is 'soon'"),
        (
            f'[[accepted]]\nfingerprint = "{MARK}"\nreason = "x"\nuntil = 2027',
            r"until is 2027; it must be of type date",
        ),
        ('[[accepted]]\nfingerprint = "HFI001"\nreason = "x"\nuntil = 2027-01-01', "copy the 32 hex digits"),
        (f'[[accepted]]\nfingerprint = "{MARK}"\nreason = "x"\nuntil = 2027-01-01\n' * 2, "is accepted twice"),
        (f'[[accepted]]\nfingerprint = "{MARK}"\nreason = "x"\ntill = 2027-01-01', "till is no known key"),
        ("[", "is no TOML"),
    ],
)
def test_wrong_baseline(tmp_path, entries, message):
    path = tmp_path / "baseline.toml"
    path.write_text(entries)
    with pytest.raises(InputError, match=f"^`baseline`: .*{message}"):
        Baseline.load(path)
