import json
import multiprocessing
import re
import resource
import shutil
import time
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from arena_zoo import DEFENCES, Diverge, Explode, FakeWorld, FakeZoo, Keep, Shake, Troubled, make_zoo, pairs

from hf_invertune.errors import InputError
from hf_invertune.lab.arena.rebound import ReboundConfig
from hf_invertune.lab.arena.rows import RunsFile, read_rows
from hf_invertune.lab.arena.run import ArenaSettings, run_arena
from hf_invertune.stages.verdict import Verdict


SETTINGS = ArenaSettings(images=16, test_images=24)
PASSING = ("created", "cost")
SEEDS = (0, 1)
COMMON = {"settings": SETTINGS, "learning_rates": {"shake": 0.1}}
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_zoo(tmp_path_factory.mktemp("zoo")).folder


@pytest.fixture
def zoo(folder):
    return FakeZoo(folder)


def figures(path):
    """What the lines of a file say, but for the time that they took."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(json.dumps({k: v for k, v in line.items() if k not in PASSING}, sort_keys=True) for line in lines)


def arena(folder, output):
    """An arena in a process of its own, which need not import everything anew."""
    process = FORK.Process(target=run_arena, args=(FakeZoo(folder), output, DEFENCES, SEEDS), kwargs=COMMON)
    process.start()
    return process


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The file of an arena that nobody disturbed: 4 victims x 2 defences x 2 seeds."""
    output = tmp_path_factory.mktemp("whole") / "runs.jsonl"
    run_arena(FakeZoo(folder), output, DEFENCES, SEEDS, **COMMON)
    return output


def test_each_run_is_one_row(whole):
    rows = read_rows([whole])
    assert len(rows) == len(figures(whole)) == 16
    assert {row.victim for row in rows} == {"badnet-0", "badnet-1", "clean-0", "sig-0"}  # none of validation
    keep, shake = ({row.victim: row for row in rows if row.defence == name and row.seed == 1} for name in DEFENCES)
    assert keep["badnet-0"].identical and keep["badnet-0"].before == keep["badnet-0"].after
    assert keep["badnet-0"].cost.forward == 0
    row = shake["badnet-1"]
    assert (row.status, row.verdict, row.target, row.identical) == ("done", Verdict.BACKDOORED, "green ring", False)
    assert (row.details, row.learning_rate, row.victim_seed) == ({"images": 16}, 0.1, 1)
    assert row.before != row.after and row.inverted_before.count == row.inverted_after.count > 0
    assert row.after.metrics[0].target_rate.count == row.after.retrieval_attacks[0].success[1].count < 24
    assert (row.after.metrics[0].clean_accuracy.count, row.after.retrieval.image_to_text[5].count) == (24, 24)


def test_a_victim_that_did_not_take_is_not_scored(whole):
    rows = [row for row in read_rows([whole]) if row.victim == "sig-0"]
    assert len(rows) == 4
    assert all((row.status, row.before, row.after, row.cost) == ("did not take", None, None, None) for row in rows)


def test_a_clean_model_has_an_accuracy_and_no_attack(whole):
    row = next(row for row in read_rows([whole]) if row.victim == "clean-0" and row.defence == "keep")
    assert (row.attack, row.identical, row.after.retrieval_attacks) == (None, True, [])
    assert row.after.metrics[0].attack_success_rate is None and row.after.metrics[0].clean_accuracy.count == 24


def test_an_arena_that_was_killed_goes_on(zoo, folder, whole, tmp_path, monkeypatch):
    output = tmp_path / "runs.jsonl"
    monkeypatch.setattr(Keep, "nap", 0.3)
    process = arena(folder, output)
    while not output.exists() or output.read_bytes().count(b"\n") < 3:
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    monkeypatch.undo()
    with output.open("ab") as file:  # and the next line half written
        file.write(output.read_bytes().splitlines()[0][:200])
    assert len(RunsFile(output).rows()) < 16
    run_arena(zoo, output, DEFENCES, SEEDS, **COMMON)
    assert figures(output) == figures(whole)


