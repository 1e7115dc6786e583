"""Worlds: where the pictures and captions of a zoo come from, in disjoint splits that are made when they are needed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import datasets
import torch
from torch import Tensor
from transformers import CLIPProcessor

from ...data.loading import load_images
from ...data.pixels import as_uint8
from ...data.prompts import TEMPLATES, check_class_names, prompts
from ...data.sources import open_source
from ...errors import InputError
from ...models.classifier import ZeroShotClassifier
from ...models.encoder import DualEncoder
from ...utils.files import given_path
from .. import drawings
from ..contrastive import CaptionedPixels
from .small_clip import make_processor


@dataclass(frozen=True)
class Splits:
    """How many pictures each split holds.

    Args:
        pretraining (`int`): what the clean CLIP is trained on.
        poisoning (`int`): the attacker's data, of which some pairs are poisoned.
        cleaning (`int`): the defender's clean pictures.
        validation (`int`): what settings may be chosen on.
        test (`int`): what tables are measured on.

    Raises:
        InputError: a split without pictures.
    """

    pretraining: int
    poisoning: int
    cleaning: int
    validation: int
    test: int

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            if count < 1:
                raise InputError(f"`{name}`: got {count} pictures; a split needs at least 1.")


class World(ABC):
    """Captioned and labelled pictures in five disjoint splits.

    Attributes:
        name (`str`): how tables call it.
        class_names (`tuple[str, ...]`): the labels.
        templates (`tuple[str, ...]`): make prompts of them.
        image_size (`int`): height and width of the pictures.
        splits ([`Splits`]): how many pictures there are of each kind.
        words (`tuple[str, ...]`): words beyond those of captions and prompts that shall be one token each.
        context (`int`): tokens that a text may have.
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type["World"]]] = {}
    templates = TEMPLATES
    name: str
    class_names: tuple[str, ...]
    image_size: int
    splits: Splits
    words: tuple[str, ...]
    context: int

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "kind" in cls.__dict__:
            cls.kinds[cls.kind] = cls

    def classifier(self, encoder: DualEncoder) -> ZeroShotClassifier:
        """A model with the names and the templates of this world."""
        return ZeroShotClassifier(encoder, self.class_names, self.templates)

    @abstractmethod
    def captions_of(self, target: str) -> list[str]:
        """The natural captions of pictures of `target`, which need not be among the class names."""

    @abstractmethod
    def check(self) -> None:
        """Find out before any long work whether the splits can be made."""

    @abstractmethod
    def _split(self, name: str) -> CaptionedPixels: ...

    def __getstate__(self) -> dict[str, Any]:
        """Without the splits: another process makes those that it needs."""
        made = {name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)}
        return {name: value for name, value in vars(self).items() if name not in made}

    @cached_property
    def processor(self) -> CLIPProcessor:
        """Its tokenizer has one token for each word of the world."""
        texts = [text for name in self.class_names for text in (*self.captions_of(name), *prompts(name))]
        words = sorted(set(" ".join([*texts, *self.words]).replace(",", " ").split()))
        return make_processor(words, self.context, self.image_size)

    @cached_property
    def pretraining(self) -> CaptionedPixels:
        """What the clean CLIP is trained on."""
        return self._split("pretraining")

    @cached_property
    def poisoning(self) -> CaptionedPixels:
        """The attacker's data."""
        return self._split("poisoning")

    @cached_property
    def cleaning(self) -> CaptionedPixels:
        """The defender's clean pictures."""
        return self._split("cleaning")

    @cached_property
    def validation(self) -> CaptionedPixels:
        """What settings may be chosen on."""
        return self._split("validation")

    @cached_property
    def test(self) -> CaptionedPixels:
        """What tables are measured on."""
        return self._split("test")


@dataclass(frozen=True)
class DrawnWorld(World):
    """The drawings of [`hf_invertune.drawings`], 32 x 32 pixels; each split has a seed of its own.

    Args:
        splits, words, context: see [`World`].
    """

    kind = "drawings"
    name = "drawings"
    class_names = drawings.CLASS_NAMES
    image_size = drawings.IMAGE_SIZE
    seeds: ClassVar[dict[str, int]] = {
        "pretraining": 11_000,
        "poisoning": 12_000,
        "cleaning": 13_000,
        "validation": 14_000,
        "test": 15_000,
    }

    splits: Splits
    words: tuple[str, ...] = ()
    context: int = 32

    def captions_of(self, target: str) -> list[str]:
        return drawings.captions_of(target)

    def check(self) -> None:
        """Drawings can always be made."""

    def _split(self, name: str) -> CaptionedPixels:
        drawn = drawings.draw(getattr(self.splits, name), self.seeds[name])
        pixels = as_uint8(drawn.pixels)
        return CaptionedPixels(pixels, drawn.captions, labels=drawn.labels)


