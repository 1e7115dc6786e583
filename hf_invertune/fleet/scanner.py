"""One model at a time: read it, look whether its scan was done before, or scan it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import ProcessorMixin

from ..data.pixels import PixelDataset
from ..errors import CannotJudgeError
from ..models.loading import LoadedModel, read_model, tried, usable_device
from ..remover import BackdoorRemover
from ..stages.configs import RemovalConfig
from ..stages.cost import Estimate
from ..stages.identification import ScanResult
from ..stages.reference import Profile
from .cache import Outcome, ScanCache, scan_key
from .models import ModelSpec


@dataclass
class Subject:
    """A model that was read, with the pictures for it; nothing has gone through it yet.

    Attributes:
        spec ([`ModelSpec`]): how it was named.
        source ([`LoadedModel`]): the model, on the CPU until it is scanned.
        data ([`PixelDataset`]): the pictures.
        key (`str`): see [`scan_key`].
    """

    spec: ModelSpec
    source: LoadedModel
    data: PixelDataset
    key: str


class Scanner:
    """Scans models in one and the same way.

    Args:
        pictures (`Callable`): the pictures for a processor.
        config ([`RemovalConfig`]): settings.
        templates (`Sequence[str]`, *optional*): prompt templates, as in [`BackdoorRemover.scan`].
        cache ([`ScanCache`], *optional*): where scans are kept; without it none is.
        token (`str` or `bool`, *optional*): access token of the Hub.
        device (`str` or `torch.device`, *optional*): by default the process's own.
        reference ([`Profile`], *optional*): of a trusted model, as in [`BackdoorRemover.scan`].

    Raises:
        InputError: a device that cannot be used.
    """

    def __init__(
        self,
        pictures: Callable[[ProcessorMixin], PixelDataset],
        config: RemovalConfig,
        templates: Sequence[str] | None = None,
        *,
        cache: ScanCache | None = None,
        token: str | bool | None = None,
        device: str | torch.device | None = None,
        reference: Profile | None = None,
    ):
        self.reference = reference
        self.pictures, self.config, self.templates = pictures, config, templates
        self.cache, self.token, self.device = cache, token, usable_device(device)
        self._last: tuple[str, PixelDataset] | None = None

    def read(self, spec: ModelSpec) -> LoadedModel:
        """The model alone; see [`read_model`]."""
        return read_model(
            spec.model,
            text_model=spec.text_model,
            revision=spec.revision,
            subfolder=spec.subfolder,
            variant=spec.variant,
            token=self.token,
        )

    @property
    def has_pictures(self) -> bool:
        """Whether pictures were read for any model yet."""
        return self._last is not None

    def looked_at(self, processor: ProcessorMixin) -> PixelDataset:
        """The pictures for a processor; those of the last one, when it makes the same of them."""
        settings = processor.image_processor.to_json_string()
        if self._last is None or self._last[0] != settings:
            self._last = settings, self.pictures(processor)
        return self._last[1]

    def open(self, spec: ModelSpec) -> Subject:
        """Read a model, and the pictures for it.

        Raises:
            InputError, HubError: when one of them cannot be had.
        """
        source = self.read(spec)
        return self.subject(spec, source, self.looked_at(source.processor))

    def subject(self, spec: ModelSpec, source: LoadedModel, data: PixelDataset) -> Subject:
        """What was read, under its key."""
        return Subject(spec, source, data, scan_key(source, data, self.config, self.templates, self.reference))

    def kept(self, subject: Subject) -> ScanResult | None:
        """The scan that the cache has of it.

        Raises:
            CannotJudgeError: when what it has is that the model cannot be judged.
        """
        outcome = None if self.cache is None else self.cache.get(subject.key)
        return None if outcome is None else outcome.result(subject.source, subject.data)

    def has_kept(self, subject: Subject) -> bool:
        """Whether the cache has what came of it."""
        return self.cache is not None and self.cache.get(subject.key) is not None

    def estimate(self, subject: Subject) -> Estimate:
        """What the scan would cost here; a few pictures go through the model."""
        return self._remover(subject).estimate(subject.data, config=self.config, templates=self.templates)

    def scan(self, subject: Subject) -> ScanResult:
        """Scan it, and keep what came of it.

        Raises:
            InputError: when the parts of the model do not fit.
            CannotJudgeError: as [`BackdoorRemover.scan`] does.
        """
        remover = self._remover(subject)
        try:
            result = remover.scan(subject.data, config=self.config, templates=self.templates, reference=self.reference)
        except CannotJudgeError as error:
            self._keep(Outcome(subject.key, subject.source.name, None, str(error)))
            raise
        self._keep(Outcome(subject.key, subject.source.name, result, None))
        return result

    def _remover(self, subject: Subject) -> BackdoorRemover:
        return BackdoorRemover(tried(subject.source, subject.spec.model, self.device))

    def _keep(self, outcome: Outcome) -> None:
        if self.cache is not None:
            self.cache.put(outcome)
