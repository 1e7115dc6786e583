"""The reference has an entry for every public name, and the documents speak of nothing that does not exist."""

import ast
import re
from pathlib import Path

import hf_invertune


ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs" / "reference"


def test_every_public_name_has_one_entry_and_nothing_else_has():
    entries = [name for page in REFERENCE.glob("*.md") for name in re.findall(r"^::: (.+)$", page.read_text(), re.M)]
    assert sorted(entries) == sorted(f"hf_invertune.{name}" for name in hf_invertune.__all__ if name != "__version__")
    index = (REFERENCE / "index.md").read_text()
    assert [name for name in hf_invertune.__all__ if f"hf_invertune.{name}" not in index] == []


def test_every_public_name_has_a_docstring():
    names = [name for name in hf_invertune.__all__ if name != "__version__"]
    assert [name for name in names if not getattr(hf_invertune, name).__doc__] == []


def test_pages_import_public_names_alone():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for names in re.findall(r"^from hf_invertune import (?:\(([^)]*)\)|(.*))", page.read_text(), re.M):
            imported = set(re.findall(r"\w+", "".join(names)))
            assert imported <= set(hf_invertune.__all__), page


def test_docstrings_refer_to_what_there_is():
    """A [`Name`] in a docstring is a module, class, function, method, field or constant of the package."""
    trees = {path: ast.parse(path.read_text()) for path in (ROOT / "hf_invertune").rglob("*.py")}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    known = {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    known |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    known |= {part for path in trees for part in path.relative_to(ROOT).with_suffix("").parts}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for name in re.findall(r"\[`([\w.]+)`\]", ast.get_docstring(node) or ""):
                    assert set(name.split(".")) <= known, f"{path}: {name}"
