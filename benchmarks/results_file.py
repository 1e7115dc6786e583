"""Result files: figures with the machine, versions and date that they came from; written, read and quoted."""

import json
import os
import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hf_invertune.lab.arena.rows import Row, read_rows


RESULTS = Path(__file__).parent / "results"


def write_result(name: str, command: str, figures: dict[str, Any]) -> None:
    """Write `figures` to benchmarks/results/<name>.json."""
    packages = ("torch", "transformers", "peft", "accelerate", "datasets", "scikit-learn")
    facts = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**facts, **figures}, indent=2) + "\n")


def result(name: str) -> dict[str, Any]:
    """What benchmarks/results/<name>.json holds."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def source(name: str) -> str:
    """Where the figures of a result file come from: command, date, machine, versions and file."""
    facts = result(name)
    machine, versions = facts["machine"], facts["versions"]
    return (
        f"`{facts['command']}`, {facts['date']}, {machine['cores']} {machine['processor']} cores, "
        f"torch {versions['torch']}, transformers {versions['transformers']}, peft {versions['peft']}: "
        f"[{name}.json](../benchmarks/results/{name}.json)."
    )


def sourced(text: str, *names: str) -> str:
    """`text` with the [`source`] of each of these result files below it."""
    return f"{text}\n\n" + "  \n".join(map(source, names))


@cache
def rows_of(*paths: Path) -> list[Row]:
    """The runs in these files of an arena."""
    return read_rows(paths)


def percent(share: float) -> str:
    """A share with two digits, in percent."""
    return f"{100 * share:.2f}"
