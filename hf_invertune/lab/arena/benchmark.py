"""One call that puts a defence into the arena's table."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..baselines.defence import Defence
from ..zoo.build import Zoo
from .compare import as_csv, markdown
from .rows import Row
from .run import ArenaSettings, check_arguments, run_arena
from .search import search_learning_rates


@dataclass
class Benchmark:
    """What defences did to the victims of a zoo.

    Attributes:
        rows (`list[Row]`): one a run.
    """

    rows: list[Row]

    def markdown(self) -> str:
        """The tables, as a page."""
        return markdown(self.rows)

    def csv(self) -> str:
        """One line a run, with 95 % intervals."""
        return as_csv(self.rows)


def benchmark(
    defences: type[Defence] | Mapping[str, type[Defence]],
    zoo: str | Path | Zoo,
    output: str | Path | None = None,
    *,
    victims: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    learning_rates: Mapping[str, float] | None = None,
    settings: ArenaSettings | None = None,
    share: tuple[int, int] = (1, 1),
    workers: int = 1,
) -> Benchmark:
    """Let defences meet the victims of a zoo.

    A defence with a grid of learning rates runs with the one that does best on the zoo's validation victims, which are
    searched first unless `learning_rates` says it.

    Args:
        defences (`type[Defence]` or `Mapping[str, type[Defence]]`): one, or several by the names that tables shall know
            them by; [`DEFENCES`] has the rivals and ours.
        zoo (`str`, `Path` or [`Zoo`]): made by `build_zoo`.
        output (`str` or `Path`, *optional*): a .jsonl file that keeps the runs, so that a second call goes on.
        victims, seeds, settings, share, workers: see [`run_arena`].
        learning_rates (`Mapping[str, float]`, *optional*): by the defence's name.

    Raises:
        InputError: before any long work, when an argument cannot be used.

    Example:

    ```python
    >>> table = benchmark(MyDefence, "zoo/drawings", "runs.jsonl")
    >>> print(table.markdown())
    ```
    """
    zoo = zoo if isinstance(zoo, Zoo) else Zoo.open(zoo)
    named = dict(defences) if isinstance(defences, Mapping) else {defences.name: defences}
    rates = dict(learning_rates or {})
    unknown = {name: defence for name, defence in named.items() if defence.grid and name not in rates}
    with tempfile.TemporaryDirectory() as folder:
        path = output or Path(folder) / "runs.jsonl"
        settings = settings or ArenaSettings()
        check_arguments(zoo, path, named, seeds, victims, rates, settings, share, workers)
        if unknown:
            rates |= search_learning_rates(unknown, zoo, workers=workers).learning_rates
        rows = run_arena(
            zoo,
            path,
            named,
            seeds,
            victims=victims,
            learning_rates=rates,
            settings=settings,
            share=share,
            workers=workers,
        )
    return Benchmark(rows)
