"""The arena: every defence on every victim with every seed, one line a run."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from ...errors import InputError
from ...models.encoder import DualEncoder
from ...models.evaluation import Metrics, Rate, evaluate
from ...utils.files import json_digest
from ...utils.memory import ran_out_of_memory
from ...utils.progress import progress
from ...utils.runtime import orphaned, work_side_by_side
from ...utils.storage import to_plain
from ..attacks.measure import measure_attack
from ..baselines.defence import Defence, Defended, check_finite
from ..contrastive import CaptionedPixels
from ..zoo.build import Zoo
from ..zoo.victim import Victim
from ..zoo.worlds import World, check_digests
from .cost import measure_cost
from .quality import Quality, measure_quality
from .rebound import ReboundConfig, measure_rebound
from .rows import Row, RunsFile, check_conditions


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArenaSettings:
    """What all the runs of an arena have in common.

    Attributes:
        images (`int`): cleaning pictures of a run, drawn by its seed.
        test_images (`int`): pictures that everything is measured on, the same for all runs.
        rebound ([`ReboundConfig`], *optional*): measure the rebound of each cleaned victim too.
        retry (`bool`): do failed runs again.

    Raises:
        InputError: a number that is not positive.
    """

    images: int = 500
    test_images: int = 2_000
    rebound: ReboundConfig | None = None
    retry: bool = False

    def __post_init__(self) -> None:
        for name in ("images", "test_images"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}`: got {getattr(self, name)}; it must be positive.")


@dataclass(frozen=True)
class Job:
    """One run that is to be done: one defence on one victim with one seed."""

    victim: Victim
    name: str
    defence: type[Defence]
    learning_rate: float | None
    seed: int
    settings: ArenaSettings

    @property
    def identity(self) -> dict[str, Any]:
        """The fields of a [`Row`] that are known beforehand."""
        truth = self.victim.truth
        fields = {
            "world": truth.world,
            "victim": truth.name,
            "attack": truth.attack,
            "targets": truth.targets,
            "victim_seed": truth.seed,
            "recipe": truth.recipe,
            "sha256": truth.sha256,
            "defence": self.name,
            "revision": self.defence.revision,
            "seed": self.seed,
            "learning_rate": self.defence(self.learning_rate, self.seed).learning_rate,
            "images": self.settings.images,
            "test_images": self.settings.test_images,
        }
        return {"key": json_digest(fields)[:24], **fields}

    def is_done_by(self, line: dict[str, Any] | None) -> bool:
        """Whether `line`, what the file has under this job's key, leaves nothing to do."""
        if line is None or (line["status"] == "failed" and self.settings.retry):
            return False
        rebound = self.settings.rebound
        if rebound is None or line["status"] != "done" or line["attack"] is None:
            return True
        return bool(line["rebound_config"] == to_plain(rebound))


def run_arena(
    zoo: Zoo,
    output: str | Path,
    defences: Mapping[str, type[Defence]],
    seeds: Sequence[int],
    *,
    victims: Sequence[str] | None = None,
    learning_rates: Mapping[str, float] | None = None,
    settings: ArenaSettings | None = None,
    share: tuple[int, int] = (1, 1),
    workers: int = 1,
) -> list[Row]:
    """Do what is not yet in `output`, and append a line for each run; a second call goes on where the first was killed.

    Several arenas may work on one file at once: a run is claimed before it is begun. Validation victims take no part.

    Args:
        zoo ([`Zoo`]): the victims and their world.
        output (`str` or `Path`): a .jsonl file.
        defences (`Mapping[str, type[Defence]]`): by name.
        seeds (`Sequence[int]`): of the draw of the cleaning pictures and of the defence.
        victims (`Sequence[str]`, *optional*): the names of those to take; all when not given.
        learning_rates (`Mapping[str, float]`, *optional*): by the defence's name; else the defence's default.
        settings ([`ArenaSettings`], *optional*): of every run.
        share (`tuple[int, int]`): `(i, n)`: do the i-th of n parts of the work, `i` from 1 on.
        workers (`int`): processes, with one thread each.

    Returns:
        The rows of these runs, in the order of the work; those that another arena is still at are missing.

    Raises:
        InputError: before any long work, when an argument cannot be used.
        ChildProcessError: when a worker died; what the others did is in the file.
    """
    settings, learning_rates = settings or ArenaSettings(), learning_rates or {}
    check_arguments(zoo, output, defences, seeds, victims, learning_rates, settings, share, workers)
    missing = [name for name, defence in defences.items() if defence.grid and name not in learning_rates]
    if missing:
        raise InputError(
            f"`learning_rates`: got none for {', '.join(missing)}; a rival is run at its best, so search for it first."
        )
    part, parts = share
    jobs = [
        Job(victim, name, defence, learning_rates.get(name), seed, settings)
        for seed in seeds
        for victim in _chosen(zoo, victims)
        for name, defence in defences.items()
    ][part - 1 :: parts]
    runs = RunsFile(output, "output")
    done = runs.lines()
    planned = {job.identity["key"]: {**job.identity, "rebound_config": settings.rebound} for job in jobs}
    check_conditions([*({row.key: vars(row) for row in runs.rows()} | planned).values()], "output")
    _check_pictures(zoo, [job for job in jobs if not job.is_done_by(done.get(job.identity["key"]))], settings)
    work_side_by_side(_work, workers, zoo, jobs, runs)
    rows = {row.key: row for row in runs.rows()}
    keys = [job.identity["key"] for job in jobs]
    return [rows[key] for key in keys if key in rows]


