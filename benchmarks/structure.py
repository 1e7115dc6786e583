"""Measure the package's structure: files, rooms, imports between them, circles, long files, lines of the method.

    python benchmarks/structure.py                       # this tree
    python benchmarks/structure.py --before ../before    # and a checkout of an earlier commit, beside it

Writes benchmarks/results/structure.json. That no import runs up by the order of docs/architecture.md is held by
tests/test_layers.py.
"""

import argparse
import ast
import subprocess
from itertools import permutations
from pathlib import Path

from results_file import write_result


ROOT = Path(__file__).parent.parent
METHOD = {
    "before": ["identification.py", "inversion.py", "localization.py", "plan.py", "trainer.py"],
    "now": ["stages/**/*.py", "tuning/trainer.py", "tuning/losses.py"],
}
LONG = 400


def modules(package: Path) -> dict[str, Path]:
    """By dotted name within the package, every file but the package's own and `__main__`."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("", "__main__"):
            found[name] = path
    return found


def imports(name: str, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports, also for types alone."""
    here = name.split(".")
    package = here if known[name].stem == "__init__" else here[:-1]
    found = set()
    for node in ast.walk(ast.parse(known[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - (node.level - 1)], *(node.module or "").split(".")]
            base = [part for part in base if part]
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in known else ".".join(base))
    return found & known.keys() - {name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that all reach one another (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            members: list[str] = []
            while not members or members[-1] != node:
                members.append(stack.pop())
            if len(members) > 1:
                found.append(sorted(members))

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(found)


def arrows_up(arrows: set[tuple[str, str]]) -> int:
    """How many arrows run up when the rooms stand in the order that leaves the fewest."""
    graph: dict[str, set[str]] = {room: set() for arrow in arrows for room in arrow}
    for a, b in arrows:
        graph[a].add(b)
    fewest = 0
    for circle in circles(graph):
        orders = [{room: place for place, room in enumerate(order)} for order in permutations(circle)]
        within = [(a, b) for a, b in arrows if a in circle and b in circle]
        fewest += min(sum(order[a] < order[b] for a, b in within) for order in orders)
    return fewest


def measure(package: Path, method: list[str]) -> dict:
    known = modules(package)
    lines = {name: len(path.read_text().splitlines()) for name, path in known.items()}
    graph = {name: imports(name, known) for name in known}
    rooms = sorted({name.split(".")[0] for name in known})
    ends = {(a.split(".")[0], b.split(".")[0]) for a, targets in graph.items() for b in targets}
    arrows = {(a, b) for a, b in ends if a != b}
    files = {path for pattern in method for path in package.glob(pattern)}
    commit = subprocess.run(["git", "-C", str(package), "log", "-1", "--format=%h"], capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip(),
        "files": len(known),
        "rooms": len(rooms),
        "arrows_between_rooms": len(arrows),
        "arrows_up": arrows_up(arrows),
        "circles": circles(graph),
        "files_over_400_lines": sorted(name for name, count in lines.items() if count > LONG),
        "longest_file": max(lines.values()),
        "lines": sum(lines.values()),
        "lines_of_the_lab": sum(count for name, count in lines.items() if name.split(".")[0] == "lab"),
        "lines_of_the_method": sum(len(path.read_text().splitlines()) for path in files),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit")
    options = parser.parse_args()
    figures = {"now": measure(ROOT / "hf_invertune", METHOD["now"])}
    command = "python benchmarks/structure.py"
    if options.before:
        figures = {"before": measure(options.before / "hf_invertune", METHOD["before"]), **figures}
        command += " --before ../before"
    write_result("structure", command, figures)


if __name__ == "__main__":
    main()
