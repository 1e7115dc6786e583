"""Processes that work together on one model share its search, and come to what one process would."""

import json
from pathlib import Path

import pytest
from forked import run_two_ranks

from hf_invertune.utils.sharing import alone, shared


TESTS = Path(__file__).parents[1] / "helpers"
TOGETHER = """
import json, sys
sys.path.insert(0, sys.argv[3])
from hf_invertune.models.loading import load_model
from hf_invertune.utils.sharing import alone, shared, this_process
from searches import found_by, search

state = this_process()
assert state.num_processes == 2, state.num_processes
rank = state.process_index

done = []
def work(items):
    done.extend(items)
    return [10 * item for item in items]
assert shared(work, 5) == [0, 10, 20, 30, 40]
assert done == ([0, 1, 2] if rank == 0 else [3, 4]), done
assert shared(work, 1) == [0]  # one of them has nothing to do
done.clear()
with alone():
    assert shared(work, 3) == [0, 10, 20] and done == [0, 1, 2]

def fail(items):
    if rank == 1:
        raise FloatingPointError("the second process alone fails")
    return items
try:
    shared(fail, 4)
    raise AssertionError("the failure stayed with the process that failed")
except FloatingPointError as error:
    assert "second process" in str(error)

source = load_model(sys.argv[1], device="cpu")
passed = []
embed = source.encoder.image_features
source.encoder.image_features = lambda pixels: passed.append(pixels.requires_grad * len(pixels)) or embed(pixels)
result = found_by(search(source))
with open(f"{sys.argv[2]}-{rank}.json", "w") as file:
    json.dump({"found": result, "learnt": sum(passed)}, file)
"""


@pytest.fixture(scope="module")
def ranks(tiny_folder, tmp_path_factory):
    """What each of two processes found, and how many pictures it learnt on."""
    folder = tmp_path_factory.mktemp("together")
    script = folder / "search.py"
    script.write_text(TOGETHER)
    for rank in run_two_ranks(script, tiny_folder, folder / "out", TESTS):
        assert rank.returncode == 0, rank.stderr[-3000:]
    return [json.loads((folder / f"out-{rank}.json").read_text()) for rank in (0, 1)]


def test_both_find_what_one_process_finds(ranks, tiny_folder):
    from searches import found_by, search

    from hf_invertune.models.loading import load_model

    expected = json.loads(json.dumps(found_by(search(load_model(tiny_folder, device="cpu")))))
    first, second = (rank["found"] for rank in ranks)
    assert first == second
    assert first["verdict"] == expected["verdict"] and first["target"] == expected["target"]
    for name in ("scores", "concentrations"):
        assert first[name] == pytest.approx(expected[name], rel=1e-3)


def test_each_learns_on_a_part(ranks, tiny_folder):
    from searches import learnt_by_one

    whole, (first, second) = learnt_by_one(tiny_folder), (rank["learnt"] for rank in ranks)
    assert 0.4 * whole < second <= first < 0.65 * whole


def test_without_others_all_is_done_here():
    assert shared(lambda items: [-item for item in items], 3) == [0, -1, -2]
    with alone():
        assert shared(list, 2) == [0, 1]


def test_errors_pass():
    with pytest.raises(ZeroDivisionError):
        shared(lambda items: [1 // item for item in items], 3)
