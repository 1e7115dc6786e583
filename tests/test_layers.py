"""Imports of the package run one way, and in no circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hf_invertune


PACKAGE = Path(hf_invertune.__file__).parent
FLOORS = [
    {"errors"},
    {"utils"},
    {"triggers", "data"},
    {"models"},
    {"stages"},
    {"report", "answers"},
    {"hub"},
    {"tuning"},
    {"remover"},
    {"fleet"},
    {"lab"},
    {"cli"},
]
"""From the ground up: a room may import from its own floor's room, and from the floors beneath."""
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def modules():
    """By dotted name within the package, every file but the package's own and `__main__`, which open the doors."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("", "__main__"):
            found[name] = path
    return found


MODULES = modules()


def imports(name):
    """The modules of the package that a module imports, wherever in it the statement stands, also for types alone."""
    path, here = MODULES[name], name.split(".")
    package = here if path.stem == "__init__" else here[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)] + (node.module or "").split(".")
            base = [part for part in base if part]
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                target = whole if whole in MODULES else ".".join(base)
                if target and target != name:
                    yield target
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(one.split(".")[0] == "hf_invertune" for one in names), f"{name}: import it relatively"


def test_every_room_has_a_floor():
    assert {name.split(".")[0] for name in MODULES} == set(LEVEL)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_down(name):
    room = name.split(".")[0]
    for target in imports(name):
        other = target.split(".")[0]
        assert other == room or LEVEL[other] < LEVEL[room], f"{name} imports {target}"
        assert other != "lab" or room in ("lab", "cli")


def test_there_is_no_circle():
    graph = {name: set(imports(name)) for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_too_long():
    longest = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in longest.items() if lines > 400} == {}
