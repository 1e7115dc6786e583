"""What a scan's search for triggers in the text makes of clean models and of attacked ones, and what a removal leaves.

    python benchmarks/text_keys.py zoo/drawings-dev
    python benchmarks/text_keys.py zoo/drawings-dev --remove trojvqa-200

Writes benchmarks/results/text_keys_<world>.json after each model; removals that it holds already stay in it.
"""

import json
from typing import Any

from development import cleaning_data, measured_attack, open_zoo, zoo_parser
from results_file import RESULTS, write_result

from hf_invertune import BackdoorRemover, RemovalConfig
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.stages.text import TextSearch
from hf_invertune.stages.verdict import judged


def main() -> None:
    parser = zoo_parser(__doc__)
    parser.add_argument("--remove", nargs="*", default=[], help="names of victims to clean")
    options = parser.parse_args()
    (world, known), config = open_zoo(options), RemovalConfig()
    data, name = cleaning_data(world), f"text_keys_{world.name}"
    path = RESULTS / f"{name}.json"
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    rows: dict[str, Any] = earlier.get("victims", {})
    removals: dict[str, Any] = earlier.get("removals", {})

    def write() -> None:
        values = {"words": list(config.scan.words), "victims": rows, "removals": removals}
        write_result(name, f"python benchmarks/text_keys.py zoo/{world.name}-dev", values)

    for victim in known.values():
        classifier = ZeroShotClassifier(victim.load().encoder, world.class_names)
        found = TextSearch(classifier, config.scan, config.seed).search(data.pixels, {})
        rows[victim.truth.name] = {
            "attack_name": victim.truth.attack,
            "targets": victim.truth.targets,
            "label": world.class_names[found.label],
            "lead": round(found.lead, 4),
            "verdict": judged(found, config.scan).value,
            "word": found.best and found.best.word,
            "cross_entropy": found.best and round(found.best.objective, 4),
        }
        print(victim.truth.name, rows[victim.truth.name], flush=True)
        write()
    for victim in map(known.__getitem__, options.remove):
        remover = BackdoorRemover(victim.load())
        before = measured_attack(world, victim, remover)
        report = remover.remove(data, config=config).report
        removals[victim.truth.name] = {
            "verdict": report.scan.verdict.value,
            "outcome": report.outcome,
            "reasons": report.reasons,
            "attack": list(zip(before, measured_attack(world, victim, remover), strict=True)),
        }
        print(victim.truth.name, removals[victim.truth.name], flush=True)
        write()


if __name__ == "__main__":
    main()
