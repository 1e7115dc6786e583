"""What a scan, or a whole removal, makes of each victim of a zoo for development: what the bars are set on.

    python benchmarks/detection.py zoo/drawings-dev
    python benchmarks/detection.py zoo/drawings-dev --remove --only badnet-200 multi-target-200

Writes benchmarks/results/detection_<world>.json, or removal_<world>.json, after each victim, and goes on where it stopped.
The zoo is one for development (benchmarks/zoos/*-dev.yaml): what settings are chosen on is in no table of defences.
"""

import json
import time
from typing import Any

from development import IMAGES, cleaning_data, measured_attack, open_zoo, zoo_parser
from results_file import RESULTS, write_result

from hf_invertune import BackdoorRemover, RemovalConfig
from hf_invertune.data.pixels import PixelDataset
from hf_invertune.lab.zoo.victim import Victim
from hf_invertune.lab.zoo.worlds import World
from hf_invertune.stages.identification import ScanResult


def scanned(scan: ScanResult) -> dict[str, Any]:
    names = scan.class_names
    return {
        "verdict": scan.verdict.value,
        "target": scan.target_name,
        "places": [
            {
                "family": place.family,
                "label": names[place.label],
                "share": round(place.share, 4),
                "concentration": round(place.concentration, 4),
                "nearest": round(place.nearest, 4),
            }
            for place in scan.gatherings
        ],
        "races": [
            {"family": race.family, "label": names[race.label], "lead": round(race.lead, 4)} for race in scan.evidence
        ],
    }


def removed(world: World, victim: Victim, remover: BackdoorRemover, data: PixelDataset) -> dict[str, Any]:
    """The outcome, and the attack's own triggers before and after, one entry a target."""
    before = measured_attack(world, victim, remover)
    report = remover.remove(data, config=RemovalConfig()).report
    after = measured_attack(world, victim, remover)
    return {
        **scanned(report.scan),
        "outcome": report.outcome,
        "reasons": report.reasons,
        "attack": [{name: [old[name], new[name]] for name in old} for old, new in zip(before, after, strict=True)],
    }


def main() -> None:
    parser = zoo_parser(__doc__)
    parser.add_argument("--only", nargs="+", help="names of victims, in this order; all when not given")
    parser.add_argument("--remove", action="store_true", help="remove what is found, and measure the attack itself")
    options = parser.parse_args()
    world, known = open_zoo(options)
    data = cleaning_data(world)
    name = f"{'removal' if options.remove else 'detection'}_{world.name}"
    settings = json.loads(json.dumps(RemovalConfig().plain()))
    path = RESULTS / f"{name}.json"
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    victims = earlier["victims"] if earlier.get("config") == settings else {}
    command = f"python benchmarks/detection.py zoo/{world.name}-dev{' --remove' * options.remove}"
    for victim in map(known.__getitem__, options.only or known):
        truth = victim.truth
        if truth.name in victims or (truth.attack and not truth.took):
            continue
        begin, remover = time.perf_counter(), BackdoorRemover(victim.load())
        if options.remove:
            found = removed(world, victim, remover, data)
        else:
            found = scanned(remover.scan(data, config=RemovalConfig()))
        seconds = round(time.perf_counter() - begin)
        victims[truth.name] = {"attack_name": truth.attack, "targets": truth.targets, **found, "seconds": seconds}
        print(truth.name, json.dumps(victims[truth.name]), flush=True)
        write_result(name, command, {"images": IMAGES, "seed": 0, "config": settings, "victims": victims})


if __name__ == "__main__":
    main()