@dataclass(frozen=True)
class PicturedWorld(World):
    """Labelled pictures; the captions are their classes' prompts in turn, and all pairs of a class are positives.

    Args:
        name, class_names, image_size, splits, words, context: see [`World`].
        train (`str`): a parquet file or the id of a Hub dataset, shuffled and cut into all splits but the test.
        test_source (`str`): the same for the test.
        test_split (`str`): the split of `test_source` on the Hub; that of `train` is called train.

    Raises:
        InputError: class names that cannot be used.
    """

    kind = "pictures"

    name: str
    class_names: tuple[str, ...]
    image_size: int
    splits: Splits
    train: str
    test_source: str
    test_split: str = "test"
    words: tuple[str, ...] = ()
    context: int = 32

    def __post_init__(self) -> None:
        check_class_names(self.class_names)

    def captions_of(self, target: str) -> list[str]:
        return prompts(target, self.templates)

    @cached_property
    def _train(self) -> datasets.Dataset:
        """The rows of `train` in the order in which the splits take them."""
        rows = _open(self.train, "train")
        sizes = vars(self.splits)
        needed = sum(sizes.values()) - self.splits.test
        if needed > len(rows):
            raise InputError(
                f"`splits`: {needed} pictures are asked for and {self.train} holds {len(rows)}; ask less."
            )
        return rows.select(torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist())

    @cached_property
    def _test(self) -> datasets.Dataset:
        """The rows of the test."""
        rows = _open(self.test_source, self.test_split)
        if self.splits.test > len(rows):
            raise InputError(
                f"`splits`: {self.splits.test} test pictures are asked for and {self.test_source} holds {len(rows)}; "
                "ask less."
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        return rows.select(order[: self.splits.test].sort().values.tolist())

    def check(self) -> None:
        """See [`World.check`]; of each source one picture is read.

        Raises:
            InputError: sources that cannot be opened, are too small, lack labels or are one and the same.
        """
        train, test = (given_path(source).resolve() for source in (self.train, self.test_source))
        if train.exists() and test.exists():
            shared = train.is_relative_to(test) or test.is_relative_to(train)
        else:
            parts = {part.partition("[")[0].strip() for part in self.test_split.split("+")}
            shared = self.train == self.test_source and not parts.isdisjoint(("train", "all"))
        if shared:
            raise InputError(
                f"`test_source`: it shares pictures with `train`, {self.train}; what is trained on must not be measured on."
            )
        for rows in (self._train, self._test):
            self._read(rows.select([0]))

    def _read(self, rows: datasets.Dataset) -> tuple[Tensor, Tensor]:
        """Pixels and labels."""
        data = load_images(rows, self.processor, class_names=self.class_names)
        if data.labels is None or (data.labels < 0).any():
            raise InputError("`train`: not all its pictures have labels; a world needs labelled ones.")
        return data.pixels, data.labels

    def _split(self, name: str) -> CaptionedPixels:
        counts: dict[str, Any] = vars(self.splits)
        if name == "test":
            rows = self._test
        else:
            before = list(counts)[: list(counts).index(name)]
            first = sum(counts[other] for other in before)
            rows = self._train.select(range(first, first + counts[name]))
        pixels, labels = self._read(rows)
        captions = [self.captions_of(self.class_names[k])[i % len(self.templates)] for i, k in enumerate(labels)]
        return CaptionedPixels(pixels, captions, labels.clone(), labels)


def _open(source: str, split: str) -> datasets.Dataset:
    """All the pictures of a file or of a Hub dataset."""
    return open_source(source, split).rows


def check_digests(world: World, recorded: Mapping[str, Mapping[str, str]], argument: str) -> None:
    """Make sure that the splits of `world` are those that models were made from.

    Args:
        world ([`World`]): the pictures as they are now; the splits that are looked at stay in it.
        recorded (`Mapping[str, Mapping[str, str]]`): by the name of the model, the SHA-256 of splits.
        argument (`str`): what an error calls the folder of these models.

    Raises:
        InputError: a split with other pictures.
    """
    ours = {split: getattr(world, split).digest() for split in {split for data in recorded.values() for split in data}}
    for name, data in recorded.items():
        for split, digest in data.items():
            if digest != ours[split]:
                raise InputError(
                    f"`{argument}`: {name} was made with other {split} pictures (SHA-256 {digest[:12]}, and now "
                    f"{ours[split][:12]}); pass the same, or name another folder."
                )
