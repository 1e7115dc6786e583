"""Removals on victims of other families than CLIP's: a SigLIP, and a CLIP in the format of open_clip, beside that CLIP itself.

    python benchmarks/other_families.py zoo/drawings-dev badnet-200
    python benchmarks/other_families.py zoo/siglip-dev badnet-200 blended-200

Adds to benchmarks/results/other_families.json; a victim in transformers' format is treated as it is, and a CLIP also as a
folder of open_clip.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from development import cleaning_data, measured_attack, open_zoo, zoo_parser
from results_file import RESULTS, write_result

from hf_invertune import BackdoorRemover, RemovalConfig
from hf_invertune.lab.zoo.victim import Victim


NAME = "other_families"


def forms(victim: Victim, scratch: Path) -> Iterator[tuple[str, BackdoorRemover]]:
    """The victim as a remover has it, by the name of its family or format."""
    remover = BackdoorRemover(victim.load())
    yield remover.source.encoder.architecture, remover
    if remover.source.encoder.architecture == "CLIPModel":
        victim.load().save_pretrained(scratch, format="open_clip")
        yield "open_clip", BackdoorRemover.from_pretrained(scratch)


def main() -> None:
    parser = zoo_parser(__doc__)
    parser.add_argument("victims", nargs="+", help="their names")
    options = parser.parse_args()
    world, known = open_zoo(options)
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
