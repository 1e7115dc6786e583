"""What `scan` writes, where to, and how it ends."""

import json
from datetime import date, timedelta

import pytest
import yaml
from answers import make_answer
from forked import run_forked
from tiny import CLASS_NAMES
from tiny_plan import pictures, save_pictures, scan_config
from typer.testing import CliRunner

from hf_invertune.answers.answer import Answer
from hf_invertune.answers.formats import FORMATS, render
from hf_invertune.answers.gate import FailOn as FailOnNames
from hf_invertune.cli import main as cli
from hf_invertune.cli import scan as verb
from hf_invertune.errors import CannotJudgeError, HubError, InputError
from hf_invertune.stages.verdict import Verdict


VERDICTS = {verdict.value: make_answer(verdict) for verdict in Verdict}


def scan(*arguments):
    return CliRunner().invoke(cli.app, ["scan", "model", *map(str, arguments)])


@pytest.fixture
def comes_to(monkeypatch, tmp_path):
    """Say what the scan of the model comes to: an answer or an error."""
    monkeypatch.chdir(tmp_path)

    def come(outcome):
        def scanned(self):
            if isinstance(outcome, Exception):
                return Answer.failed(self.model, outcome), outcome
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome, None

        monkeypatch.setattr(verb.Single, "scan", scanned)

    return come


def test_the_choices_are_those_of_the_library():
    assert [form.value for form in verb.Format] == list(FORMATS)
    assert [mildest.value for mildest in verb.FailOn] == list(FailOnNames.__args__)


@pytest.mark.parametrize("form", FORMATS)
def test_the_format_goes_to_stdout_or_to_a_file(comes_to, tmp_path, form):
    comes_to(VERDICTS["backdoored"])
    printed = scan("--format", form)
    assert (printed.exit_code, printed.stdout) == (3, render([VERDICTS["backdoored"]], form))
    (tmp_path / "old").write_text("old")
    written = scan("--format", form, "--output", tmp_path / "old")
    assert (written.exit_code, written.stdout) == (3, "")
    assert (tmp_path / "old").read_text() == printed.stdout and list(tmp_path.iterdir()) == [tmp_path / "old"]


def test_json_is_short_for_its_format(comes_to):
    comes_to(VERDICTS["clean"])
    assert scan("--json").stdout == scan("--format", "json").stdout == render([VERDICTS["clean"]], "json")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere/a.json", "--output: there is no folder nowhere; make it"),
        ("folder", "--output: folder is no plain file"),
        ("link", "--output: link is no plain file"),
        ("/dev/null", "--output: /dev/null is no plain file"),
    ],
)
def test_output_that_cannot_be_written_is_refused_before_the_work(comes_to, tmp_path, place, message):
    comes_to(AssertionError("no work"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    outcome = scan("--output", place)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith(f"error: {message}") and outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("fail_on", "codes"),
    [
        ("inconclusive", {"backdoored": 3, "inconclusive": 5, "clean": 0}),
        ("backdoored", {"backdoored": 3, "inconclusive": 0, "clean": 0}),
        ("never", {"backdoored": 0, "inconclusive": 0, "clean": 0}),
    ],
)
def test_fail_on(comes_to, fail_on, codes):
    for verdict, answer in VERDICTS.items():
        comes_to(answer)
        outcome = scan("--fail-on", fail_on)
        assert (outcome.exit_code, outcome.stdout.splitlines()[-1].split(",")[0]) == (codes[verdict], verdict)
    assert scan().exit_code == {**codes, "inconclusive": 5}["inconclusive"]


@pytest.mark.parametrize(
    ("error", "code", "rule"),
    [
        (InputError("`model`: none."), 2, "HFI102"),
        (CannotJudgeError("`class_names`: by chance."), 8, "HFI101"),
        (HubError("no answer."), 7, "HFI102"),
        (FloatingPointError("not finite"), 1, "HFI102"),
        (ZeroDivisionError("a bug"), 1, "HFI102"),
    ],
)
def test_an_error_keeps_its_code_and_is_told_in_the_format(comes_to, tmp_path, error, code, rule):
    """Never that of a finding, whatever is asked for; a pipeline gets its file all the same."""
    comes_to(error)
    outcome = scan("--fail-on", "never", "--format", "junit", "--output", tmp_path / "a.xml")
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert f'<error type="{rule}"' in (tmp_path / "a.xml").read_text()
    (answer,) = json.loads(scan("--json").stdout)["answers"]
    assert (answer["exit_code"], answer["verdict"], answer["error"]) == (code, None, str(error))
    assert scan().stdout == ""  # stderr has said it


def test_a_crash_shows_where(tmp_path):
    """Exit code 1 and the traceback, with --fail-on or without; the answer comes all the same."""
    script = tmp_path / "crash.py"
    script.write_text(
        "from hf_invertune.cli import main, scan\n"
        "def crash(*_): raise ZeroDivisionError('a bug')\n"
        "from hf_invertune.fleet.scanner import Scanner\n"
        "Scanner.open = crash\nmain.main()\n"
    )
    outcome = run_forked(script, "scan", "model", "--json", "--fail-on", "never")
    assert outcome.returncode == 1 and "ZeroDivisionError: a bug" in outcome.stderr
    assert json.loads(outcome.stdout)["answers"][0]["error"] == "a bug"


def test_baseline(comes_to, tmp_path):
    answer = VERDICTS["backdoored"]
    comes_to(answer)

    def accept(until):
        entries = [{"fingerprint": one.fingerprint, "reason": "known", "until": f"{until}"} for one in answer.findings]
        (tmp_path / "baseline.json").write_text(json.dumps({"accepted": entries}))
        return scan("--baseline", "baseline.json")

    accepted = accept(date.today())
    assert (accepted.exit_code, accepted.stderr) == (0, "")
    assert accepted.stdout.splitlines()[-1] == "backdoored, towards 'green square'"
    assert f"accepted: known, until {date.today()}" in accepted.stdout
    yesterday = date.today() - timedelta(days=1)
    expired = accept(yesterday)
    assert expired.exit_code == 3 and "accepted: " not in expired.stdout
    assert expired.stderr.count(f"was accepted until {yesterday}, and counts again: known\n") == len(answer.findings)

    comes_to(AssertionError("no work"))
    (tmp_path / "baseline.json").write_text('{"accepted": [{}]}')
    assert scan("--baseline", "baseline.json").stderr.startswith(
        "error: --baseline: the key accepted[0].fingerprint is"
    )


# A whole scan


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory):
    """The arguments of a scan of the tiny CLIP that finds a backdoor."""
    folder = tmp_path_factory.mktemp("whole")
    save_pictures(pictures(16), folder / "pictures")
    (folder / "quick.yaml").write_text(yaml.safe_dump({"scan": scan_config("backdoored").plain()}))
    names = ("--class-names", ",".join(CLASS_NAMES), "--device", "cpu")
    return ["scan", tiny_folder, "--images", folder / "pictures", "--config", folder / "quick.yaml", *names]


def test_two_runs_give_equal_sarif(whole):
    first, second = (
        CliRunner().invoke(cli.app, [*map(str, whole), "--format", "sarif", *q]) for q in ([], ["--quiet"])
    )
    assert first.exit_code == second.exit_code == 3, first.output
    assert first.stdout == second.stdout
    results = json.loads(first.stdout)["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == ["HFI002", "HFI002"]
    assert len({result["fingerprints"]["hf-invertune/v1"] for result in results}) == 2
    assert "pictures and" in first.stderr and second.stderr == ""
