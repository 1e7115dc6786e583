"""How far triggers gather pictures on the victims of a zoo: what the bars of a gathering are set on.

    python benchmarks/gathering.py zoo/drawings-dev --only badnet-200 clean-200

Writes benchmarks/results/gathering_<world>.json. The zoo is one for development (benchmarks/zoos/*-dev.yaml): what settings
are chosen on is in no table of defences. A clean model tells what nature does; an attacked one whose attack took, what a
planted trigger of that kind does, found without its label.
"""

import argparse
import dataclasses

import torch
from results_file import write_result

from hf_invertune import Gatherer, GatheringConfig, Zoo
from hf_invertune.utils.runtime import keep_freed_memory


IMAGES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo")
    parser.add_argument("--only", nargs="+", help="names of victims; all when not given")
    parser.add_argument("--train", help="the training pictures, in place of those the zoo's recipe names")
    parser.add_argument("--test", help="the test pictures, likewise")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    zoo, config = Zoo.open(options.zoo), GatheringConfig()
    given = {"train": options.train, "test_source": options.test}
    world = dataclasses.replace(zoo.world, **{name: path for name, path in given.items() if path})
    drawn = torch.randperm(len(world.cleaning), generator=torch.Generator().manual_seed(0))[:IMAGES]
    pixels, victims = world.cleaning.pixels[drawn], {}
    for victim in zoo.victims:
        truth = victim.truth
        if (options.only and truth.name not in options.only) or (truth.attack and not truth.took):
            continue
        best = Gatherer(world.classifier(victim.load().encoder), config).gather(pixels)[0]
        victims[truth.name] = {
            "attack": truth.attack,
            "targets": truth.targets,
            "concentration": round(best.concentration, 4),
            "label": world.class_names[best.label],
            "share": round(best.share, 4),
            "nearest": round(best.nearest, 4),
        }
        print(truth.name, victims[truth.name], flush=True)
    command = f"python benchmarks/gathering.py zoo/{world.name}-dev"
    facts = {"images": IMAGES, "seed": 0, "config": config.plain(), "victims": victims}
    write_result(f"gathering_{world.name}", command, facts)


if __name__ == "__main__":
    main()
