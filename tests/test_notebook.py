"""examples/see_a_backdoor.ipynb: each cell runs, and shows what it says."""

import ast
import json
import re
from pathlib import Path

import matplotlib
import pytest

import hf_invertune
from hf_invertune import RemovalConfig


NOTEBOOK = Path(__file__).parents[1] / "examples" / "see_a_backdoor.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
SHORT = [
    *("scan.families=[masked]", "scan.gathering.families=[]", "scan.words=[]", "scan.simulation_steps=2"),
    *("scan.steps=[4,2]", "scan.restarts=1", "scan.looks=1", "scan.finalists=2", "scan.rivals=1"),
    *("inversion.steps=4", "inversion.batch_size=8", "tuning.max_steps=3", "tuning.search_steps=0"),
]


def run():
    """All cells, one after another; what they leave behind."""
    matplotlib.use("Agg")
    left = {}
    for source in CODE:
        exec(compile(source, NOTEBOOK.name, "exec"), left)
    return left


def test_it_is_committed_without_outputs_and_uses_public_names():
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in CELLS if "outputs" in cell)
    for node in (node for source in CODE for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_invertune"):
            assert node.module == "hf_invertune"
            assert {alias.name for alias in node.names} <= set(hf_invertune.__all__)


def test_it_names_no_place_of_a_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 20_000 and not re.search(
        r"/(home|root|tmp|Users|work)/|[A-Z]:\\\\|file://|hf_[A-Za-z0-9]{20}", text
    )
    assert json.loads(text)["nbformat"] == 4 and all(cell["id"] for cell in CELLS)


def test_every_cell_runs(monkeypatch):
    """With a search and a tuning of a few steps, and a backdoor that is taken for granted."""
    certain = {"masked": {"quiet": -1e9, "suspicious": -1e9}}
    quick = RemovalConfig.of({"scan": {"bars": certain}}).assign(SHORT)
    monkeypatch.setattr(hf_invertune, "preset", lambda name: quick, raising=False)
    left = run()
    assert left["scan"].verdict == "backdoored" and left["result"].metrics
    assert left["result"].outcome in ("cleaned", "reduced", "not cleaned")


@pytest.mark.slow
def test_it_shows_what_it_says():
    left = run()
    assert left["scan"].target_name == "purple triangle" and left["result"].outcome == "cleaned"
    assert left["read"](left["triggered"]) == left["read"](left["some"])
