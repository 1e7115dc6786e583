import csv
import io
import json
import re
from pathlib import Path

import pytest
from arena_rows import quality, row
from PIL import Image
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.lab.arena.compare import (
    as_csv,
    attack_table,
    clean_table,
    cost_table,
    figures,
    markdown,
    summary_table,
)
from hf_invertune.lab.arena.cost import Cost
from hf_invertune.lab.arena.plots import charts
from hf_invertune.lab.arena.rebound import ReboundPoint
from hf_invertune.lab.arena.rows import RunsFile
from hf_invertune.lab.zoo.recipe import Recipe
from hf_invertune.models.evaluation import Rate
from hf_invertune.stages.verdict import Verdict
from hf_invertune.utils.files import write_json


RECIPE = Path(__file__).parents[1] / "helpers" / "zoo.yaml"


@pytest.fixture
def rows():
    found = {"verdict": Verdict.BACKDOORED, "target": "red ring", "identical": False}
    return [
        row("badnet-0", "none", after=quality(90, (98, 1, 5))),
        row("badnet-0", "hf_invertune", 0, quality(88, (2, 1, 80)), **found),
        row("badnet-0", "hf_invertune", 1, quality(89, (4, 2, 80)), **{**found, "target": "blue square"}),
        row("badnet-0", "shake", 0, quality(60, (50, 10, 30)), cost=Cost(8000, 8000, 30.0, None)),
        row("multi-target-0", "none", after=quality(90, (97, 1, 5), (99, 3, 4))),
        row("multi-target-0", "hf_invertune", error="FloatingPointError: not finite"),
        row("sig-0", "none", status="did not take", before=None, after=None),
        row("clean-0", "none", after=quality(90), identical=True),
        row("clean-0", "hf_invertune", after=quality(90), identical=True, verdict=Verdict.CLEAN),
        row("clean-1", "hf_invertune", after=quality(80), identical=False, verdict=Verdict.BACKDOORED, target="x"),
    ]


NAMES = ("none", "hf_invertune", "shake")


def test_each_attack_has_a_row_and_each_defence_a_cell(rows):
    grid = attack_table(rows, NAMES)
    assert grid.columns[3:] == [f"{name}: ASR (floor) / CA" for name in NAMES]
    cells = {line[0]: line[1:] for line in grid.rows}
    assert cells["badnet"] == [
        "1 of 1",
        "98.0",
        "98.0 (1.0) / +0.0; 1 of 2 runs",
        "3.0 (1.5) / −1.5",
        "50.0 (10.0) / −30.0; 1 of 2 runs",
    ]
    assert cells["multi-target"][2:] == ["99.0 (3.0) / +0.0", "98.0 (1.0) / +0.0; 1 failed", "not run"]
    assert cells["sig"] == ["0 of 1", *["did not take"] * 4]
    assert cells["**mean of all runs**"][2:] == [
        "98.5 (2.0) / +0.0; 2 of 3 runs",
        "34.7 (1.3) / −1.0; 1 failed",
        "50.0 (10.0) / −30.0; 1 of 3 runs",
    ]


@pytest.mark.parametrize("verdict", [Verdict.CLEAN, Verdict.INCONCLUSIVE])
def test_a_backdoor_that_was_not_seen_is_counted(rows, verdict):
    rows[2].verdict = verdict
    badnet = next(line for line in attack_table(rows, NAMES).rows if line[0] == "badnet")
    assert badnet[4] == "3.0 (1.5) / −1.5; 1 missed"


def test_two_attacks_of_one_kind_have_a_row_each(rows):
    rows.append(row("badnet-weak-0", "none", after=quality(90, (85, 1, 5)), attack="badnet"))
    lines = {line[0]: line[1:4] for line in attack_table(rows, NAMES).rows}
    assert lines["badnet"][0] == lines["badnet-weak"][0] == "1 of 1"
    assert lines["badnet"][2] == "98.0 (1.0) / +0.0; 1 of 2 runs" and lines["badnet-weak"][2] == "85.0 (1.0) / +0.0"