def check_arguments(
    zoo: Zoo,
    output: str | Path,
    defences: Mapping[str, type[Defence]],
    seeds: Sequence[int],
    victims: Sequence[str] | None,
    learning_rates: Mapping[str, float],
    settings: ArenaSettings,
    share: tuple[int, int],
    workers: int,
) -> None:
    """Find out before any long work whether [`run_arena`] can use its arguments; rates that lack may still be searched.

    Raises:
        InputError: when it cannot.
    """
    part, parts = share
    if not 1 <= part <= parts:
        raise InputError(f"`share`: got {part}/{parts}; pass i/n with i between 1 and n.")
    if workers < 1:
        raise InputError(f"`workers`: got {workers}; pass at least 1.")
    if len(set(seeds)) < len(seeds) or any(not 0 <= seed < 2**32 for seed in seeds):
        raise InputError(f"`seeds`: got {list(seeds)}; name each once, between 0 and {2**32 - 1}.")
    splits = zoo.world.splits
    for name, wanted, available in (
        ("images", settings.images, splits.cleaning),
        ("test_images", settings.test_images, splits.test),
    ):
        if wanted > available:
            raise InputError(f"`{name}`: got {wanted}, and {zoo.world.name} has {available} of them.")
    for name, defence in defences.items():
        if settings.images < defence.minimum_images:
            raise InputError(f"`images`: got {settings.images}; {name} needs at least {defence.minimum_images}.")
    for name in defences:
        if not re.fullmatch(r"[\w.-]*\w", name):
            raise InputError(f"`defences`: got {name!r}; name it with letters, digits, `_`, `-` and `.` alone.")
    unknown = sorted(set(learning_rates) - set(defences))
    if unknown:
        raise InputError(f"`learning_rates`: got one for {', '.join(unknown)}; the defences are {list(defences)}.")
    for name, rate in learning_rates.items():
        if not 0 < rate < inf:
            raise InputError(f"`learning_rates`: got {rate} for {name}; it must be positive.")
    _chosen(zoo, victims)
    RunsFile(output, "output").check()


def _check_pictures(zoo: Zoo, jobs: Sequence[Job], settings: ArenaSettings) -> None:
    """Refuse to measure victims on other pictures than those of the world that they were made in."""
    # Of the training pictures the attacker's are enough: if they are the same, so is the order all splits are cut from.
    splits = ["test", "poisoning"] if settings.rebound is None else ["test", "poisoning", "pretraining"]
    victims = {job.victim.truth.name: job.victim.truth.data for job in jobs}
    recorded = {name: {split: data[split] for split in splits} for name, data in victims.items()}
    check_digests(zoo.world, recorded, "zoo")


def _chosen(zoo: Zoo, names: Sequence[str] | None) -> list[Victim]:
    """The victims of these names, or all; the same on every machine, so that shares fit together."""
    victims = {victim.truth.name: victim for victim in zoo.victims if victim.truth.role == "table"}
    planned = [plan.name for plan in zoo.recipe.plans() if plan.role == "table"]
    wanted = planned if names is None else list(names)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"`victims`: got {wanted}; name each once.")
    unknown = [name for name in wanted if name not in planned]
    if unknown:
        raise InputError(f"`victims`: {', '.join(unknown)} are not in the zoo's table; it has {', '.join(planned)}.")
    missing = [name for name in wanted if name not in victims]
    if missing:
        raise InputError(
            f"`zoo`: {', '.join(missing[:5])} ({len(missing)} in all) are not made yet; finish it with `hf-invertune "
            "zoo`, or name `victims`."
        )
    return [victims[name] for name in wanted]


