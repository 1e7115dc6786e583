"""What clean models reach by nature, family by family and world by world: the null that the bars of a verdict follow from.

    python benchmarks/calibrate.py

Reads benchmarks/results/detection_<world>.json and text_keys_<world>.json, and writes hf_invertune/stages/calibration.json.
"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

from results_file import RESULTS, result

import hf_invertune
from hf_invertune.stages.calibration import SCALES


FILE = Path(hf_invertune.__file__).parent / "stages" / "calibration.json"


def main() -> None:
    reached: dict[str, dict[str, dict[str, list[float]]]] = {
        statistic: defaultdict(lambda: defaultdict(list)) for statistic in SCALES
    }
    for path in sorted(RESULTS.glob("detection_*.json")):
        world = path.stem.removeprefix("detection_")
        for model in result(path.stem)["victims"].values():
            if model["attack_name"] is None:
                highest: dict[str, float] = {}
                for place in model["places"]:
                    highest.setdefault(place["family"], place["concentration"])
                for family, value in highest.items():
                    reached["concentration"][family][world].append(value)
                for race in model["races"]:
                    reached["lead"][race["family"]][world].append(race["lead"])
        for model in result(f"text_keys_{world}")["victims"].values():
            if model["attack_name"] is None:
                reached["lead"]["keyed"][world].append(model["lead"])
    nulls = {
        statistic: {
            family: {
                world: {
                    "models": len(values),
                    "mean": round(fmean(map(SCALES[statistic][0], values)), 4),
                    "deviation": round(stdev(map(SCALES[statistic][0], values)), 4),
                }
                for world, values in worlds.items()
            }
            for family, worlds in families.items()
        }
        for statistic, families in reached.items()
    }
    FILE.write_text(json.dumps(nulls, indent=2) + "\n")


if __name__ == "__main__":
    main()
