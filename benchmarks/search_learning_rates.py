"""Search the learning rate of each rival defence on the validation victims of a zoo, which are in no table.

    python benchmarks/search_learning_rates.py zoo/ --workers 2

Writes benchmarks/results/learning_rates_<world>.json, which `hf-invertune arena --learning-rates` reads.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from results_file import write_result

from hf_invertune.baselines import BASELINES
from hf_invertune.baselines.search import search_learning_rate
from hf_invertune.runtime import begin_worker
from hf_invertune.storage import to_plain
from hf_invertune.zoo.build import Zoo


def search(name: str, folder: str, images: int, seed: int) -> dict:
    zoo = Zoo.open(folder)
    victims = [victim for victim in zoo.victims if victim.truth.role == "validation" and victim.truth.took]
    cleaning = zoo.world.cleaning
    drawn = torch.randperm(len(cleaning), generator=torch.Generator().manual_seed(seed))[:images]
    validation, names = zoo.world.validation, zoo.world.class_names
    return to_plain(
        search_learning_rate(BASELINES[name], victims, cleaning.subset(drawn), validation, names, seed=seed)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=100, help="not one of the arena's")
    parser.add_argument("--workers", type=int, default=1, help="defences searched side by side, one thread each")
    options = parser.parse_args()
    names = [name for name, defence in BASELINES.items() if defence.grid]
    with ProcessPoolExecutor(options.workers, get_context("spawn"), begin_worker) as pool:
        running = [pool.submit(search, name, options.zoo, options.images, options.seed) for name in names]
        found = {name: done.result() for name, done in zip(names, running, strict=True)}
    rates = {name: result["learning_rate"] for name, result in found.items()}
    print(rates, file=sys.stderr)
    figures = {"images": options.images, "learning_rates": rates, "searches": found}
    command = f"python benchmarks/search_learning_rates.py zoo/ --images {options.images} --seed {options.seed}"
    write_result(f"learning_rates_{Zoo.open(options.zoo).world.name}", command, figures)


if __name__ == "__main__":
    main()
