"""What the tests of fleets share: names, settings with which a scan takes a tenth of a second, what an answer says."""

import shutil
from dataclasses import replace

from safetensors.torch import load_file, save_file


NAMES = ("one", "two", "three", "four", "five")
NEVER = {"quiet": 1e9, "suspicious": 1e9}
QUICK = {
    "scan": {
        "steps": [1, 1],
        "simulation_steps": 1,
        "families": ["additive"],
        "bars": {"additive": NEVER},
        "gathering": {"families": ["window"], "starts": 2, "steps": 1, "bars": {"window": NEVER}},
        "max_chance": 1.0,
    }
}


def save_variant(model, folder, number):
    """Write a copy of a model into `folder` whose weights are a little different, by its number."""
    shutil.copytree(model, folder)
    stored = load_file(folder / "model.safetensors")
    stored["visual_projection.weight"] *= 1 + 0.01 * number
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def said(answers):
    """What answers say, but for the time that it took and the folder of the report."""
    return [replace(answer, seconds=0.0, report=None) for answer in answers]