def test_two_arenas_at_once_lose_nothing_and_double_nothing(folder, whole, tmp_path):
    output = tmp_path / "runs.jsonl"
    both = [arena(folder, output), arena(folder, output)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert figures(output) == figures(whole)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_workers_do_what_one_does(zoo, whole, tmp_path, monkeypatch, method):
    monkeypatch.setattr("hf_invertune.utils.runtime.get_context", lambda _: multiprocessing.get_context(method))
    rows = run_arena(zoo, tmp_path / "runs.jsonl", DEFENCES, SEEDS, **COMMON, workers=2)
    assert figures(tmp_path / "runs.jsonl") == figures(whole)
    assert [row.key for row in rows] == [row.key for row in read_rows([whole])]


def test_a_finished_arena_does_nothing_again(zoo, whole, monkeypatch):
    monkeypatch.setattr(Keep, "defend", None)
    monkeypatch.setattr(Shake, "defend", None)
    content = whole.read_bytes()
    assert len(run_arena(zoo, whole, DEFENCES, SEEDS, **COMMON)) == 16
    assert whole.read_bytes() == content


def test_shares_are_disjoint_and_complete(zoo, tmp_path):
    output = tmp_path / "runs.jsonl"
    parts = [run_arena(zoo, output, {"keep": Keep}, [0], settings=SETTINGS, share=(part, 3)) for part in (1, 2, 3)]
    assert [len(part) for part in parts] == [2, 1, 1] and len(read_rows([output])) == 4


def test_a_defence_that_fails_is_a_row_too(zoo, tmp_path):
    output, options = tmp_path / "runs.jsonl", {"victims": ["badnet-0"], "settings": SETTINGS}
    (row,) = run_arena(zoo, output, {"diverge": Diverge}, [0], **options)
    assert (row.status, row.error, row.after) == ("failed", "FloatingPointError: the loss is not finite", None)
    run_arena(zoo, output, {"diverge": Diverge}, [0], **options)
    assert len(output.read_text().splitlines()) == 1
    options["settings"] = replace(SETTINGS, retry=True)
    run_arena(zoo, output, {"diverge": Diverge}, [0], **options)
    assert len(output.read_text().splitlines()) == 2 and len(read_rows([output])) == 1


def test_a_rebound_is_measured_when_it_is_asked_for(zoo, tmp_path):
    output, victims = tmp_path / "runs.jsonl", ["badnet-0", "clean-0"]
    run_arena(zoo, output, {"keep": Keep}, [0], victims=victims, settings=SETTINGS)
    rebound = ReboundConfig(steps=2, every=1, batch_size=8, test_images=10)
    settings = replace(SETTINGS, rebound=rebound)
    first, clean = run_arena(zoo, output, {"keep": Keep}, [0], victims=victims, settings=settings)
    assert [point.step for point in first.rebound] == [0, 1, 2] and clean.rebound is None
    assert first.rebound[0].metrics[0].clean_accuracy.count == 10
    assert len(output.read_text().splitlines()) == 3 and len(read_rows([output])) == 2
    faster = replace(settings, rebound=replace(rebound, learning_rate=1.0))
    again, _ = run_arena(zoo, output, {"keep": Keep}, [0], victims=victims, settings=faster)
    assert again.rebound_config == faster.rebound and again.rebound != first.rebound


def test_a_model_that_blows_up_along_the_rebound_is_a_failure(zoo, tmp_path):
    rebound = ReboundConfig(steps=2, every=1, batch_size=8, test_images=10, learning_rate=1e30)
    options = {"victims": ["badnet-0"], "settings": replace(SETTINGS, rebound=rebound)}
    (row,) = run_arena(zoo, tmp_path / "runs.jsonl", {"keep": Keep}, [0], **options)
    assert row.status == "failed" and "is not finite" in row.error and row.rebound is None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("learning_rate", {"victims": ["badnet-0"], "learning_rates": {"shake": 0.2}}),
        ("images", {"settings": replace(SETTINGS, images=17)}),
        ("test_images", {"settings": replace(SETTINGS, test_images=23)}),
    ],
)
def test_one_table_has_one_setting(zoo, tmp_path, name, changes):
    first, second, both = (tmp_path / file for file in ("first", "second", "both"))
    options = {"learning_rates": {"shake": 0.1}, "settings": SETTINGS}
    run_arena(zoo, first, {"shake": Shake}, [0], victims=["badnet-0"], **options)
    options = {"victims": ["badnet-1"], **options, **changes}
    with pytest.raises(InputError, match=f"`output`: another {name} for shake on badnet-0 .* and shake on badnet-."):
        run_arena(zoo, first, {"shake": Shake}, [0], **options)
    assert len(RunsFile(first).rows()) == 1
    run_arena(zoo, second, {"shake": Shake}, [0], **options)
    with pytest.raises(InputError, match=f"`runs`: another {name} for shake"):
        read_rows([first, second])


