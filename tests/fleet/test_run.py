"""Many models: an answer each, whatever becomes of the others, and the same answers however often the run is killed."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleets import QUICK, said, save_variant
from tiny_plan import save_pictures
from typer.testing import CliRunner

from hf_invertune.cli.main import app
from hf_invertune.errors import InputError
from hf_invertune.fleet import run
from hf_invertune.fleet.cache import ScanCache
from hf_invertune.fleet.run import AnswersFile, scan_models
from hf_invertune.lab import drawings
from hf_invertune.lab.demo import demo_victim
from hf_invertune.stages.configs import RemovalConfig


LABELS = ("red circle", "blue square", "green ring")
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def options(config):
    return {"class_names": LABELS, "config": config, "device": "cpu"}


@pytest.fixture(scope="module")
def whole(fleet, looked_at, tmp_path_factory):
    """The folder of a fleet that nobody disturbed, and its answers."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    config = RemovalConfig.of(QUICK)
    return folder, scan_models(fleet, looked_at, LABELS, config=config, output_dir=folder, device="cpu")


def test_one_that_fails_leaves_the_others(whole, fleet):
    folder, answers = whole
    assert [one.model for one in answers] == [str(path) for path in fleet]
    assert [one.exit_code for one in answers] == [0, 0, 2, 0, 0, 0]
    assert answers[2].verdict is None and "broken" in answers[2].error and answers[2].report is None
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [line["model"] for line in lines] == [one.model for one in answers]
    assert len({one.group for one in answers if one.verdict}) == 1
    assert list(answers[0].statistics) == ["window concentration", "additive lead", "keyed lead"]
    for one in answers:
        assert one.report is None or (Path(one.report) / "report.html").is_file()
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == [
        "answers.jsonl",
        "index.html",
        "reports",
    ]


def test_a_finished_fleet_does_nothing_again(whole, fleet, looked_at, options, monkeypatch):
    folder, answers = whole
    told = []
    monkeypatch.setattr(run.Scanner, "read", None)
    assert scan_models(fleet, looked_at, output_dir=folder, tell=told.append, **options) == answers
    assert told == answers


def test_one_that_failed_is_tried_again_on_demand(whole, fleet, looked_at, options, monkeypatch):
    folder, answers = whole
    read, tried = run.Scanner.read, []
    monkeypatch.setattr(run.Scanner, "read", lambda self, spec: tried.append(spec.model) or read(self, spec))
    again = scan_models(fleet, looked_at, output_dir=folder, retry_failed=True, **options)
    assert tried == [str(fleet[2])] and again == answers


def test_other_settings_are_other_answers(whole, fleet, looked_at, options, tmp_path):
    folder = tmp_path / "out"
    scan_models(fleet[:1], looked_at, output_dir=folder, **options)
    scan_models(fleet[:1], looked_at, output_dir=folder, **{**options, "config": options["config"].assign(["seed=1"])})
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 2 == len(list((folder / "reports").iterdir()))


def test_a_fleet_that_was_killed_goes_on(whole, fleet, looked_at, options, tmp_path):
    """Killed after its second answer, with a third one half written."""
    folder = tmp_path / "out"
    process = FORK.Process(
        target=scan_models, args=(fleet, looked_at), kwargs={**options, "output_dir": folder, "tell": _nap}
    )
    process.start()
    while not (folder / "answers.jsonl").exists() or (folder / "answers.jsonl").read_bytes().count(b"\n") < 2:
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    with (folder / "answers.jsonl").open("ab") as file:
        file.write((folder / "answers.jsonl").read_bytes()[:99])
    assert said(scan_models(fleet, looked_at, output_dir=folder, **options)) == said(whole[1])


def _nap(answer):
    time.sleep(0.3)


def test_pictures_that_cannot_be_had_end_the_run(fleet, options, tmp_path):
    with pytest.raises(InputError, match="`source`: "):
        scan_models(fleet, tmp_path / "nowhere", output_dir=tmp_path / "out", **options)
    assert (tmp_path / "out" / "answers.jsonl").read_text() == ""


def test_a_folder_of_somebody_else_is_left_alone(fleet, looked_at, options, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="`output_dir`: .* is not empty, and holds no answers.jsonl"):
        scan_models(fleet, looked_at, output_dir=tmp_path, **options)
    (tmp_path / "answers.jsonl").write_text('{"key": "a", "model": "m"}\n')
    with pytest.raises(InputError, match="`output_dir`: .* an Answer of another shape|a Answer of another shape"):
        scan_models(fleet, looked_at, output_dir=tmp_path, **options)


# The command


@pytest.fixture(scope="module")
def pictures(looked_at, tmp_path_factory):
    return save_pictures(looked_at, tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def command(pictures, tmp_path_factory):
    """The options of a quick scan."""
    settings = tmp_path_factory.mktemp("settings") / "quick.yaml"
    settings.write_text(json.dumps(QUICK))
    return ["--images", pictures, "--class-names", ",".join(LABELS), "--config", settings, "--device", "cpu"]


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})


