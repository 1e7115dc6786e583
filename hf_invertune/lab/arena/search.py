"""The learning rates of defences, searched on the validation victims of a zoo, which are in no table."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...utils.files import write_json
from ...utils.locks import locked
from ...utils.runtime import orphaned, work_side_by_side
from ...utils.storage import from_plain, to_plain
from ..baselines.defence import Defence
from ..baselines.search import SearchResult, Trial, choose_rate, try_rates
from ..zoo.build import Zoo
from ..zoo.worlds import check_digests


logger = logging.getLogger(__name__)


@dataclass
class RatesFound:
    """What the searches of several defences found.

    Attributes:
        conditions (`dict`): what all searches have in common: world, pictures, seed, victims.
        searches (`dict[str, SearchResult]`): by the defence's name, every rate on every victim.
        revisions (`dict[str, int]`): by the defence's name.
    """

    conditions: dict[str, Any]
    searches: dict[str, SearchResult]
    revisions: dict[str, int]

    @property
    def learning_rates(self) -> dict[str, float]:
        """By the defence's name, the rate that it does best with; none of a defence that failed with each."""
        rates = {name: search.learning_rate for name, search in self.searches.items()}
        return {name: rate for name, rate in rates.items() if rate is not None}

    def plain(self) -> dict[str, Any]:
        """All of it as what JSON holds; `hf-invertune arena --learning-rates` reads it."""
        own = {"learning_rates": self.learning_rates, "revisions": self.revisions}
        return {**self.conditions, **own, "searches": to_plain(self.searches)}


def search_learning_rates(
    defences: Mapping[str, type[Defence]],
    zoo: str | Path | Zoo,
    *,
    images: int = 500,
    seed: int = 100,
    workers: int = 1,
) -> RatesFound:
    """Try each rate of the grid of each defence on each validation victim of a zoo, and choose.

    What is done is kept in the zoo's folder, so a second call goes on where the first was killed, and several may work at
    once. A defence without a grid is left out.

    Args:
        defences (`Mapping[str, type[Defence]]`): by the name that a table shall know them by.
        zoo (`str`, `Path` or [`Zoo`]): made by `build_zoo`.
        images (`int`): the defender's clean pictures.
        seed (`int`): of their draw and of the defences; not one that a table uses.
        workers (`int`): searches side by side, one thread each.

    Raises:
        InputError: when the zoo has no validation victim whose attack took, lacks one, or is of other pictures.
        ChildProcessError: when a worker died, or another process is still at some searches.
    """
    zoo = zoo if isinstance(zoo, Zoo) else Zoo.open(zoo)
    if workers < 1:
        raise InputError(f"`workers`: got {workers}; pass at least 1.")
    searched = {name: defence for name, defence in defences.items() if defence.grid}
    common = _conditions(zoo, images, seed)
    work_side_by_side(_work, workers, zoo, searched, common)
    found, busy = {}, []
    for name, defence in searched.items():
        parts = {victim: _kept(zoo, name, defence, victim, common) for victim in common["victims"]}
        busy += [f"{name} on {victim}" for victim, part in parts.items() if set(part) != set(defence.grid)]
        trials = [part[rate] for part in parts.values() for rate in sorted(part)]
        found[name] = SearchResult(defence.name, seed, choose_rate(trials), trials)
    if busy:
        raise ChildProcessError(f"Another process is still at {', '.join(busy)}; run this again when it is through.")
    result = RatesFound(common, found, {name: defence.revision for name, defence in searched.items()})
    for name, rate in result.learning_rates.items():
        if rate in (min(searched[name].grid), max(searched[name].grid)):
            logger.warning("%s does best at %g, an end of its grid; it may do better beyond.", name, rate)
    for name in sorted(set(searched) - set(result.learning_rates)):
        logger.warning("No learning rate of %s left every model finite.", name)
    return result


def _conditions(zoo: Zoo, images: int, seed: int) -> dict[str, Any]:
    """What the searches of all defences have in common; they are only done again when some of it has changed."""
    planned = {plan.name for plan in zoo.recipe.plans() if plan.role == "validation" and plan.attack is not None}
    truths = [victim.truth for victim in zoo.victims if victim.truth.name in planned]
    missing = sorted(planned - {truth.name for truth in truths})
    if missing:
        raise InputError(f"`zoo`: {', '.join(missing)} are not made yet; finish it with `hf-invertune zoo`.")
    if not any(truth.took for truth in truths):
        raise InputError(
            "`zoo`: it has no validation victim whose attack took, and learning rates can be searched on no others; "
            "pass `learning_rates`."
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


def _own(common: dict[str, Any], defence: type[Defence]) -> dict[str, Any]:
    """The conditions of one defence's searches."""
    return {**common, "revision": defence.revision}


def _kept_in(zoo: Zoo, name: str, victim: str) -> Path:
    return zoo.folder / ".searches" / name / f"{victim}.json"


def _kept(zoo: Zoo, name: str, defence: type[Defence], victim: str, common: dict[str, Any]) -> dict[float, Trial]:
    """By learning rate, the trials of the grid that were done under the same conditions."""
    path = _kept_in(zoo, name, victim)
    stored = json.loads(path.read_text()) if path.is_file() else {"conditions": None}
    same = stored["conditions"] == _own(common, defence)
    trials = from_plain(list[Trial], stored["trials"], path) if same else []
    return {trial.learning_rate: trial for trial in trials if trial.learning_rate in defence.grid}


def _work(zoo: Zoo, defences: Mapping[str, type[Defence]], common: dict[str, Any], position: int = 0) -> None:
    """Try the rates of each defence on each victim where nobody has done so or is at it."""
    world, seed = zoo.world, common["seed"]
    victims = [victim for victim in zoo.victims if victim.truth.name in common["victims"]]
    drawn = torch.randperm(len(world.cleaning), generator=torch.Generator().manual_seed(seed))[: common["images"]]
    data, validation = world.cleaning.subset(drawn), world.validation
    for name, defence in defences.items():
        for victim in victims:
            path = _kept_in(zoo, name, victim.truth.name)
            if orphaned():
                return  # who killed the search wants its workers to stop as well
            with locked(path.with_suffix(".lock")) as ours:
                if not ours:
                    continue
                done = _kept(zoo, name, defence, victim.truth.name, common)
                rates = [rate for rate in defence.grid if rate not in done]
                if rates:
                    trials = try_rates(defence, victim, data, validation, world.class_names, rates, seed)
                    stored = {"conditions": _own(common, defence), "trials": to_plain([*done.values(), *trials])}
                    write_json(path, stored)
                    logger.info("%s on %s: searched.", name, victim.truth.name)
