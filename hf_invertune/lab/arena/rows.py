"""The result file of the arena: one JSON line a run, which several processes may append to at once."""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...models.evaluation import Rate
from ...stages.verdict import Verdict
from ...utils.locks import locked, waiting_for
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


_BEGIN = b'{"key": "'
"""How each line begins."""


class RunsFile:
    """A file of rows, safe to append to from several processes and to be killed at.

    Args:
        path (`str` or `Path`): a .jsonl file; it is made with the first row.
        argument (`str`): what errors call it.
    """

    def __init__(self, path: str | Path, argument: str = "runs"):
        self.path, self.argument = Path(path), argument

    def check(self) -> None:
        """Find out before any long work whether rows can be appended.

        Raises:
            InputError: when it cannot be written to, or holds what is none of ours.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"`{self.argument}`: {self.path} cannot be written to ({error.strerror}).") from error
        place = self.path if self.path.exists() else self.path.parent
        if self.path.is_dir() or not os.access(place, os.W_OK):
            reason = "is a folder" if self.path.is_dir() else "is not yours to write to"
            raise InputError(f"`{self.argument}`: {self.path} cannot be written to ({place} {reason}).")
        self.rows()

    def append(self, row: Row) -> None:
        """Add `row` as one line, in one write; what a write cut short has left before it is cut off."""
        line = json.dumps(to_plain(row), allow_nan=False).encode() + b"\n"
        with waiting_for(self._beside("lock")), self.path.open("a+b", buffering=0) as file:
            file.truncate(self._whole(self.path.read_bytes()))
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file)

    def lines(self) -> dict[str, dict[str, Any]]:
        """What the file says, by key; of lines with one key the last. A half-written last line is passed over.

        Raises:
            InputError: when a line is none of ours.
        """
        content = self.path.read_bytes() if self.path.is_file() else b""
        lines: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(content[: self._whole(content)].splitlines(), 1):
            try:
                value = json.loads(line)
                lines.pop(value["key"], None)
                lines[value["key"]] = value
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"`{self.argument}`: line {number} of {self.path} is no run ({error!r}).") from error
        return lines

    def rows(self) -> list[Row]:
        """All rows, each key once; none when there is no file yet.

        Raises:
            InputError: when a line is no row.
        """
        return [from_plain(Row, value, self.path, self.argument) for value in self.lines().values()]

    def _whole(self, content: bytes) -> int:
        """How many bytes there are up to the end of the last finished line; what is behind it must be half a row."""
        end = content.rfind(b"\n") + 1
        if content[end:][: len(_BEGIN)] != _BEGIN[: len(content) - end]:
            raise InputError(f"`{self.argument}`: {self.path} ends with what is no run; name another file.")
        return end

    def _beside(self, name: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{name}")

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether the run is this process's own to do while the block lasts; the system frees it when a process dies."""
        path = self._beside("claims") / key
        with locked(path) as ours:
            yield ours
            if ours:
                path.unlink(missing_ok=True)  # after the row is in the file: whoever opened it sees the row then


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