def test_a_victim_that_was_built_anew_is_another(whole, tmp_path):
    first, *_, last = [json.loads(line) for line in whole.read_text().splitlines()]
    other = {**first, "defence": last["defence"], "learning_rate": last["learning_rate"], "sha256": "t", "key": "t"}
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (first, other)))
    with pytest.raises(InputError, match=f"`runs`: another sha256 for .* on {first['victim']} "):
        read_rows([tmp_path / "runs.jsonl"])


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("`share`: got 3/2", {"share": (3, 2)}),
        ("`learning_rates`: got one for PAR; the defences are", {"learning_rates": {"PAR": 1.0}}),
        ("`victims`: badnet-100 are not in the zoo's table", {"victims": ["badnet-100"]}),
        ("`images`: got 99, and noise has 20", {"settings": ArenaSettings(images=99)}),
        ("`test_images`: got 25, and noise has 24", {"settings": ArenaSettings(images=16, test_images=25)}),
        ("`images`: got 1; shake needs at least 2", {"settings": ArenaSettings(images=1, test_images=24)}),
        ("`workers`: got 0", {"workers": 0}),
        ("`learning_rates`: got none for shake", {"learning_rates": {"keep": 1.0}}),
        ("`learning_rates`: got nan for shake", {"learning_rates": {"shake": float("nan")}}),
        ("`learning_rates`: got -1.0 for shake", {"learning_rates": {"shake": -1.0}}),
        ("`victims`: got .*; name each once", {"victims": ["clean-0", "clean-0"]}),
    ],
)
def test_wrong_input(zoo, tmp_path, message, options):
    with pytest.raises(InputError, match=message):
        run_arena(zoo, tmp_path / "runs.jsonl", DEFENCES, [0], **{**COMMON, **options})
    assert not (tmp_path / "runs.jsonl").exists()


def test_seeds_are_named_once(zoo, tmp_path):
    for seeds in ([0, 0], [-1], [2**32]):
        with pytest.raises(InputError, match="`seeds`"):
            run_arena(zoo, tmp_path / "runs.jsonl", DEFENCES, seeds, **COMMON)


def test_a_zoo_must_be_finished_unless_victims_are_named(folder, tmp_path):
    half = FakeZoo(shutil.copytree(folder, tmp_path / "zoo"))
    planned = half.recipe
    shutil.rmtree(half.folder / "badnet-1")
    with patch.object(FakeZoo, "recipe", planned):
        with pytest.raises(InputError, match=r"`zoo`: badnet-1 \(1 in all\) are not made yet"):
            run_arena(half, tmp_path / "runs.jsonl", {"keep": Keep}, [0], settings=SETTINGS)
        rows = run_arena(half, tmp_path / "runs.jsonl", {"keep": Keep}, [0], victims=["sig-0"], settings=SETTINGS)
    assert [row.victim for row in rows] == ["sig-0"]


