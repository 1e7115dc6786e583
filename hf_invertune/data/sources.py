"""Where pictures come from: a folder, a file or a dataset on the Hub, as a `datasets.Dataset`."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi, is_offline_mode

from ..errors import HubError, InputError
from ..utils.files import given_path
from ..utils.hub_errors import hub_errors
from ..utils.tokens import usable_token
from .columns import TEXTS, image_column_of


SUFFIXES = frozenset((".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
"""Files of a folder that are taken for pictures, whatever the case of their suffix."""

TABLES = {
    ".arrow": "arrow",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".tar": "webdataset",
}
"""Files that are taken for tables of pictures, and what of `datasets` reads them."""

METADATA = frozenset(("metadata.csv", "metadata.jsonl", "metadata.parquet"))
"""The files of a folder of pictures that say more of them, as `imagefolder` of `datasets` knows them."""

_OTHER_SPLITS = ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation")


@dataclass
class Opened:
    """An opened source.

    Attributes:
        rows ([`~datasets.Dataset`]): its pictures.
        name (`str`): what a report may say of it: a Hub id, or the name of a file or folder without what it lies in.
        selection (`dict`): what was chosen of it: split, and on the Hub config and commit.
        presumed (`bool`): whether the labels are no more than the names of sub-folders.
    """

    rows: datasets.Dataset
    name: str
    selection: dict[str, Any] = field(default_factory=dict)
    presumed: bool = False


def open_source(
    source: str | Path,
    split: str = "train",
    *,
    image_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    token: str | bool | None = None,
    revision: str | None = None,
) -> Opened:
    """The pictures of a folder, of a file or of a dataset on the Hub; see [`load_images`].

    Raises:
        InputError: when there are none, or they cannot be read.
        HubError: what the Hub has done.
    """
    path, name, token = given_path(source), os.fspath(source), usable_token(token)
    if os.path.isdir(path):
        with reading(path):
            return _folder(path, split, image_column)
    if os.path.isfile(path):
        if path.suffix.lower() not in TABLES:
            known = ", ".join(TABLES)
            raise InputError(
                f"`source`: {source} is one file; pass a folder of pictures, or a table of them ({known})."
            )
        return Opened(_table(path, image_column), printable(path.name))
    repository, _, config = name.partition(":")
    if (
        isinstance(source, Path)
        or name.startswith((".", "/", "~"))
        or repository.count("/") > 1
        or path.suffix.lower() in TABLES
    ):
        raise InputError(f"`source`: there is no folder or file {source}.")
    with hub_errors(repository, argument="source", kind="dataset", revision=revision, token=token):
        try:
            return _pull(repository, config or None, split, limit, seed, token, revision)
        except (InputError, HubError):
            raise
        except Exception as error:  # readers raise anything at all on damaged files
            raise InputError(
                f"`source`: {repository} is no folder here, and as a dataset of the Hub its split {split!r} cannot be "
                f"loaded ({root(error)}). Check the name (name:config where it has several), `split` and `revision`, or "
                "pass a folder."
            ) from error


@contextmanager
def reading(source: str | Path) -> Iterator[None]:
    """Inside, whatever the reading of a local `source` raises becomes one `InputError` that names it."""
    try:
        yield
    except (InputError, HubError):
        raise
    except Exception as error:  # readers raise anything at all on damaged files
        raise InputError(
            f"`source`: {printable(source)} cannot be read ({root(error)}); it may be damaged."
        ) from error


def root(error: BaseException) -> str:
    """What began it, on one line: readers wrap errors in others that say nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return printable(error) or type(error).__name__


def printable(value: object) -> str:
    """`value` on one line of text that UTF-8 can hold: a file's name need not be."""
    return " ".join(str(value).encode("utf-8", "backslashreplace").decode().split())


def _pull(
    name: str,
    config: str | None,
    split: str,
    limit: int | None,
    seed: int,
    token: str | bool | None,
    revision: str | None,
) -> Opened:
    """A split of a dataset on the Hub, or `limit` rows of it."""
    commit = revision if is_offline_mode() else HfApi().dataset_info(name, revision=revision, token=token).sha
    builder = datasets.load_dataset_builder(name, config, revision=commit, token=token)
    if commit not in (None, builder.hash):  # it takes whatever the cache holds when the Hub does not answer
        raise InputError(
            f"`revision`: {name} cannot be had at {commit} now, and the cache has it at {builder.hash}; pass that or "
            "try again."
        )
    if limit is None:
        builder.download_and_prepare()
        rows = builder.as_dataset(split)
    else:
        stream = builder.as_streaming_dataset(split).decode(False)
        # by default the buffer is filled from ten files, of each of which the first 32 MiB are fetched
        drawn = stream.shuffle(seed=seed, buffer_size=4 * limit, max_buffer_input_shards=1).take(limit)
        rows = datasets.Dataset.from_list(list(drawn), features=stream.features)
    selection = {"config": config} if config is not None else {}
    return Opened(rows, name, {**selection, "split": split, "revision": builder.hash})


