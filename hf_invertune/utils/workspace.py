"""Where the stages of a long run leave their results, so that it can go on after it was interrupted."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from .files import write_json
from .storage import Saved


Result = TypeVar("Result", bound=Saved)


@contextmanager
def workspace(output_dir: str | Path | None, resume: bool, run: dict[str, Any]) -> Iterator[Path]:
    """`output_dir`/checkpoints, or a folder that goes away.

    Args:
        output_dir (`str` or `Path`, *optional*): where the results are kept.
        resume (`bool`): go on from what is there.
        run (`dict`): plain values that a resumed run must have in common with the interrupted one.

    Raises:
        InputError: when the run there began with other values, or the folder is none of ours.
    """
    if output_dir is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    work = Path(output_dir) / "checkpoints"
    if resume and (work / "run.json").is_file():
        begun = json.loads((work / "run.json").read_text())
        different = [key for key, value in json.loads(json.dumps(run)).items() if begun.get(key) != value]
        if different:
            raise InputError(
                f"`resume`: the run in {work} began with other {', '.join(different)}; repeat its arguments, or "
                "start anew without `resume`."
            )
    elif work.exists():
        if not (work / "run.json").is_file():
            raise InputError(f"`output_dir`: {work} holds what this tool did not write; move it away.")
        shutil.rmtree(work)
    write_json(work / "run.json", run)
    yield work


def kept(kind: type[Result], folder: Path, run: Callable[[], Result]) -> Result:
    """The saved result of a stage, or a fresh one, which is saved."""
    if kind.is_saved(folder):
        return kind.load(folder)
    result = run()
    result.save(folder)
    return result


def brought(kind: type[Result], given: Result | str | Path, argument: str) -> Result:
    """A result that a user brings along, from memory or from its folder.

    Raises:
        InputError: what is neither.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, (str, Path)):
        raise InputError(f"`{argument}`: got a {type(given).__name__}; pass a {kind.__name__} or its folder.")
    if not kind.is_saved(given):
        raise InputError(f"`{argument}`: {given} holds no {kind.__name__}; pass the folder that one was saved to.")
    return kind.load(given)
