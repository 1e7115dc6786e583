"""Scans that were done before: kept by a digest of all that decides them, with checksums, each whole or absent."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants

from ..data.pixels import PixelDataset
from ..errors import CannotJudgeError, InputError
from ..models.loading import LoadedModel
from ..stages.configs import RemovalConfig
from ..stages.identification import ScanResult
from ..stages.inputs import DataIdentity, Inputs, ModelIdentity
from ..stages.reference import Profile
from ..utils.files import differences, finite, json_digest, whole_folder, write_checksums
from ..utils.locks import waiting_for
from ..utils.provenance import now, versions
from ..utils.storage import Saved, to_plain


logger = logging.getLogger(__name__)

PLACE = "HF_INVERTUNE_CACHE"
"""The environment variable that names the folder of the cache."""
DECISIVE = ("hf_invertune", "torch", "transformers")
"""The packages whose versions are part of a key."""
SHOWN = 12
"""How many digits of a key are shown; they suffice to name it."""


@dataclass
class Outcome(Saved):
    """What came of one scan.

    Attributes:
        key (`str`): see [`scan_key`].
        model (`str`): name of the model that was scanned.
        scan ([`ScanResult`], *optional*): its result.
        refusal (`str`, *optional*): why the model cannot be judged, where there is no result.
        created (`str`): when, in UTC.
    """

    key: str
    model: str
    scan: ScanResult | None
    refusal: str | None
    created: str = field(default_factory=now)

    def result(self, source: LoadedModel, data: PixelDataset) -> ScanResult:
        """The scan, as that of `source`, which has the same weights, with `data`, which are the same pictures.

        Raises:
            CannotJudgeError: when the model cannot be judged.
        """
        if self.scan is None:
            raise CannotJudgeError(str(self.refusal))
        assert self.scan.inputs is not None
        there = self.scan.inputs.data
        here = replace(DataIdentity.of(data, there.held_out), labelled=there.labelled)
        return replace(self.scan, inputs=Inputs(ModelIdentity.of(source), here))


def scan_key(
    source: LoadedModel,
    data: PixelDataset,
    config: RemovalConfig,
    templates: Sequence[str] | None = None,
    reference: Profile | None = None,
) -> str:
    """SHA-256 of all that decides what a scan finds; nothing has to go through the model for it.

    That is the weights, the model's config, its processor, the pictures with their labels and names, the templates, the
    settings of the scan and the versions of [`DECISIVE`]. The device is not among it.

    Args:
        source ([`LoadedModel`]): the model.
        data ([`PixelDataset`]): the pictures.
        config ([`RemovalConfig`]): settings.
        templates (`Sequence[str]`, *optional*): those that were asked for.
        reference ([`Profile`], *optional*): of a trusted model.
    """
    installed = versions()
    decisive: dict[str, Any] = {
        "weights": source.digest(),
        "architecture": source.encoder.architecture,
        "text_tower": source.origin.tower and source.origin.tower.text_sha256,
        "settings": _settings_digest(source),
        "pictures": data.digest(),
        "labels": None if data.labels is None else data.labels.tolist(),
        "presumed": data.presumed,
        "class_names": data.class_names,
        "templates": templates,
        "scan": finite(config.scan.plain()),
        "held_out": config.audit.held_out,
        "seed": config.seed,
        "reference": None if reference is None else to_plain(reference),
        "versions": {name: installed[name] for name in DECISIVE},
    }
    return json_digest(decisive)


def _settings_digest(source: LoadedModel) -> dict[str, str]:
    """SHA-256 of the model's config and of each file of its processor, as they are saved."""
    with tempfile.TemporaryDirectory() as folder:
        source.model.config.save_pretrained(folder)
        source.processor.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True)
class Entry:
    """What the cache has under one key.

    Attributes:
        key (`str`): the key.
        size (`int`): bytes.
        outcome ([`Outcome`], *optional*): none when it is damaged.
    """

    key: str
    size: int
    outcome: Outcome | None


class ScanCache:
    """A folder of outcomes, which several processes may use at once.

    Its checksums tell what is damaged; that nobody else may write there is for the folder's owner to see to.

    Args:
        folder (`str` or `Path`, *optional*): by default what the environment variable `HF_INVERTUNE_CACHE` names, else
            hf-invertune in the folder that holds the Hub's cache.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder or os.environ.get(PLACE) or Path(constants.HF_HOME, "hf-invertune"))

    def get(self, key: str) -> Outcome | None:
        """The outcome under a key; none when there is none, or when it is damaged or out of reach, which is logged."""
        place = self._scans / key
        if not place.is_dir():
            return None
        try:
            with self._alone():
                outcome = _read(place)
        except OSError as error:
            logger.warning("The cache in %s cannot be used (%s); the scan is done anew.", self.folder, error.strerror)
            return None
        if outcome is None:
            logger.warning("The cache's entry %s is damaged; the scan is done anew.", key[:SHOWN])
        return outcome

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome under its key, in place of what is there; when it cannot be written, that is logged."""
        try:
            with self._alone(), whole_folder(self._scans / outcome.key) as folder:
                outcome.save(folder)
                write_checksums(folder, [path.name for path in folder.iterdir()])
        except OSError as error:
            logger.warning("The cache in %s cannot be used (%s); the scan is not kept.", self.folder, error.strerror)

    def entries(self) -> list[Entry]:
        """All that is there, by key."""
        with self._alone():
            return [
                Entry(place.name, sum(path.stat().st_size for path in place.iterdir()), _read(place))
                for place in self._places()
            ]

    def remove(self, keys: Sequence[str]) -> list[str]:
        """Remove entries, each named by the beginning of its key; the keys of those that are gone.

        Raises:
            InputError: before anything is removed, when one begins no key, or several.
        """
        with self._alone():
            found: dict[str, Path] = {}
            for key in keys:
                meant = [place for place in self._places() if key and place.name.startswith(key)]
                if len(meant) != 1:
                    many = f"begins {len(meant)} keys; pass more of it" if meant else "begins no key of the cache"
                    raise InputError(f"`keys`: {key!r} {many}; `hf-invertune cache ls` shows them.")
                found[meant[0].name] = meant[0]
            for place in found.values():
                shutil.rmtree(place)
        return list(found)

    def clear(self) -> list[str]:
        """Remove all entries, and what writers that were killed have left; the keys of those that are gone."""
        with self._alone():
            keys = [place.name for place in self._places()]
            if self._scans.is_dir():
                shutil.rmtree(self._scans)
        return keys

    def _places(self) -> list[Path]:
        """The folders of the entries, by key."""
        there = self._scans.iterdir() if self._scans.is_dir() else ()
        return sorted(place for place in there if place.is_dir() and not place.name.startswith("."))

    @property
    def _scans(self) -> Path:
        return self.folder / "scans"

    def _alone(self) -> AbstractContextManager[Literal[True]]:
        return waiting_for(self.folder / ".lock")


def _read(folder: Path) -> Outcome | None:
    """The outcome in `folder`, when it is there as it was written."""
    if any(differences(folder)):
        return None
    try:
        outcome = Outcome.load(folder)
    except InputError:  # what a program of another version, or somebody else, wrote
        return None
    return outcome if outcome.key == folder.name else None
