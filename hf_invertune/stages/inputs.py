"""What a stage worked on: so that another stage can go on from its result, or refuse to."""

from dataclasses import dataclass, field
from typing import Any

from ..data.pixels import PixelDataset
from ..models.fetching import Format, Origin
from ..models.loading import LoadedModel
from ..utils.storage import Saved


@dataclass
class ModelIdentity:
    """Which model it was.

    Attributes:
        name (`str`): folder name or Hub id.
        revision (`str`, *optional*): commit on the Hub.
        dtype (`str`): dtype of the stored weights.
        parameters (`int`): number of parameters.
        sha256 (`str`): digest of all the weights, see [`weights_digest`].
        license (`dict[str, str]`): what the model's card says of its license, see [`read_license`].
        format (`str`): whose files it came in: `"transformers"` or `"open_clip"`.
        origin ([`Origin`]): where it came from, beside name and revision.
        architecture (`str`): the name of its class; for an image tower that came alone, of the model that it was judged in.
    """

    name: str
    revision: str | None
    dtype: str
    parameters: int
    sha256: str
    license: dict[str, str] = field(default_factory=dict)
    format: Format = "transformers"
    origin: Origin = field(default_factory=Origin)
    architecture: str = "CLIPModel"

    @property
    def on_hub(self) -> bool:
        """Whether `name` is the id of a repository on the Hub."""
        return self.revision is not None

    @property
    def text_sha256(self) -> str | None:
        """Digest of the model whose text tower an image tower that came alone was judged with."""
        return None if self.origin.tower is None else self.origin.tower.text_sha256

    @classmethod
    def of(cls, source: LoadedModel) -> "ModelIdentity":
        """Who a model is, before it is changed."""
        return cls(
            name=source.name,
            revision=source.revision,
            dtype=str(source.dtype).removeprefix("torch."),
            parameters=source.parameters,
            sha256=source.digest(),
            license=source.license,
            format=source.format,
            origin=source.origin,
            architecture=source.encoder.architecture,
        )


@dataclass
class DataIdentity:
    """Which clean images they were.

    Attributes:
        source (`str`): folder name, file name or Hub id.
        held_out (`int`): pictures kept apart, on which every rate of a report is measured.
        labelled (`bool`): whether their labels are known; if not, agreement stands for clean accuracy.
        sha256 (`str`): digest of all the pixels.
        skipped (`list[str]`): pictures that could not be read, with the reason; no more than the reason once published.
        selection (`dict[str, Any]`): how they were chosen from the source: config, split, columns, limit, seed, revision.
    """

    source: str
    held_out: int
    labelled: bool
    sha256: str
    skipped: list[str] = field(default_factory=list)
    selection: dict[str, Any] = field(default_factory=dict)

    @property
    def on_hub(self) -> bool:
        """Whether `source` is the id of a dataset on the Hub."""
        return "revision" in self.selection

    @classmethod
    def of(cls, data: PixelDataset, held_out: int) -> "DataIdentity":
        """What is known of images, of which the number `held_out` is kept apart."""
        return cls(
            source=data.source,
            held_out=held_out,
            labelled=data.labels is not None,
            sha256=data.digest(),
            skipped=list(data.skipped),
            selection=data.selection,
        )


@dataclass
class Inputs(Saved):
    """What a stage worked on.

    Attributes:
        model ([`ModelIdentity`]): the model.
        data ([`DataIdentity`]): the clean images.
    """

    model: ModelIdentity
    data: DataIdentity