def _folder(folder: Path, split: str, image_column: str | None) -> Opened:
    """What `Dataset.save_to_disk` wrote; or else pictures, by themselves or with metadata; or else tables."""
    name = printable(folder.resolve().name)
    if (folder / "dataset_dict.json").is_file():
        return Opened(_split(_saved(folder), split, name), name, {"split": split})
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return Opened(_saved(folder), name)
    files = _files(folder)
    metadata = [path for path in files if path.name.lower() in METADATA]
    if metadata:
        return Opened(datasets.concatenate_datasets([_table(path, image_column) for path in metadata]), name)
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    if pictures:
        return _pictures(folder, pictures, name)
    tables = [path for path in files if path.suffix.lower() in (".parquet", ".tar", ".arrow")]
    if tables:
        chosen = _of_split(folder, tables, split)
        rows = datasets.concatenate_datasets([_table(path, image_column) for path in chosen])
        return Opened(rows, name, {"split": split})
    raise InputError(
        f"`source`: the folder {printable(folder)} holds no pictures ({', '.join(sorted(SUFFIXES))}), no tables of "
        "them (.parquet, .tar, .arrow) and no saved dataset."
    )


def _saved(folder: Path) -> datasets.Dataset | datasets.DatasetDict:
    saved = datasets.load_from_disk(str(folder))
    for rows in saved.values() if isinstance(saved, datasets.DatasetDict) else [saved]:
        rows.data.validate(full=True)  # Arrow trusts what it maps into memory, and damaged offsets end the process
    return saved


def _split(saved: datasets.DatasetDict, split: str, name: str) -> datasets.Dataset:
    if split not in saved:
        raise InputError(f"`split`: {name} has no split {split!r}; it has {', '.join(saved)}.")
    return saved[split]


def _of_split(folder: Path, tables: list[Path], split: str) -> list[Path]:
    """The tables of which a part of the path is called like the split; what is called like none is for training."""
    parts = {path: set(re.split(r"[\W\d_]+", str(path.relative_to(folder)).lower())) for path in tables}
    chosen = [path for path in tables if split.lower() in parts[path]]
    if not chosen and split == "train":
        chosen = [path for path in tables if parts[path].isdisjoint(_OTHER_SPLITS)]
    if not chosen:
        raise InputError(f"`split`: no table in {printable(folder)} is called after the split {split!r}.")
    return chosen


def _files(folder: Path) -> list[Path]:
    """The files under `folder`, sorted, without hidden ones; linked folders count, and each folder once."""
    found: list[Path] = []
    seen = set()

    def stop(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if not (real in seen or name.startswith("."))]
        seen.add(real)
    return sorted(path for path in found if path.is_file())


def _pictures(folder: Path, files: Sequence[Path], name: str) -> Opened:
    """Pictures by themselves; where all lie in sub-folders of several names, these are presumed to be classes."""
    columns: dict[str, Any] = {"image": [_stored(path) for path in files]}
    features = datasets.Features(image=datasets.Image(decode=False))
    labels = [printable(path.parent.name) for path in files]
    presumed = folder not in {path.parent for path in files} and len(set(labels)) > 1
    if presumed:
        columns["label"] = labels
        features["label"] = datasets.ClassLabel(names=sorted(set(labels)))
    return Opened(datasets.Dataset.from_dict(columns, features=features), name, presumed=presumed)


def _stored(path: Path) -> str | dict[str, Any]:
    """A picture's path, or its bytes when a table, which holds UTF-8, cannot hold that."""
    if os.fsencode(path).decode(errors="replace") == str(path):
        return str(path)
    return {"bytes": path.read_bytes() if os.access(path, os.R_OK) else None, "path": printable(path)}


def _table(path: Path, image_column: str | None) -> datasets.Dataset:
    """The rows of one file; paths in it start from the folder that it lies in."""
    kind = TABLES[path.suffix.lower()]
    with reading(path):
        rows = datasets.load_dataset(kind, data_files=glob.escape(str(path)), split="train")
    column = image_column_of(rows.features, image_column)
    if rows.features[column] not in TEXTS:
        return rows
    paths = [None if name is None else str(path.parent / name) for name in rows[column]]
    rows = rows.add_column(" paths", paths).remove_columns(column).rename_column(" paths", column)
    return rows.cast_column(column, datasets.Image(decode=False))
