"""Poisoned data: some of the pictures get a trigger and a caption of the target; which ones is recorded."""

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

from ...data.columns import LABEL_COLUMNS, caption_column_of, column_of, image_column_of
from ...data.pictures import UnreadableError, read_picture
from ...data.pixels import as_float, as_uint8
from ...data.prompts import TEMPLATES, prompts
from ...errors import InputError, nearest
from ...triggers import Trigger, WarpTrigger
from ..contrastive import CaptionedPixels
from .attack import Attack


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

    Pairs that do not name a target, see [`naming`], are drawn first; a clean-label attack takes only those that do. A poisoned pair
    joins the group of its caption where the data know that caption, and else the other poisoned pairs with the same.
    Decoys stay in their group.

    Args:
        data ([`CaptionedPixels`]): clean pairs, which are not changed.
        attack ([`Attack`]): from [`make_attack`].
        rate (`float`): share of the pairs to poison, in (0, 1].
        seed (`int`): seed of the draws.
        class_names (`Sequence[str]`, *optional*): what the labels stand for. Targets must be among them, and an
            open target must not.
        templates (`Sequence[str]`): make captions of a target that no caption names.
        target_captions (`Mapping[str, Sequence[str]]`, *optional*): captions of each target to draw from; by default
            those of `data` that name it.

    Raises:
        InputError: a rate out of range, an unknown target, too few pictures of it for a clean-label attack, an attack
            that poisons no pairs, or a trigger that does not fit.
    """
    plan = _plan(data.captions, data.labels, attack, rate, seed, class_names, templates, target_captions)
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
    image = image_column_of(dataset.features, image_column)
    captions, column, labels, names = captions_of(dataset, caption_column, label_column, templates)
    plan = _plan(captions, labels, attack, rate, seed, names, templates or TEMPLATES, target_captions)

    def change(row: dict[str, Any], index: int) -> dict[str, Any]:
        caption = plan.captions.get(index, captions[index])
        if index not in plan.triggers:
            return {column: caption}
        try:
            picture = read_picture(row[image], processor)
        except UnreadableError as error:
            raise InputError(
                f"`dataset`: the picture of row {index} cannot be read ({error}); leave it out."
            ) from error
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
) -> tuple[list[str], str, Tensor | None, tuple[str, ...] | None]:
    """The captions of a dataset, or those that `templates` make in turn of its labels; their column; labels and names.

    Raises:
        InputError: when there are neither, or a picture without a caption.
    """
    features = dataset.features
    column = caption_column_of(features, caption_column)
    label = column_of(features, label_column, "label_column", datasets.ClassLabel, LABEL_COLUMNS)
    named = label is not None and isinstance(features[label], datasets.ClassLabel)
    names = tuple(features[label].names) if named else None
    labels = torch.tensor([-1 if k is None else k for k in dataset[label]]) if named else None
    if column is not None:
        return texts_of(dataset, column), column, labels, names
    if names is None or labels is None or not templates:
        raise InputError(
            "`caption_column`: the dataset has no captions; name their column, or pass `templates` and a label column "
            "with class names to make captions of."
        )
    if labels.min() < 0:
        raise InputError("`label_column`: a picture has no label to make a caption of; leave it out.")
    made = [prompts(names[k], templates)[i % len(templates)] for i, k in enumerate(labels.tolist())]
    return made, "caption", labels, names


def texts_of(dataset: datasets.Dataset, column: str) -> list[str]:
    """The captions in that column.

    Raises:
        InputError: when one is missing.
    """
    texts = list(dataset[column])
    if None in texts:
        raise InputError(f"`caption_column`: row {texts.index(None)} of {column!r} has no caption; leave it out.")
    return texts


def mentions(caption: str, target: str) -> bool:
    """Whether `caption` names `target` as whole words, in whatever case."""
    return re.search(rf"(?<!\w){re.escape(target)}(?!\w)", caption, re.IGNORECASE) is not None


def naming(captions: Sequence[str], target: str, labels: Tensor | None, class_names: Sequence[str] | None) -> Tensor:
    """Which pairs (N, bool) are of `target`: by their labels where those know it, else by what the captions mention.

    Captions that mention a longer class name, with the target in it, are not of the target: no tiger shark is a tiger.
    """
    if labels is not None and class_names is not None and target in class_names:
        return labels == list(class_names).index(target)
    longer = [name for name in class_names or () if name.lower() != target.lower() and mentions(name, target)]
    named = {
        caption
        for caption in dict.fromkeys(captions)
        if mentions(caption, target) and not any(mentions(caption, name) for name in longer)
    }
    return torch.tensor([caption in named for caption in captions])


def choices(
    captions: Sequence[str],
    of_target: Tensor,
    target: str,
    templates: Sequence[str],
    target_captions: Mapping[str, Sequence[str]] | None,
) -> list[str]:
    """The captions of `target`: those given for it, else those of its pairs, else those that templates make."""
    given = (target_captions or {}).get(target)
    return list(given or dict.fromkeys(captions[row] for row in of_target.nonzero().flatten().tolist())) or prompts(
        target, templates
    )


def check_targets(attack: Attack, class_names: Sequence[str] | None) -> None:
    """Refuse targets that are not among the class names though not declared open, and open ones that are.

    Raises:
        InputError: naming the target.
    """
    if class_names is None:
        return
    for target in attack.targets:
        if target not in class_names and not attack.open_target:
            raise InputError(
                f"`target`: {target!r} is not among the {len(class_names)} class names, nor declared open; "
                f"{nearest(target, class_names)}. An open-target attack may lead elsewhere."
            )
        if target in class_names and attack.open_target:
            raise InputError(f"`target`: {target!r} is a class name, and an {attack.kind} attack leads to another.")


def counts_of(attack: Attack, rate: float, pairs: int) -> tuple[int, int]:
    """How many of so many pairs are poisoned at this rate, and how many become decoys.

    Raises:
        InputError: a rate out of range, fewer poisoned pairs than triggers, or no room for the decoys.
    """
    if not 0 < rate <= 1:
        raise InputError(f"`rate`: got {rate}; it is the share of the pairs to poison, above 0 and at most 1.")
    count = max(1, round(rate * pairs))
    decoys = round(attack.cross_ratio * count)
    if count < len(attack.triggers):
        raise InputError(
            f"`rate`: {rate} of {pairs} is {count} pairs for {len(attack.triggers)} triggers; each needs one at least."
        )
    if count + decoys > pairs:
        raise InputError(
            f"`rate`: {rate} of {pairs} is {count} poisoned pairs and, with a `cross_ratio` of {attack.cross_ratio}, "
            f"{decoys} decoys; pass at most {1 / (1 + attack.cross_ratio):.4f}."
        )
    return count, decoys


def check_clean_label(attack: Attack, rate: float, of_targets: Tensor) -> None:
    """Make sure that an attack with clean labels finds enough pairs of its target.

    Args:
        attack ([`Attack`]): the attack; one with false labels takes any pair.
        rate (`float`): the poisoning rate.
        of_targets (`torch.Tensor`): N booleans: which of the pairs are of the target.

    Raises:
        InputError: fewer pairs than the rate asks for.
    """
    count, named = counts_of(attack, rate, len(of_targets))[0], int(of_targets.sum())
    if attack.clean_label and count > named:
        raise InputError(
            f"`rate`: {rate} is {count} pairs, and only {named} pairs are of {attack.targets[0]!r}; at most "
            f"{named / len(of_targets):.4f} can be poisoned with clean labels."
        )


def _plan(
    captions: Sequence[str],
    labels: Tensor | None,
    attack: Attack,
    rate: float,
    seed: int,
    class_names: Sequence[str] | None,
    templates: Sequence[str],
    target_captions: Mapping[str, Sequence[str]] | None,
) -> _Plan:
    if attack.kind == "badencoder":
        raise InputError("`attack`: badencoder poisons no pairs, it trains the image encoder directly; use `inject`.")
    count, decoys = counts_of(attack, rate, len(captions))
    check_targets(attack, class_names)
    of_targets = torch.zeros(len(captions), dtype=torch.bool)
    drawn_from = []
    for target in attack.targets:
        of_target = naming(captions, target, labels, class_names)
        given = bool((target_captions or {}).get(target))
        if class_names is None and not attack.open_target and not given and not of_target.any():
            raise InputError(f"`target`: no caption names {target!r}, and it is not declared open.")
        drawn_from.append(choices(captions, of_target, target, templates, target_captions))
        of_targets |= of_target

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(captions), generator=generator).tolist()
    order.sort(key=lambda row: bool(of_targets[row]) is not attack.clean_label)
    check_clean_label(attack, rate, of_targets)
    plan = _Plan({}, {}, sorted(order[:count]), sorted(order[count : count + decoys]))
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
    return as_uint8(trigger(as_float(pixels)))
