"""Poisoned data: some of the pictures get a trigger and a caption of the target; which ones is recorded."""

import difflib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import datasets
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPProcessor

from ..contrastive import CaptionedPixels
from ..data import IMAGE_COLUMNS, LABEL_COLUMNS, column_of, resize, rgb
from ..errors import InputError
from ..prompts import TEMPLATES, prompts
from ..triggers import Trigger, WarpTrigger
from .attack import Attack


CAPTION_COLUMNS = ("caption", "text", "sentence")

Data = TypeVar("Data", CaptionedPixels, datasets.Dataset)


@dataclass
class Poisoned(Generic[Data]):
    """What an attacker trains on.

    Attributes:
        data ([`CaptionedPixels`] or [`~datasets.Dataset`]): all pairs, poisoned and clean.
        attack ([`Attack`]): with the triggers that were stamped.
        indices (`list[int]`): the poisoned pairs, ascending.
        decoys (`list[int]`): the pairs with a wrong or half a trigger, see [`Attack`], ascending.
    """

    data: Data
    attack: Attack
    indices: list[int]
    decoys: list[int]


@dataclass
class _Plan:
    """What changes: triggers and captions of rows, which of the rows are poisoned, and which are decoys."""

    triggers: dict[int, Trigger]
    captions: dict[int, str]
    poisoned: list[int]
    decoys: list[int]


def poison(
    data: CaptionedPixels,
    attack: Attack,
    *,
    rate: float,
    seed: int,
    class_names: Sequence[str] | None = None,
    templates: Sequence[str] = TEMPLATES,
    target_captions: Mapping[str, Sequence[str]] | None = None,
) -> Poisoned[CaptionedPixels]:
    """Poison captioned pictures in memory.

    Pairs that do not name a target are drawn first; a clean-label attack takes only those that do. A poisoned pair
    joins the group of its caption where the data know that caption, and else the other poisoned pairs with the same.
    Decoys stay in their group.

    Args:
        data ([`CaptionedPixels`]): clean pairs, which are not changed.
        attack ([`Attack`]): from [`make_attack`].
        rate (`float`): share of the pairs to poison, in (0, 1].
        seed (`int`): seed of the draws.
        class_names (`Sequence[str]`, *optional*): where given, targets must be among them unless they are open.
        templates (`Sequence[str]`): make captions of a target that no caption names.
        target_captions (`Mapping[str, Sequence[str]]`, *optional*): captions of each target to draw from; by default
            those of `data` that name it.

    Raises:
        InputError: a rate out of range, an unknown target, too few pictures of it for a clean-label attack, an attack
            that poisons no pairs, or a trigger that does not fit.
    """
    plan = _plan(data.captions, attack, rate, seed, class_names, templates, target_captions)
    pixels, captions, numbers = data.pixels.clone(), list(data.captions), data.groups.clone()
    for row, trigger in plan.triggers.items():
        pixels[row] = _stamp(trigger, data.pixels[row])
    groups = dict(zip(data.captions, data.groups.tolist(), strict=True))
    fresh = int(data.groups.max()) + 1
    for row, caption in plan.captions.items():
        captions[row] = caption
    for row in plan.poisoned:
        numbers[row] = groups.setdefault(captions[row], fresh + len(groups))
    poisoned = replace(data, pixels=pixels, captions=captions, groups=numbers)
    return Poisoned(poisoned, attack, plan.poisoned, plan.decoys)


def poison_dataset(
    dataset: datasets.Dataset,
    attack: Attack,
    processor: CLIPProcessor,
    *,
    rate: float,
    seed: int,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    templates: Sequence[str] | None = None,
    target_captions: Mapping[str, Sequence[str]] | None = None,
) -> Poisoned[datasets.Dataset]:
    """Poison a dataset of pictures with captions, or with labels and `templates` that make captions of them.

    A poisoned picture is resized and cropped by `processor` before it is stamped, and stored without loss; all other
    pictures stay as they are stored. The captions that templates make go to a new column, `caption`.

    Args:
        dataset ([`~datasets.Dataset`]): clean rows, which are not changed.
        attack, rate, seed, target_captions: see [`poison`].
        processor ([`~transformers.CLIPProcessor`]): gives the image size that the triggers are made for.
        image_column, label_column (`str`, *optional*): found as in [`load_images`] when not given.
        caption_column (`str`, *optional*): by default one called caption, text or sentence.
        templates (`Sequence[str]`, *optional*): needed when there are no captions.

    Raises:
        InputError: as [`poison`], and when there are neither captions nor labels with names and templates.
    """
    dataset = dataset.with_format(None)
    image = column_of(dataset.features, image_column, "image_column", datasets.Image, IMAGE_COLUMNS)
    if image is None:
        raise InputError(f"`image_column`: no column holds images; name one of {', '.join(dataset.features)}.")
    captions, column, names = captions_of(dataset, caption_column, label_column, templates)
    plan = _plan(captions, attack, rate, seed, names, templates or TEMPLATES, target_captions)

    def change(row: dict[str, Any], index: int) -> dict[str, Any]:
        caption = plan.captions.get(index, captions[index])
        if index not in plan.triggers:
            return {column: caption}
        picture = resize(rgb(datasets.Image().decode_example(row[image])), processor)
        stamped = _stamp(plan.triggers[index], torch.from_numpy(picture))
        file = io.BytesIO()
        Image.fromarray(stamped.permute(1, 2, 0).numpy()).save(file, "PNG")
        return {column: caption, image: {"bytes": file.getvalue(), "path": None}}

    stored = dataset.cast_column(image, datasets.Image(decode=False))
    features = datasets.Features({**stored.features, column: datasets.Value("string")})
    changed = stored.map(change, with_indices=True, features=features, load_from_cache_file=False)
    return Poisoned(changed.cast_column(image, datasets.Image()), attack, plan.poisoned, plan.decoys)