def test_the_command_prints_a_table(fleet, command, tmp_path, caplog):
    (tmp_path / "more.txt").write_text(f"{fleet[2]}\n{fleet[3]}\n")
    outcome = invoke("scan", *fleet[:2], "--models", tmp_path / "more.txt", *command, "--output-dir", tmp_path / "out")
    assert outcome.exit_code == 2, outcome.output
    assert "4 models" in outcome.stdout and "not scanned" in outcome.stdout
    assert f"page: {tmp_path / 'out' / 'index.html'}" in outcome.stderr.splitlines()
    assert f"4/4 {fleet[3]}: clean" in caplog.text


def test_the_command_prints_lines_of_json(fleet, command):
    outcome = invoke("scan", *fleet[:2], *command, "--format", "jsonl")
    assert outcome.exit_code == 0, outcome.output
    lines = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [(line["model"], line["verdict"]) for line in lines] == [(str(path), "clean") for path in fleet[:2]]


def test_the_command_keeps_its_scans(fleet, command, scans):
    assert invoke("scan", fleet[0], *command).exit_code == 0
    assert invoke("scan", fleet[1], *command, "--no-cache").exit_code == 0
    listed = json.loads(invoke("cache", "ls", "--json").stdout)
    (entry,) = listed["entries"]
    assert (listed["folder"], entry["model"], entry["verdict"]) == (str(scans), "one", "clean")
    again = invoke("scan", fleet[0], *command)
    assert again.exit_code == 0 and "pictures and" not in again.stderr  # no estimate, which takes passes
    foreseen = invoke("scan", *fleet[:3], *command, "--dry-run").stderr.splitlines()
    assert foreseen[0] == f"{fleet[0]}: nothing, its scan is in the cache." and "minutes on cpu" in foreseen[1]
    assert foreseen[3].startswith("3 models, 1 in the cache, 1 that cannot be scanned; the others together: ")
    assert invoke("cache", "rm", entry["key"][:12]).stdout == "1 removed\n"
    assert invoke("cache", "rm", "--all").stdout == "0 removed\n"
    assert invoke("cache", "rm").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: MODEL: got none; name at least one, or pass --models or --search."),
        (["a", "b", "--overwrite"], "error: --overwrite: a scan of several models goes on"),
        (["--search", "autor=org"], "error: --search: got 'autor=org'; the nearest is 'author'"),
    ],
)
def test_wrong_input(arguments, message):
    outcome = invoke("scan", *arguments)
    assert outcome.exit_code == 2 and outcome.stderr.startswith(message), outcome.output


# Processes


def launch(folder, models, command, cache):
    """The command in two processes on the CPU, as `accelerate launch` starts them on two GPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    world |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    world |= {"HF_INVERTUNE_CACHE": str(cache), "TQDM_DISABLE": "1"}
    words = [sys.executable, "-m", "hf_invertune", "scan", *models, *command, "--output-dir", folder]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(list(map(str, words)), env={**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank}, **pipes)
        for rank in "01"
    ]


def kill_after(ranks, folder, lines):
    """Kill both processes once there are so many answers."""
    path = folder / "answers.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert all(rank.poll() is None for rank in ranks), ranks[0].communicate()[1][-3000:]
        time.sleep(0.02)
    for rank in ranks:
        rank.kill()
    for rank in ranks:
        rank.communicate()


@pytest.mark.slow
def test_twenty_models_over_two_processes_killed_twice(fleet, command, pictures, options, tmp_path):
    """Complete, and equal to a run of one process that nobody disturbed."""
    for number in range(19):
        save_variant(fleet[0], tmp_path / "models" / str(number), 50 + number)
    models = [tmp_path / "models" / str(number) for number in range(19)]
    models.insert(10, fleet[2])
    undisturbed, killed = scan_models(models, pictures, **options), tmp_path / "killed"
    for lines in (4, 11):
        kill_after(launch(killed, models, command, tmp_path / "cache"), killed, lines)
        assert len(AnswersFile(killed / "answers.jsonl", "f").lines()) < 20
    (out, errors), (silent, others) = (
        rank.communicate() for rank in launch(killed, models, command, tmp_path / "cache")
    )
    assert out.count("20 models") == 1 and silent == "", errors[-3000:]
    assert "Process 1 of 2 takes its share." in errors and "Process 2 of 2 takes its share." in others
    answers = list(AnswersFile(killed / "answers.jsonl", "f").answers().values())
    assert [one.model for one in answers] == list(map(str, models)) and said(answers) == said(undisturbed)
    assert [one.verdict is None for one in answers] == [number == 10 for number in range(20)]


@pytest.mark.slow
def test_the_second_run_takes_a_twentieth_of_the_first_at_most(scans, tmp_path):
    """Of the embedded victims, with the settings that come along."""
    images = drawings.draw(300, seed=7).pixels
    seconds = []
    for name in "ab":
        begin = time.perf_counter()
        answers = scan_models(
            [demo_victim("poisoned"), demo_victim("clean")],
            images,
            drawings.CLASS_NAMES,
            output_dir=tmp_path / name,
            cache=ScanCache(scans),
            device="cpu",
        )
        seconds.append(time.perf_counter() - begin)
        assert [one.verdict for one in answers] == ["backdoored", "clean"]
    print(seconds)  # noqa: T201
    assert seconds[1] < 0.05 * seconds[0], seconds