def _work(zoo: Zoo, jobs: Sequence[Job], runs: RunsFile, position: int = 0) -> None:
    """Go through all the jobs and do those that nobody has done or is at."""
    before: dict[str, Quality] = {}
    done = runs.lines()
    for job in progress(jobs, f"Arena, worker {position}", position=position):
        if orphaned():
            break  # who killed the arena wants its workers to stop as well
        key = job.identity["key"]
        if job.is_done_by(done.get(key)):
            continue
        with runs.claim(key) as ours:
            line = runs.lines().get(key)  # another may have done it meanwhile, or failed at it
            failed_anew = line is not None and line != done.get(key) and line["status"] == "failed"
            if ours and not failed_anew and not job.is_done_by(line):
                runs.add(_run(job, zoo.world, before))


def _run(job: Job, world: World, before: dict[str, Quality]) -> Row:
    """The row of one job; `before` keeps what was measured of the victims as they came."""
    victim, settings = job.victim, job.settings
    truth, attack = victim.truth, victim.attack()
    if attack is not None and not truth.took:
        return Row(**job.identity, status="did not take")
    test = _draw(world.test, settings.test_images, seed=0)
    if truth.name not in before:
        original = victim.load()
        before[truth.name] = measure_quality(original.encoder, test, world, attack)
    clip = victim.load()
    digest = clip.digest()
    cleaning = _draw(world.cleaning, settings.images, job.seed)
    set_seed(job.seed)
    try:
        with measure_cost() as cost:
            defended = job.defence(job.learning_rate, job.seed).defend(clip, cleaning, world.class_names)
        treated = clip.holding(defended.model)
        check_finite(world.classifier(treated.encoder), test.pixels)
    except (OSError, InputError):
        raise  # the machine's trouble or the user's, not the defence's
    except Exception as error:  # whatever else it is, the table has to say that this defence failed here
        if ran_out_of_memory(error):
            raise
        return _failure(job, before[truth.name], error)
    encoder = treated.encoder
    row = Row(
        **job.identity,
        status="done",
        before=before[truth.name],
        after=measure_quality(encoder, test, world, attack),
        identical=treated.digest() == digest,
        verdict=defended.verdict,
        target=defended.target,
        cost=cost,
        details=defended.details,
    )
    if defended.trigger is not None and defended.target is not None:
        original = victim.load()
        row.inverted_before = _inverted(original.encoder, test, world, defended)
        row.inverted_after = _inverted(encoder, test, world, defended)
    if settings.rebound is not None and attack is not None:
        few = test.subset(range(min(settings.rebound.test_images, len(test))))

        def measure(encoder: DualEncoder) -> list[Metrics]:
            classifier = world.classifier(encoder)
            check_finite(classifier, few.pixels)
            return measure_attack(classifier, few, attack)

        try:
            row.rebound = measure_rebound(treated, world.pretraining, measure, seed=job.seed, config=settings.rebound)
        except FloatingPointError as error:  # weights that the next steps blow up are no cure either
            return _failure(job, before[truth.name], error)
        row.rebound_config = settings.rebound
    return row


def _failure(job: Job, before: Quality, error: Exception) -> Row:
    """The row of a defence that failed; called where `error` is handled."""
    logger.exception("%s failed on %s", job.name, job.victim.truth.name)
    return Row(**job.identity, status="failed", error=f"{type(error).__name__}: {error}", before=before)


def _draw(data: CaptionedPixels, count: int, seed: int) -> CaptionedPixels:
    return data.subset(torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:count])


def _inverted(encoder: DualEncoder, test: CaptionedPixels, world: World, defended: Defended) -> Rate | None:
    """ASR of the trigger that a defence inverted."""
    classifier = world.classifier(encoder)
    label = classifier.label_of(defended.target)
    metrics = evaluate(classifier, test.pixels, labels=test.labels, trigger=defended.trigger, target=label)
    return metrics.attack_success_rate
