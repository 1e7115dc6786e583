"""Many models: one line of answers each as it ends, a report each, a page at the end; killed at any time, it goes on."""

import gc
import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import ProcessorMixin

from ..answers.answer import Answer
from ..data.defaults import default_images
from ..data.loading import ImageSource, load_images
from ..data.pixels import PixelDataset
from ..errors import ExitCode, HubError, InputError
from ..remover import SCAN_MINIMUM
from ..report.report import AuditReport
from ..stages.configs import RemovalConfig
from ..stages.reference import Profile
from ..utils.files import finite, write_bytes
from ..utils.lines import LinesFile
from ..utils.output_folder import write_whole
from ..utils.provenance import versions
from ..utils.sharing import alone, this_process
from ..utils.storage import from_plain, to_plain
from .cache import ScanCache
from .compare import compared, group_of
from .models import ModelSpec, distinct_models
from .page import render_fleet
from .scanner import Scanner


logger = logging.getLogger(__name__)

ANSWERS, PAGE, REPORTS = "answers.jsonl", "index.html", "reports"
"""What is in the folder of a fleet."""


class AnswersFile(LinesFile):
    """The answers of a fleet."""

    noun = "answer"

    def check(self) -> None:
        """Besides, see that the folder is empty or that of a fleet, and make it one."""
        folder = self.path.parent
        if folder.is_dir() and not self.path.exists() and any(folder.iterdir()):
            raise InputError(
                f"`{self.argument}`: {folder} is not empty, and holds no {ANSWERS} of an earlier run; name another folder."
            )
        super().check()
        self.answers()
        self.path.touch()

    def answers(self) -> dict[str, Answer]:
        """All answers, by key."""
        return {
            key: from_plain(Answer, _without_key(line), self.path, self.argument) for key, line in self.lines().items()
        }


def _without_key(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "key"}


class Fleet:
    """Many models that are to be scanned in the same way, and the folder of their answers.

    Args:
        specs (`Sequence[ModelSpec]`): the models, each once.
        scanner ([`Scanner`]): how they are scanned.
        folder (`Path`): where to; several processes may share it.
        conditions (`dict`): plain values that, beside the scanner's settings, decide an answer: which pictures and names.

    Raises:
        InputError: when `folder` cannot be used.
    """

    def __init__(self, specs: Sequence[ModelSpec], scanner: Scanner, folder: Path, conditions: dict[str, Any]):
        self.scanner, self.folder = scanner, folder
        decisive = {
            **conditions,
            "config": finite(scanner.config.plain()),
            "templates": scanner.templates,
            "version": versions()["hf_invertune"],
            "reference": None if scanner.reference is None else to_plain(scanner.reference),
        }
        self.specs = {_key(spec, decisive): spec for spec in specs}
        self.file = AnswersFile(folder / ANSWERS, "output_dir")
        self.file.check()

    def run(self, tell: Callable[[Answer], None] | None = None, retry_failed: bool = False) -> list[Answer]:
        """Scan what has no answer yet, and wait for what other processes are at.

        Args:
            tell (`Callable`, *optional*): is given each answer as this process has it, and in the main process those that
                were there before.
            retry_failed (`bool`, *optional*): scan again what no scan came of.

        Returns:
            The answers of all models, in their order, compared with each other.
        """
        state, before = this_process(), self.file.answers()
        if retry_failed:
            before = {key: one for key, one in before.items() if _stands(one)}
        stale = self.file.lines() if retry_failed else {}
        if tell is not None and state.is_main_process:
            for key in filter(before.__contains__, self.specs):
                tell(before[key])
        if state.num_processes > 1:
            logger.info("Process %d of %d takes its share.", state.process_index + 1, state.num_processes)
        settled = set(before)
        try:
            for wait in (False, True):  # what another process is at is waited for last; if it dies, it is done here
                for key in self.specs:
                    if key not in settled and self._settle(key, wait, stale.get(key), tell):
                        settled.add(key)
        except KeyboardInterrupt:
            done = len(self.specs.keys() & self.file.lines().keys())
            logger.info("%d of %d models have their answers in %s.", done, len(self.specs), self.file.path)
            raise
        there = self.file.answers()
        answers = compared([there[key] for key in self.specs])
        if state.is_main_process:
            self.file.put_first([_line(key, one) for key, one in zip(self.specs, answers, strict=True)])
            write_bytes(self.folder / PAGE, render_fleet(answers).encode())
        return answers

    def _settle(
        self, key: str, wait: bool, stale: dict[str, Any] | None, tell: Callable[[Answer], None] | None
    ) -> bool:
        """Whether one model has its answer: this process gives it, unless another is at it or did.

        `stale` is an answer that does not count.
        """
        with self.file.claim(key, wait) as ours:
            if not ours or self.file.lines().get(key) != stale:
                return ours
            answer = self._answer(key)
            self.file.append(_line(key, answer))
            done = len(self.specs.keys() & self.file.lines().keys())
        logger.info("%d/%d %s: %s", done, len(self.specs), answer.model, answer.verdict or answer.error)
        if tell is not None:
            tell(answer)
        return True

    def _answer(self, key: str) -> Answer:
        """The answer of one model; whatever goes wrong with it is the answer then.

        Pictures that cannot be had are another matter: they end the run, as long as they were read for no model.
        """
        spec, name = self.specs[key], str(self.specs[key])
        had = self.scanner.has_pictures
        try:
            source = self.scanner.read(spec)
        except Exception as error:
            return self._failure(name, error)
        try:
            data = self.scanner.looked_at(source.processor)
        except Exception as error:
            if not had and isinstance(error, (InputError, HubError)):
                raise
            return self._failure(name, error)
        try:
            subject = self.scanner.subject(spec, source, data)
            with alone():  # the other processes are at other models
                scan = self.scanner.kept(subject) or self.scanner.scan(subject)
            report = self.folder / REPORTS / _folder_name(spec, key)
            write_whole(report, AuditReport("scanned", scan, config=self.scanner.config).save)
            answer = Answer.of(name, source, scan, str(report))
            return replace(answer, group=group_of(source, scan))
        except Exception as error:
            return self._failure(name, error)
        finally:
            gc.collect()  # or the models that were scanned pile up on the device

    def _failure(self, name: str, error: Exception) -> Answer:
        if not isinstance(error, (InputError, HubError)):
            logger.error("%s failed", name, exc_info=error)
        return Answer.failed(name, error)


