"""Removals on victims of other families than CLIP's: a SigLIP, and a CLIP in the format of open_clip, beside that CLIP itself.

    python benchmarks/other_families.py zoo/drawings-dev badnet-200
    python benchmarks/other_families.py zoo/siglip-dev badnet-200 blended-200

Adds to benchmarks/results/other_families.json; a victim in transformers' format is treated as it is, and a CLIP also as a
folder of open_clip.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from development import cleaning_data, measured_attack, world_of, zoo_arguments
from results_file import RESULTS, write_result

from hf_invertune import BackdoorRemover, RemovalConfig, Zoo
from hf_invertune.lab.zoo.victim import Victim
from hf_invertune.utils.runtime import keep_freed_memory


NAME = "other_families"


def forms(victim: Victim, scratch: Path) -> Iterator[tuple[str, BackdoorRemover]]:
    """The victim as a remover has it, by the name of its family or format."""
    remover = BackdoorRemover(victim.load())
    yield remover.source.encoder.architecture, remover
    if remover.source.encoder.architecture == "CLIPModel":
        victim.load().save_pretrained(scratch, format="open_clip")
        yield "open_clip", BackdoorRemover.from_pretrained(scratch)


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = zoo_arguments(argparse.ArgumentParser(description=__doc__, formatter_class=formatter))
    parser.add_argument("victims", nargs="+", help="their names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    zoo = Zoo.open(options.zoo)
    world = world_of(zoo, options)
    known = {victim.truth.name: victim for victim in zoo.victims}
    path = RESULTS / f"{NAME}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["removals"] if path.is_file() else []
    for victim in map(known.__getitem__, options.victims):
        with tempfile.TemporaryDirectory() as scratch:
            for form, remover in forms(victim, Path(scratch)):
                before = measured_attack(world, victim, remover)
                report = remover.remove(cleaning_data(world), config=RemovalConfig()).report
                row = {
                    "model": form,
                    "victim": victim.truth.name,
                    "targets": victim.truth.targets,
                    "verdict": report.scan.verdict.value,
                    "target": report.scan.target_name,
                    "outcome": report.outcome,
                    "reasons": report.reasons,
                    "before": before,
                    "after": measured_attack(world, victim, remover),
                }
                print(json.dumps(row), flush=True)
                rows = [one for one in rows if (one["model"], one["victim"]) != (form, row["victim"])] + [row]
                write_result(NAME, "python benchmarks/other_families.py ZOO VICTIM", {"removals": rows})


if __name__ == "__main__":
    main()