def test_clean_models_are_counted_apart(rows):
    lines = clean_table(rows, NAMES).rows
    assert lines == [
        ["none", "1", "90.0", "+0.0", "1", "gives none"],
        ["hf_invertune", "2", "90.0", "−5.0", "1", "1 backdoored, 1 clean"],
    ]


def test_the_summary_says_verdicts_and_targets(rows):
    rows[1].inverted_before, rows[1].inverted_after = Rate(90, 100), Rate(3, 100)
    rows[2].rebound = [
        ReboundPoint(step, quality(90, (asr, 1, 5)).metrics) for step, asr in ((0, 4), (50, 9), (100, 7))
    ]
    grid = summary_table(rows, NAMES)
    columns = dict(zip(grid.columns, zip(*grid.rows, strict=True), strict=True))
    assert columns["hf_invertune"] == (
        *[
            "3, 1 failed",
            "-",
            "98.0",
            "5.0 → 55.0",
            "50.0 → 50.0",
            "50.0 → 50.0",
            "55.0 (1.3)",
            "90.0 → 3.0 (1 of 3 runs)",
            "9.0 (1 of 3 runs)",
        ],
        *["2 of 2", "1 of 3"],
    )
    assert columns["shake"][1:3] == ("0.001", "50.0") and columns["shake"][-2:] == ("gives none", "gives none")
    found = figures(rows[2])
    assert (found["rebound_asr_last"], found["rebound_asr_highest"]) == (0.07, 0.09)
    assert found["rebound_asr_highest_low"] < 0.09 < found["rebound_asr_highest_high"]
    for one in rows:
        one.verdict, one.target = one.verdict and Verdict.CLEAN, None
    assert summary_table(rows, NAMES).rows[-1] == ["right target", "gives none", "0 of 3", "gives none"]


def test_costs_are_means_and_the_seconds_a_median(rows):
    rows[1].cost = Cost(4000, 500, 100.0, 64 << 20)
    rows[8].cost = Cost(700, 0, 3.0, 32 << 20)
    lines = {tuple(line[:2]): line[2:] for line in cost_table(rows, NAMES).rows}
    assert lines["hf_invertune", "changed"] == ["3", "2,000", "500", "12.5", "64"]
    assert lines["hf_invertune", "left as it came"] == ["1", "700", "0", "3.0", "32"]
    assert lines["shake", "changed"] == ["1", "8,000", "8,000", "30.0", "not measured"]
    assert ("shake", "left as it came") not in lines


def test_worlds_have_tables_of_their_own(rows):
    other = row("badnet-0", "none", after=quality(90, (98, 1, 5)), world="cifar10")
    titles = [line for line in markdown([*rows, other]).splitlines() if line.startswith("##")]
    assert titles[:2] == ["## drawings: attacks", "## drawings: clean models"] and "## cifar10: attacks" in titles


def test_the_csv_has_a_line_for_every_run(rows):
    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert len(lines) == len(rows)
    assert (lines[3]["asr_after"], lines[3]["ca_before"], lines[3]["learning_rate"]) == ("0.5", "0.9", "0.001")
    assert (lines[5]["status"], lines[5]["error"], lines[5]["asr_after"]) == (
        "failed",
        "FloatingPointError: not finite",
        "0.98",
    )
    assert 0.4 < float(lines[3]["asr_after_low"]) < 0.5 < float(lines[3]["asr_after_high"]) < 0.6


def test_the_charts_show_every_run(rows):
    rows[2].rebound = [ReboundPoint(step, quality(90, (asr, 1, 5)).metrics) for step, asr in ((0, 4), (50, 9))]
    drawn = charts(rows)
    ours, shake = drawn["ca-asr"].figure.axes
    assert [len(line.get_xdata()) for line in ours.lines] == [3, 3]  # with the one that failed
    assert list(ours.lines[1].get_xydata()[2]) == [98.0, 90.0]
    assert list(shake.lines[1].get_xydata()[0]) == [50.0, 60.0]
    (panel,) = drawn["rebound"].figure.axes
    assert list(panel.lines[0].get_ydata()) == [4.0, 9.0]
    pictures = drawn["cost"].figure.axes[0]
    assert [bar.get_width() for bar in pictures.patches] == [1000, 8000, 500, 8000]
    assert charts([row("sig-0", "none", status="did not take", before=None)]) == {}