def _stands(answer: Answer) -> bool:
    """Whether an answer is one that the same model gives again: a verdict, or that it cannot be judged."""
    return answer.verdict is not None or answer.exit_code == ExitCode.CANNOT_JUDGE


def _key(spec: ModelSpec, decisive: dict[str, Any]) -> str:
    value = json.dumps([vars(spec), decisive], sort_keys=True, default=str)
    return hashlib.sha256(value.encode()).hexdigest()[:24]


def _line(key: str, answer: Answer) -> dict[str, Any]:
    return {"key": key, **answer.plain()}


def _folder_name(spec: ModelSpec, key: str) -> str:
    """A name that is one folder on every system, and that no other model of the fleet has."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "--", spec.model).strip("-.")
    return f"{words[-60:].lstrip('-.') or 'model'}-{key[:8]}"


def scan_models(
    models: Iterable[str | Path | ModelSpec],
    images: ImageSource | None = None,
    class_names: Sequence[str] | None = None,
    *,
    config: RemovalConfig | None = None,
    templates: Sequence[str] | None = None,
    output_dir: str | Path | None = None,
    cache: ScanCache | None = None,
    retry_failed: bool = False,
    tell: Callable[[Answer], None] | None = None,
    token: str | bool | None = None,
    device: str | torch.device | None = None,
    reference: Profile | str | Path | None = None,
) -> list[Answer]:
    """Scan many models in the same way; one that fails leaves the others.

    Under `accelerate launch` each process scans models of its own, on its own device, and gets the answers of all.

    Args:
        models: folders, Hub ids, addresses, or [`ModelSpec`]s; each counts once.
        images, class_names, config, templates: as in [`BackdoorRemover.scan`].
        output_dir (`str` or `Path`, *optional*): gets answers.jsonl, a line a model as it ends, a report for each in reports/,
            and at the end index.html. A call with the same arguments goes on where another was killed; pictures in memory
            count as the same when they are of the same type.
        cache ([`ScanCache`], *optional*): where scans are looked up and kept; without it none is.
        retry_failed (`bool`, *optional*): scan again those of which an earlier call said that they could not be scanned.
        tell (`Callable`, *optional*): is given each answer as it is there, before the models are compared.
        token (`str` or `bool`, *optional*): access token of the Hub.
        device (`str` or `torch.device`, *optional*): by default the process's own.
        reference ([`Profile`], `str` or `Path`, *optional*): of a trusted model, or the file of one.

    Returns:
        An answer for each model, in the order of `models`, with what it stands out by among those that are like it.

    Raises:
        InputError: before any long work, when an argument cannot be used; several processes need `output_dir`.
    """
    config, specs = config or RemovalConfig(), distinct_models(models)
    pictures = partial(_pictures, images, class_names, token)
    trusted = Profile.load(reference) if isinstance(reference, (str, Path)) else reference
    scanner = Scanner(pictures, config, templates, cache=cache, token=token, device=device, reference=trusted)
    named = isinstance(images, (str, Path)) or images is None
    shown = images if named else images.digest() if isinstance(images, PixelDataset) else type(images).__name__
    conditions = {"images": shown, "class_names": None if class_names is None else list(class_names)}
    return scan_fleet(specs, scanner, output_dir, conditions, tell=tell, retry_failed=retry_failed)


def scan_fleet(
    specs: Sequence[ModelSpec],
    scanner: Scanner,
    output_dir: str | Path | None,
    conditions: dict[str, Any],
    *,
    tell: Callable[[Answer], None] | None = None,
    retry_failed: bool = False,
) -> list[Answer]:
    """As [`scan_models`], with a [`Scanner`]; the other arguments are those of [`Fleet`]."""
    if output_dir is not None:
        return Fleet(specs, scanner, Path(output_dir), conditions).run(tell, retry_failed)
    if this_process().num_processes > 1:
        raise InputError("`output_dir`: got none; several processes share out their work there, so name a folder.")
    with tempfile.TemporaryDirectory() as folder:
        tell_bare = None if tell is None else lambda answer: tell(replace(answer, report=None))
        answers = Fleet(specs, scanner, Path(folder), conditions).run(tell_bare, retry_failed)
    return [replace(answer, report=None) for answer in answers]


def _pictures(
    images: ImageSource | None,
    class_names: Sequence[str] | None,
    token: str | bool | None,
    processor: ProcessorMixin,
) -> PixelDataset:
    if images is None:
        return default_images(processor, class_names=class_names, token=token)
    return load_images(images, processor, class_names=class_names, minimum=SCAN_MINIMUM, token=token)
