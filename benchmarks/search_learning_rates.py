"""Search the learning rate of each rival defence on the validation victims of a zoo, which are in no table.

    python benchmarks/search_learning_rates.py zoo/ --workers 2

Writes benchmarks/results/learning_rates_<world>.json, which `hf-invertune arena --learning-rates` reads, once all the
searches are through. What is done is kept in the zoo's folder, so the same command goes on where it was killed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from results_file import write_result

from hf_invertune.errors import InputError
from hf_invertune.lab.baselines import BASELINES
from hf_invertune.lab.baselines.search import SearchResult, Trial, choose_rate, try_rates
from hf_invertune.lab.zoo.build import Zoo
from hf_invertune.lab.zoo.worlds import check_digests
from hf_invertune.utils.files import write_json
from hf_invertune.utils.locks import locked
from hf_invertune.utils.runtime import orphaned, work_side_by_side
from hf_invertune.utils.storage import from_plain, to_plain


def conditions(zoo: Zoo, images: int, seed: int) -> dict[str, Any]:
    """What the searches of all defences have in common; they are only done again when some of it has changed."""
    planned = {plan.name for plan in zoo.recipe.plans() if plan.role == "validation" and plan.attack is not None}
    truths = [victim.truth for victim in zoo.victims if victim.truth.name in planned]
    missing = sorted(planned - {truth.name for truth in truths})
    if missing:
        raise InputError(f"`zoo`: {', '.join(missing)} are not made yet; finish it with `hf-invertune zoo`.")
    if not any(truth.took for truth in truths):
        raise InputError(
            "`zoo`: it has no validation victim whose attack took, and nothing can be searched on others."
        )
    if not 1 <= images <= zoo.world.splits.cleaning:
        raise InputError(f"`images`: got {images}; {zoo.world.name} has {zoo.world.splits.cleaning} of them.")
    check_digests(zoo.world, {truth.name: truth.data for truth in truths if truth.took}, "zoo")
    return {
        "world": zoo.world.name,
        "recipe": zoo.digest,
        "images": images,
        "seed": seed,
        "victims": {truth.name: truth.sha256 for truth in truths if truth.took},
        "did_not_take": [truth.name for truth in truths if not truth.took],
    }


def own(common: dict[str, Any], name: str) -> dict[str, Any]:
    """The conditions of one defence's searches."""
    return {**common, "revision": BASELINES[name].revision}


def kept_in(zoo: Zoo, name: str, victim: str) -> Path:
    return zoo.folder / ".searches" / name / f"{victim}.json"


def kept(zoo: Zoo, name: str, victim: str, common: dict[str, Any]) -> dict[float, Trial]:
    """By learning rate, the trials of the grid that were done under the same conditions."""
    path = kept_in(zoo, name, victim)
    stored = json.loads(path.read_text()) if path.is_file() else {"conditions": None}
    trials = from_plain(list[Trial], stored["trials"], path) if stored["conditions"] == own(common, name) else []
    return {trial.learning_rate: trial for trial in trials if trial.learning_rate in BASELINES[name].grid}


def work(zoo: Zoo, names: Sequence[str], common: dict[str, Any], position: int = 0) -> None:
    """Try the rates of each defence on each victim where nobody has done so or is at it."""
    world, seed = zoo.world, common["seed"]
    victims = [victim for victim in zoo.victims if victim.truth.name in common["victims"]]
    drawn = torch.randperm(len(world.cleaning), generator=torch.Generator().manual_seed(seed))[: common["images"]]
    data, validation = world.cleaning.subset(drawn), world.validation
    for name in names:
        for victim in victims:
            path = kept_in(zoo, name, victim.truth.name)
            if orphaned():
                return  # who killed the search wants its workers to stop as well
            with locked(path.with_suffix(".lock")) as ours:
                if not ours:
                    continue
                defence, done = BASELINES[name], kept(zoo, name, victim.truth.name, common)
                rates = [rate for rate in defence.grid if rate not in done]
                if rates:
                    trials = try_rates(defence, victim, data, validation, world.class_names, rates, seed)
                    write_json(path, {"conditions": own(common, name), "trials": to_plain([*done.values(), *trials])})
                    print(f"{name} on {victim.truth.name}: done", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=100, help="not one of the arena's")
    parser.add_argument("--workers", type=int, default=1, help="searches side by side, one thread each")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers: got {options.workers}; pass at least 1")
    zoo = Zoo.open(options.zoo)
    common = conditions(zoo, options.images, options.seed)
    names = [name for name, defence in BASELINES.items() if defence.grid]
    work_side_by_side(work, options.workers, zoo, names, common)
    found, busy = {}, []
    for name in names:
        parts = {victim: kept(zoo, name, victim, common) for victim in common["victims"]}
        busy += [f"{name} on {victim}" for victim, part in parts.items() if set(part) != set(BASELINES[name].grid)]
        trials = [part[rate] for part in parts.values() for rate in sorted(part)]
        found[name] = SearchResult(BASELINES[name].name, options.seed, choose_rate(trials), trials)
    if busy:
        sys.exit(f"Another process is still at {', '.join(busy)}; run this again when it is through.")
    rates = {name: search.learning_rate for name, search in found.items() if search.learning_rate is not None}
    none = [name for name in names if name not in rates]
    if none:
        print(f"No learning rate of {', '.join(none)} left every model finite.", file=sys.stderr)
    for name, rate in rates.items():
        if rate in (min(BASELINES[name].grid), max(BASELINES[name].grid)):
            print(f"{name} does best at {rate}, an end of its grid; it may do better beyond.", file=sys.stderr)
    command = f"python benchmarks/search_learning_rates.py zoo/ --images {options.images} --seed {options.seed}"
    revisions = {name: BASELINES[name].revision for name in rates}
    figures = {**common, "learning_rates": rates, "revisions": revisions, "searches": to_plain(found)}
    write_result(f"learning_rates_{zoo.world.name}", command, figures)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
