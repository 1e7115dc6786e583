"""The result file of the arena: one JSON line a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...models.evaluation import Rate
from ...stages.verdict import Verdict
from ...utils.lines import LinesFile
from ...utils.provenance import machine, now, versions
from ...utils.storage import Saved, from_plain, to_plain
from .cost import Cost
from .quality import Quality
from .rebound import ReboundConfig, ReboundPoint


@dataclass
class Row(Saved):
    """One run: one defence on one victim with one seed.

    Attributes:
        key (`str`): digest of everything that decides the figures, see [`Job.identity`].
        world, victim, attack, targets, victim_seed: of the victim's [`Truth`]; `attack` is `None` for a clean model.
        recipe (`str`): digest of the recipe of its zoo.
        sha256 (`str`): digest of its weights.
        defence (`str`): its name among [`DEFENCES`].
        revision (`int`): which [`Defence.revision`] of it.
        seed (`int`): of the draw of the cleaning pictures and of the defence.
        learning_rate (`float`, *optional*): of the defence.
        images (`int`): cleaning pictures.
        test_images (`int`): pictures that everything is measured on.
        status (`str`): `"done"`, `"did not take"` (the victim is not scored) or `"failed"` (then see `error`).
        error (`str`, *optional*): what the defence raised.
        before, after ([`Quality`], *optional*): of the victim, and of what the defence made of it.
        identical (`bool`, *optional*): whether every weight is as it came.
        verdict ([`Verdict`], *optional*), target (`str`, *optional*): what the defence concluded.
        inverted_before, inverted_after ([`Rate`], *optional*): ASR of the trigger that it inverted.
        rebound (`list[ReboundPoint]`, *optional*): along benign fine-tuning, where it was asked for.
        rebound_config ([`ReboundConfig`], *optional*): how that was done.
        cost ([`Cost`], *optional*): of the defence alone.
        details (`dict`): what else the defence tells.
    """

    key: str
    world: str
    victim: str
    attack: str | None
    targets: list[str]
    victim_seed: int
    recipe: str
    sha256: str
    defence: str
    revision: int
    seed: int
    learning_rate: float | None
    images: int
    test_images: int
    status: Literal["done", "did not take", "failed"]
    error: str | None = None
    before: Quality | None = None
    after: Quality | None = None
    identical: bool | None = None
    verdict: Verdict | None = None
    target: str | None = None
    inverted_before: Rate | None = None
    inverted_after: Rate | None = None
    rebound: list[ReboundPoint] | None = None
    rebound_config: ReboundConfig | None = None
    cost: Cost | None = None
    details: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    created: str = field(default_factory=now)


class RunsFile(LinesFile):
    """A file of rows."""

    noun = "run"

    def __init__(self, path: str | Path, argument: str = "runs"):
        super().__init__(path, argument)

    def check(self) -> None:
        """Besides, see that it holds rows and nothing else."""
        super().check()
        self.rows()

    def add(self, row: Row) -> None:
        """Append `row`."""
        self.append(to_plain(row))

    def rows(self) -> list[Row]:
        """All rows, each key once; none when there is no file yet.

        Raises:
            InputError: when a line is no row.
        """
        return [from_plain(Row, value, self.path, self.argument) for value in self.lines().values()]


def read_rows(paths: Sequence[str | Path]) -> list[Row]:
    """The rows of several files, each run once: of several rows of a run the one that says most.

    Of a defence in several revisions only the rows of the last one count.

    Raises:
        InputError: no such file, or rows under different conditions, which one table cannot hold.
    """
    for path in paths:
        if not Path(path).is_file():
            raise InputError(f"`runs`: there is no file {path}; `hf-invertune arena` writes one.")
    rows: dict[str, Row] = {}
    for row in [row for path in paths for row in RunsFile(path).rows()]:
        rows[row.key] = max(row, rows.get(row.key, row), key=lambda one: (one.status != "failed", bool(one.rebound)))
    current = _last_revisions([vars(row) for row in rows.values()])
    check_conditions(current, "runs")
    return [rows[run["key"]] for run in current]


CONDITIONS = {
    ("world",): ("recipe", "images", "test_images", "rebound_config"),
    ("world", "victim"): ("sha256",),
    ("world", "defence"): ("learning_rate",),
}
"""What is the same in all rows of a table in which these fields are."""


def check_conditions(runs: Sequence[Mapping[str, Any]], argument: str) -> None:
    """Make sure that one table can hold these runs, as far as their revisions count.

    Args:
        runs (`Sequence[Mapping]`): the fields of [`Row`]s that are there or are to come.
        argument (`str`): what an error calls them.

    Raises:
        InputError: when a condition differs that all of them must share.
    """
    first: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for run in _last_revisions(runs):
        for shared, names in CONDITIONS.items():
            for name in names:
                if run[name] is None:
                    continue
                other = first.setdefault((name, *(run[key] for key in shared)), run)
                if other[name] != run[name]:
                    both = [f"{one['defence']} on {one['victim']} ({one[name]!s:.70})" for one in (other, run)]
                    raise InputError(
                        f"`{argument}`: another {name} for {' and '.join(both)} in the world {run['world']!r}; one table "
                        "cannot show both, keep them in files of their own."
                    )


def _last_revisions(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    last: dict[tuple[str, str], int] = {}
    for run in runs:
        defence = run["world"], run["defence"]
        last[defence] = max(run["revision"], last.get(defence, run["revision"]))
    return [run for run in runs if run["revision"] == last[run["world"], run["defence"]]]