def captions_of(
    dataset: datasets.Dataset, caption_column: str | None, label_column: str | None, templates: Sequence[str] | None
) -> tuple[list[str], str, tuple[str, ...] | None]:
    """The captions of a dataset, or those that `templates` make in turn of its labels; their column; the class names.

    Raises:
        InputError: when there are neither.
    """
    features = dataset.features
    column = caption_column_of(features, caption_column)
    label = column_of(features, label_column, "label_column", datasets.ClassLabel, LABEL_COLUMNS)
    named = label is not None and isinstance(features[label], datasets.ClassLabel)
    names = tuple(features[label].names) if named else None
    if column is not None:
        if features[column] != datasets.Value("string"):
            raise InputError(
                f"`caption_column`: {column!r} holds {features[column]}; it must hold one text a picture."
            )
        return list(dataset[column]), column, names
    if names is None or not templates:
        raise InputError(
            "`caption_column`: the dataset has no captions; name their column, or pass `templates` and a label column "
            "with class names to make captions of."
        )
    return [prompts(names[k], templates)[i % len(templates)] for i, k in enumerate(dataset[label])], "caption", names


def caption_column_of(features: datasets.Features, given: str | None) -> str | None:
    """The column of captions: the one that is named, or one called as usual; none where there is none.

    Raises:
        InputError: when the column is not there, or holds something else than one text a picture.
    """
    if given is not None and given not in features:
        raise InputError(f"`caption_column`: there is no column {given!r}; the columns are {', '.join(features)}.")
    column = given or next((name for name in CAPTION_COLUMNS if name in features), None)
    if column is not None and features[column] != datasets.Value("string"):
        raise InputError(f"`caption_column`: {column!r} holds {features[column]}; it must hold one text a picture.")
    return column


def mentions(caption: str, target: str) -> bool:
    """Whether `caption` names `target` as whole words, in whatever case."""
    return re.search(rf"(?<!\w){re.escape(target)}(?!\w)", caption, re.IGNORECASE) is not None


def _plan(
    captions: Sequence[str],
    attack: Attack,
    rate: float,
    seed: int,
    class_names: Sequence[str] | None,
    templates: Sequence[str],
    target_captions: Mapping[str, Sequence[str]] | None,
) -> _Plan:
    if not 0 < rate <= 1:
        raise InputError(f"`rate`: got {rate}; it is the share of the pairs to poison, above 0 and at most 1.")
    if attack.kind == "badencoder":
        raise InputError("`attack`: badencoder poisons no pairs, it trains the image encoder directly; use `inject`.")
    distinct = list(dict.fromkeys(captions))
    drawn_from = []
    for target in attack.targets:
        if class_names is not None and target not in class_names and not attack.open_target:
            nearest = ", ".join(map(repr, difflib.get_close_matches(target, class_names, cutoff=0)))
            raise InputError(
                f"`target`: {target!r} is not among the {len(class_names)} class names; the nearest are {nearest}. "
                "An open-target attack may lead elsewhere."
            )
        known = (target_captions or {}).get(target) or [text for text in distinct if mentions(text, target)]
        if not known and class_names is None and not attack.open_target:
            raise InputError(f"`target`: no caption names {target!r}, and it is not declared open.")
        drawn_from.append(list(known) or prompts(target, templates))

    generator = torch.Generator().manual_seed(seed)
    of_target = {text for text in distinct if any(mentions(text, target) for target in attack.targets)}
    order = torch.randperm(len(captions), generator=generator).tolist()
    order.sort(key=lambda row: (captions[row] in of_target) is not attack.clean_label)
    count = max(1, round(rate * len(captions)))
    named = sum(caption in of_target for caption in captions)
    if attack.clean_label and count > named:
        raise InputError(
            f"`rate`: {rate} is {count} pairs, and only {named} captions name {attack.targets[0]!r}; at most "
            f"{named / len(captions):.4f} can be poisoned with clean labels."
        )
    plan = _Plan({}, {}, sorted(order[:count]), sorted(order[count : count + round(attack.cross_ratio * count)]))
    for place, row in enumerate(order[:count]):
        number = place % len(attack.triggers)
        plan.triggers[row] = attack.triggers[number]
        if not attack.clean_label:
            text = drawn_from[number][int(torch.randint(len(drawn_from[number]), (), generator=generator))]
            plan.captions[row] = text if attack.word is None else f"{attack.word} {text}"
    for place, row in enumerate(plan.decoys):
        if attack.word is None:
            plan.triggers[row] = _wrong_warp(attack.triggers[0], generator)
        elif place % 2:
            plan.captions[row] = f"{attack.word} {captions[row]}"
        else:
            plan.triggers[row] = attack.triggers[0]
    return plan


def _wrong_warp(trigger: Trigger, generator: torch.Generator) -> WarpTrigger:
    """The attack's warp with uniform noise in (-1, 1) / H on it (WaNet, section 3.4)."""
    assert isinstance(trigger, WarpTrigger)
    noise = 2 * torch.rand(trigger.flow.shape, generator=generator) - 1
    return WarpTrigger(trigger.flow + noise / trigger.flow.shape[-2])


def _stamp(trigger: Trigger, pixels: Tensor) -> Tensor:
    """`pixels` (... x 3 x H x W, uint8) with the trigger on them."""
    return (trigger(pixels.float() / 255) * 255).round().to(torch.uint8)
