"""Search the learning rate of each rival defence on the validation victims of a zoo, which are in no table.

    python benchmarks/search_learning_rates.py zoo/ --workers 2

Writes benchmarks/results/learning_rates_<world>.json, which `hf-invertune arena --learning-rates` reads, once all the
searches are through. What is done is kept in the zoo's folder, so the same command goes on where it was killed.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from results_file import write_result

from hf_invertune import InputError, search_learning_rates
from hf_invertune.lab.baselines import BASELINES


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=100, help="not one of the arena's")
    parser.add_argument("--workers", type=int, default=1, help="searches side by side, one thread each")
    options = parser.parse_args(arguments)
    settings = {"images": options.images, "seed": options.seed}
    found = search_learning_rates(BASELINES, options.zoo, **settings, workers=options.workers).plain()
    command = f"python benchmarks/search_learning_rates.py zoo/ --images {options.images} --seed {options.seed}"
    write_result(f"learning_rates_{found['world']}", command, found)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
