"""Scans models that are known to be clean or backdoored, so that the bars of a verdict can follow from more of them.

    python benchmarks/calibration_kit.py benchmarks/models/public.yaml --output-dir calibration/
    python benchmarks/calibrate.py && python benchmarks/tables.py

The list names each model with its `group`, whose models are of one kind and size, and the `target` of its backdoor where it has
one; `revision`, `subfolder` and `variant` as in a list for `hf-invertune scan --models`. Each model's statistics become a line of
benchmarks/results/calibration_models.jsonl, or of `--lines`; the reports stay in the folder. Killed, it goes on where it was.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from results_file import RESULTS

from hf_invertune import ModelSpec, RemovalConfig, scan_models
from hf_invertune.answers.answer import Answer
from hf_invertune.data.names import read_class_names
from hf_invertune.utils.files import write_bytes
from hf_invertune.utils.provenance import machine, now, versions


LINES = RESULTS / "calibration_models.jsonl"
NAMED = ("model", "revision", "subfolder", "variant")


def read_list(path: Path) -> list[dict[str, Any]]:
    """The models of a list, each with its group."""
    models: list[dict[str, Any]] = yaml.safe_load(path.read_text())["models"]
    unknown = sorted({name for one in models for name in one} - {*NAMED, "group", "target"})
    lacking = [one.get("model") for one in models if not {"model", "group"} <= one.keys()]
    if unknown or lacking:
        raise SystemExit(f"{path}: unknown keys {unknown}, models without a name or a group {lacking}")
    return models


def line_of(known: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """What one scan says, beside what is known of the model: the highest value of each statistic, family by family."""
    highest: dict[str, dict[str, Any]] = {}
    for part in answer.evidence:
        there = highest.setdefault(part.statistic, {})
        if part.family not in there or part.value > there[part.family]["value"]:
            there[part.family] = {"value": round(part.value, 4), "label": part.label}
    return {
        **{name: known.get(name) for name in ("model", "group", "target")},
        "verdict": answer.verdict,
        "found": answer.target,
        "error": answer.error,
        "statistics": highest,
        "class_names": answer.class_names,
        "images": answer.images,
        "seconds": round(answer.seconds, 1),
        "machine": machine(),
        "versions": versions(),
        "date": now(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="the list, a .yaml file")
    parser.add_argument("--output-dir", required=True, help="folder for answers and reports")
    parser.add_argument("--images", help="clean pictures; by default those of a scan")
    parser.add_argument("--class-names", help="names; by default those of a scan")
    parser.add_argument("--config", help="settings, a .yaml file")
    parser.add_argument("--lines", type=Path, default=LINES, help="where the lines go")
    options = parser.parse_args(arguments)
    models = read_list(options.models)
    answers = scan_models(
        [ModelSpec(**{name: one[name] for name in NAMED if name in one}) for one in models],
        options.images,
        None if options.class_names is None else read_class_names(options.class_names),
        config=RemovalConfig() if options.config is None else RemovalConfig.load(options.config),
        output_dir=options.output_dir,
        retry_failed=True,
    )
    lines = [json.dumps(line_of(known, answer)) + "\n" for known, answer in zip(models, answers, strict=True)]
    write_bytes(options.lines, "".join(lines).encode())


if __name__ == "__main__":
    main()
