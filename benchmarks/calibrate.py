"""What clean models reach by nature, family by family and world by world: the null that the bars of a verdict follow from.

    python benchmarks/calibrate.py

Reads benchmarks/results/detection_<world>.json, text_keys_<world>.json and what calibration_kit.py wrote, if it has been run, and
writes hf_invertune/stages/calibration.json.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

from results_file import RESULTS, result

import hf_invertune
from hf_invertune.stages.calibration import SCALES, Statistic


FILE = Path(hf_invertune.__file__).parent / "stages" / "calibration.json"


LINES, FEWEST = "calibration_models.jsonl", 4
"""What the calibration kit wrote, and how many clean models of a group make a null."""
Reached = Iterator[tuple[Statistic, str, str, float]]
"""A statistic, its family, a world, and what one clean model reaches there."""


def of_zoos() -> Reached:
    """What the clean models of the zoos for development reach."""
    for path in sorted(RESULTS.glob("detection_*.json")):
        world = path.stem.removeprefix("detection_")
        for model in result(path.stem)["victims"].values():
            if model["attack_name"] is None:
                highest: dict[str, float] = {}
                for place in model["places"]:
                    highest.setdefault(place["family"], place["concentration"])
                yield from (("concentration", family, world, value) for family, value in highest.items())
                yield from (("lead", race["family"], world, race["lead"]) for race in model["races"])
        for model in result(f"text_keys_{world}")["victims"].values():
            if model["attack_name"] is None:
                yield "lead", "keyed", world, model["lead"]


def of_models() -> Reached:
    """What the clean models reach that the calibration kit has scanned."""
    path = RESULTS / LINES
    for line in path.read_text().splitlines() if path.is_file() else []:
        model = json.loads(line)
        if model["target"] is None and model["verdict"] is not None:
            for statistic, families in model["statistics"].items():
                yield from ((statistic, family, model["group"], one["value"]) for family, one in families.items())


def main() -> None:
    nulls: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    grouped: dict[tuple[Statistic, str, str], list[float]] = defaultdict(list)
    for statistic, family, world, value in [*of_zoos(), *of_models()]:
        grouped[statistic, family, world].append(SCALES[statistic][0](value))
    for (statistic, family, world), scaled in grouped.items():
        if len(scaled) >= FEWEST:
            figures = {"models": len(scaled), "mean": round(fmean(scaled), 4), "deviation": round(stdev(scaled), 4)}
            nulls.setdefault(statistic, {}).setdefault(family, {})[world] = figures
    FILE.write_text(json.dumps(nulls, indent=2) + "\n")


if __name__ == "__main__":
    main()
