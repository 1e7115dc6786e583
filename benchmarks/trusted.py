"""What a trusted model changes: scans of a zoo's models with the profile of one of its clean models, and without.

    python benchmarks/trusted.py zoo/drawings-dev --reference clean-200

Writes benchmarks/results/trusted_<world>.json after each model, and goes on where it stopped.
"""

import json
from typing import Any

from development import cleaning_data, open_zoo, zoo_parser
from results_file import RESULTS, write_result

from hf_invertune import BackdoorRemover, RemovalConfig
from hf_invertune.stages.identification import ScanResult


def told(scan: ScanResult) -> dict[str, Any]:
    names = scan.class_names
    reached: dict[str, float] = {}
    for place in scan.gatherings:
        reached.setdefault(place.family, round(place.concentration, 4))
    return {
        "verdict": scan.verdict.value,
        "target": scan.target_name,
        "leads": {one.family: [names[one.label], round(one.lead, 4)] for one in scan.evidence},
        "concentrations": reached,
        "bars": {family: [bars.quiet, bars.suspicious] for family, bars in scan.config.gathering.bars.items()},
    }


def main() -> None:
    parser = zoo_parser(__doc__)
    parser.add_argument("--reference", required=True, help="the name of the trusted model")
    parser.add_argument("--only", nargs="+", help="names of models to scan; all when not given")
    options = parser.parse_args()
    (world, known), config = open_zoo(options), RemovalConfig()
    data, name = cleaning_data(world), f"trusted_{world.name}"
    path = RESULTS / f"{name}.json"
    models: dict[str, Any] = json.loads(path.read_text())["models"] if path.is_file() else {}
    profile = BackdoorRemover(known[options.reference].load()).profile(data, config=config)
    for one in options.only or known:
        if one in models or one == options.reference:
            continue
        remover = BackdoorRemover(known[one].load())
        with_it, without = (told(remover.scan(data, config=config, reference=given)) for given in (profile, None))
        models[one] = {"targets": known[one].truth.targets, "with": with_it, "without": without}
        print(one, json.dumps(models[one]), flush=True)
        command = f"python benchmarks/trusted.py zoo/{world.name}-dev --reference {options.reference}"
        write_result(name, command, {"reference": options.reference, "models": models})


if __name__ == "__main__":
    main()