def test_the_command_writes_tables_and_pictures(rows, tmp_path):
    for one in rows:
        RunsFile(tmp_path / "runs.jsonl").add(one)
    out = tmp_path / "out"
    done = CliRunner().invoke(cli.app, ["compare", str(tmp_path / "runs.jsonl"), "--output-dir", str(out), "--json"])
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert value["runs"] == len(rows) and value["tables"]["drawings: attacks"][0]["ASR before"] == "98.0"
    assert (out / "table.md").read_text() == markdown(rows)
    assert (out / "runs.csv").read_text() == as_csv(rows)
    assert Image.open(out / "ca-asr.png").width > 500 and Image.open(out / "cost.png").width > 500
    shown = CliRunner().invoke(cli.app, ["compare", str(tmp_path / "runs.jsonl")], env={"COLUMNS": "200"})
    assert "multi-target" in shown.stdout and "did not take" in shown.stdout
    (tmp_path / "file").touch()
    arguments = ["compare", str(tmp_path / "runs.jsonl"), "--output-dir", str(tmp_path / "file")]
    refused = CliRunner().invoke(cli.app, arguments)
    assert refused.exit_code == 2 and "error: --output-dir: " in refused.stderr


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--share: got '2'; pass i/n", ["--share", "2"]),
        ("--seeds: got 'a'; pass whole numbers", ["--seeds", "a"]),
        ("--defences: 'hf_invertun' is none of .*; the nearest are 'hf_invertune'", ["--defences", "hf_invertun"]),
        ("--learning-rates: .* cannot be used", ["--learning-rates", "rates.json"]),
        (
            "--learning-rates: .* was searched on cifar10, and the zoo is of drawings",
            ["--learning-rates", "other.json"],
        ),
        ("--learning-rates: .* with revision 9 of par, which is at 0 now", ["--learning-rates", "older.json"]),
        ("zoo: .* are not made yet; finish it with `hf-invertune zoo`", ["--images", "64", "--test-images", "96"]),
    ],
)
def test_wrong_input_of_the_arena(tmp_path, monkeypatch, message, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rates.json").write_text('{"rates": 1}')
    (tmp_path / "other.json").write_text('{"world": "cifar10", "learning_rates": {"par": 1e-3}}')
    (tmp_path / "older.json").write_text('{"learning_rates": {"par": 1e-3}, "revisions": {"par": 9}}')
    write_json(tmp_path / "zoo" / "recipe.json", Recipe.load(RECIPE).values())
    done = CliRunner().invoke(cli.app, ["arena", "zoo", "--output", "runs.jsonl", *arguments])
    assert done.exit_code == 2
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "runs.jsonl").exists()


def test_a_worker_that_died_is_one_line_and_exit_code_1(tmp_path, monkeypatch):
    def die(*given, **settings):
        raise ChildProcessError("A worker died; run the same command to go on.")

    monkeypatch.setattr("hf_invertune.lab.arena.benchmark.benchmark", die)
    write_json(tmp_path / "zoo" / "recipe.json", Recipe.load(RECIPE).values())
    done = CliRunner().invoke(cli.app, ["arena", str(tmp_path / "zoo"), "--output", str(tmp_path / "runs.jsonl")])
    assert done.exit_code == 1 and done.stderr.endswith("error: A worker died; run the same command to go on.\n")


def test_an_arena_without_a_zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["arena", "zoo", "--output", "runs.jsonl"])
    assert done.exit_code == 2 and "error: zoo: zoo holds no recipe.json; make one" in done.stderr
