"""Where pictures come from: a folder, a parquet file or a dataset on the Hub, as a `datasets.Dataset`."""

from pathlib import Path

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi, is_offline_mode

from ..errors import InputError
from ..utils.hub_errors import hub_errors


SUFFIXES = frozenset((".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
"""Files of a folder that are taken for pictures, whatever the case of their suffix."""


def open_source(
    source: str | Path, split: str, limit: int | None, seed: int, token: str | bool | None, revision: str | None
) -> tuple[datasets.Dataset, str | None]:
    """The pictures of a folder, a file or the Hub; from the Hub also the commit."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path), None
    if path.is_file():
        if path.suffix != ".parquet":
            raise InputError(f"`source`: {source} is one file; pass a folder of pictures or a .parquet file.")
        try:
            return datasets.load_dataset("parquet", data_files=str(path), split="train"), None
        except (DatasetsError, ValueError) as error:
            raise InputError(f"`source`: {source} cannot be read as parquet ({error}).") from error
    name = str(source)
    if (
        isinstance(source, Path)
        or name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or path.suffix == ".parquet"
    ):
        raise InputError(f"`source`: there is no folder or file {source}.")
    with hub_errors(name, argument="source", kind="dataset", revision=revision, token=token):
        try:
            return _pull(name, split, limit, seed, token, revision)
        except (DatasetsError, OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"`source`: {name} is no folder here, and as a dataset of the Hub its split {split!r} cannot be "
                f"loaded ({error}). Check the name, `split` and `revision`, or pass a folder."
            ) from error


def _pull(
    name: str, split: str, limit: int | None, seed: int, token: str | bool | None, revision: str | None
) -> tuple[datasets.Dataset, str]:
    """A split of a dataset on the Hub, or `limit` rows of it, and the commit."""
    commit = revision if is_offline_mode() else HfApi().dataset_info(name, revision=revision, token=token).sha
    builder = datasets.load_dataset_builder(name, revision=commit, token=token)
    if commit not in (None, builder.hash):  # it takes whatever the cache holds when the Hub does not answer
        raise InputError(
            f"`revision`: {name} cannot be had at {commit} now, and the cache has it at {builder.hash}; pass that or "
            "try again."
        )
    if limit is None:
        builder.download_and_prepare()
        return builder.as_dataset(split), builder.hash
    stream = builder.as_streaming_dataset(split).decode(False)
    # by default the buffer is filled from ten files, of each of which the first 32 MiB are fetched
    rows = stream.shuffle(seed=seed, buffer_size=4 * limit, max_buffer_input_shards=1).take(limit)
    return datasets.Dataset.from_list(list(rows), features=stream.features), builder.hash


def _folder(folder: Path) -> datasets.Dataset:
    """The pictures under `folder`; where all lie in sub-folders, those name the classes."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise InputError(f"`source`: the folder {folder} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    columns = {"image": [str(path) for path in files]}
    features = datasets.Features(image=datasets.Image(decode=False))
    if folder not in {path.parent for path in files}:
        columns["label"] = [path.parent.name for path in files]
        features["label"] = datasets.ClassLabel(names=sorted(set(columns["label"])))
    return datasets.Dataset.from_dict(columns, features=features)