@pytest.mark.parametrize("content", ['{"precious": 1}', '{"key": "a"}\n{"precious"', "notes"])
def test_a_file_of_somebody_else_is_left_alone(zoo, tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(InputError, match="`output`: .* ends with what is no run"):
        run_arena(zoo, tmp_path / "mine.json", {"keep": Keep}, [0], settings=SETTINGS)
    assert (tmp_path / "mine.json").read_text() == content
    with pytest.raises(InputError, match="`output`: .* cannot be written to"):
        run_arena(zoo, tmp_path, {"keep": Keep}, [0], settings=SETTINGS)


def test_a_file_of_another_version_is_refused_at_once(zoo, whole, tmp_path):
    older = json.loads(whole.read_text().splitlines()[0])
    del older["sha256"]
    (tmp_path / "runs.jsonl").write_text(json.dumps(older) + "\n")
    with pytest.raises(InputError, match=r"`output`: .* a Row of another shape: \['sha256'\] differ; another version"):
        run_arena(zoo, tmp_path / "runs.jsonl", {"keep": Keep}, [0], settings=SETTINGS)


def test_a_full_disk_is_no_lost_row(whole, tmp_path):
    """Of the second row the disk takes 99 bytes: it is told, and the first one is still there."""
    (row, *_), runs = read_rows([whole]), RunsFile(tmp_path / "runs.jsonl")
    runs.add(row)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (runs.path.stat().st_size + 99, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            runs.add(row)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_rows([runs.path]) == [row]


def test_a_model_that_is_not_finite_is_a_failure(zoo, tmp_path):
    options = {"victims": ["badnet-0"], "settings": SETTINGS}
    (row,) = run_arena(zoo, tmp_path / "runs.jsonl", {"explode": Explode}, [0], **options)
    assert row.status == "failed" and row.error.startswith("FloatingPointError: ") and "is not finite" in row.error


@pytest.mark.parametrize(
    "trouble",
    [
        OSError("disk full"),
        MemoryError("no more"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("No executable batch size found, reached zero."),
        InputError("`data`: got 1 picture"),
    ],
)
def test_the_machines_trouble_is_no_failure_of_a_defence(zoo, tmp_path, monkeypatch, trouble):
    monkeypatch.setattr(Troubled, "trouble", trouble)
    with pytest.raises(type(trouble), match=re.escape(str(trouble))):
        run_arena(zoo, tmp_path / "runs.jsonl", {"troubled": Troubled}, [0], victims=["badnet-0"], settings=SETTINGS)
    assert not (tmp_path / "runs.jsonl").exists()


def test_wrong_input_of_a_worker_reaches_the_caller(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_invertune.utils.runtime.get_context", lambda _: FORK)
    monkeypatch.setattr(Troubled, "trouble", InputError("`data`: got 1 picture"))
    with pytest.raises(InputError, match="`data`: got 1 picture"):
        run_arena(zoo, tmp_path / "runs.jsonl", {"troubled": Troubled}, [0], settings=SETTINGS, workers=2)


def test_other_pictures_than_the_victims_are_refused(folder, tmp_path, monkeypatch):
    """Those of a rebound only when there is one; and nothing is looked at when nothing is left to do."""
    options = {"victims": ["badnet-0"], "settings": SETTINGS}
    monkeypatch.setattr(FakeWorld, "pretraining", pairs(32, 9))
    run_arena(FakeZoo(folder), tmp_path / "runs.jsonl", {"keep": Keep}, [0], **options)
    rebound = replace(SETTINGS, rebound=ReboundConfig(steps=1, batch_size=8, test_images=10))
    with pytest.raises(InputError, match="`zoo`: badnet-0 was made with other pretraining pictures"):
        run_arena(FakeZoo(folder), tmp_path / "runs.jsonl", {"keep": Keep}, [0], **{**options, "settings": rebound})
    monkeypatch.setattr(FakeWorld, "poisoning", pairs(1, 9))
    with pytest.raises(InputError, match="`zoo`: badnet-0 was made with other poisoning pictures"):
        run_arena(FakeZoo(folder), tmp_path / "runs.jsonl", {"keep": Keep}, [1], **options)
    monkeypatch.setattr(FakeWorld, "test", pairs(24, 9))
    run_arena(FakeZoo(folder), tmp_path / "runs.jsonl", {"keep": Keep}, [0], **options)
    with pytest.raises(InputError, match="`zoo`: badnet-0 was made with other test pictures"):
        run_arena(FakeZoo(folder), tmp_path / "runs.jsonl", {"keep": Keep}, [1], **options)


def test_another_revision_of_a_defence_is_run_anew(zoo, tmp_path, monkeypatch):
    output, options = tmp_path / "runs.jsonl", {"victims": ["badnet-0"], "settings": SETTINGS}
    run_arena(zoo, output, {"keep": Keep}, [0], **options)
    monkeypatch.setattr(Keep, "revision", 1)
    (row,) = run_arena(zoo, output, {"keep": Keep}, [0], **options)
    assert row.revision == 1 and len(RunsFile(output).rows()) == 2
    (row,) = read_rows([output])
    assert row.revision == 1


def test_of_two_rows_of_one_run_the_one_that_says_more_counts(zoo, tmp_path):
    files, options = [tmp_path / name for name in ("a", "b", "c")], {"victims": ["badnet-0"]}
    rebound = replace(SETTINGS, rebound=ReboundConfig(steps=1, batch_size=8, test_images=10))
    for file, settings in zip(files, (SETTINGS, rebound, SETTINGS), strict=True):
        run_arena(zoo, file, {"keep": Keep}, [0], settings=settings, **options)
    failed = {**json.loads(files[2].read_text()), "status": "failed", "error": "e", "after": None}
    files[2].write_text(json.dumps(failed) + "\n")
    for order in (files, files[::-1]):
        (row,) = read_rows(order)
        assert row.status == "done" and row.rebound is not None


def test_a_failure_that_another_arena_just_met_is_not_tried_again(zoo, tmp_path, monkeypatch):
    output = tmp_path / "runs.jsonl"
    options = {"victims": ["badnet-0"], "settings": replace(SETTINGS, retry=True)}
    run_arena(zoo, output, {"diverge": Diverge}, [0], **options)
    read, reads = RunsFile.lines, []

    def lines(self):
        reads.append(1)
        return {} if len(reads) <= 4 else read(self)  # until it has begun there is nothing yet

    monkeypatch.setattr(RunsFile, "lines", lines)
    monkeypatch.setattr(Diverge, "defend", None)
    run_arena(zoo, output, {"diverge": Diverge}, [0], **options)
    assert len(output.read_text().splitlines()) == 1


def test_one_table_is_of_one_recipe(whole, tmp_path):
    first, *_, last = whole.read_text().splitlines()
    other = {**json.loads(last), "recipe": "another", "key": "another"}
    (tmp_path / "runs.jsonl").write_text(f"{first}\n{json.dumps(other)}\n")
    with pytest.raises(InputError, match="another recipe .* in the world 'noise'"):
        read_rows([tmp_path / "runs.jsonl"])


def test_files_that_hold_no_runs(tmp_path):
    with pytest.raises(InputError, match="`runs`: there is no file"):
        read_rows([tmp_path / "absent.jsonl"])
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match="`runs`: line 1 of"):
        read_rows([tmp_path / "other.jsonl"])
    with pytest.raises(InputError, match="`test_images`: got 0"):
        ArenaSettings(test_images=0)
