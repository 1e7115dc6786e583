"""An attack gets into a model: the data are poisoned, and the clean CLIP is fine-tuned on them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...data.prompts import TEMPLATES
from ...models.loading import LoadedModel
from ...triggers import PatchTrigger
from ..contrastive import CaptionedPixels, train_contrastive
from .attack import Attack
from .badclip import optimise_patch
from .badencoder import train_bad_encoder
from .poisoning import Poisoned, check_targets, choices, counts_of, naming, poison


def inject(
    clip: LoadedModel,
    data: CaptionedPixels,
    attack: Attack,
    *,
    rate: float,
    seed: int,
    epochs: float = 3,
    learning_rate: float = 5e-4,
    batch_size: int = 128,
    class_names: Sequence[str] | None = None,
    templates: Sequence[str] = TEMPLATES,
    target_captions: Mapping[str, Sequence[str]] | None = None,
) -> Poisoned[CaptionedPixels]:
    """Make a victim of a clean CLIP, in place.

    BadCLIP's patch is optimised against the clean model first; the attack with that patch is in what is returned.
    BadEncoder poisons no pair: every picture is shown to the image encoder with and without the trigger, whatever the
    rate.

    Args:
        clip ([`LoadedModel`]): the clean model, which is changed.
        data ([`CaptionedPixels`]): the attacker's clean pairs.
        attack ([`Attack`]): from [`make_attack`].
        rate, seed, class_names, templates, target_captions: see [`poison`]; the seed is that of the training, too.
        epochs, learning_rate, batch_size: of the fine-tuning with the CLIP loss.
    """
    check_targets(attack, class_names)
    counts_of(attack, rate, len(data))
    if attack.kind == "badclip":
        attack = _optimised(clip, data, attack, seed, class_names, templates, target_captions)
    training: dict[str, Any] = {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        if attack.kind == "badencoder":
            (trigger,), (target,) = attack.triggers, attack.targets
            train_bad_encoder(clip, data, trigger, target, class_names=class_names, output_dir=folder, **training)
            return Poisoned(data, attack, [], [])
        poisoned = poison(
            data,
            attack,
            rate=rate,
            seed=seed,
            class_names=class_names,
            templates=templates,
            target_captions=target_captions,
        )
        train_contrastive(clip.encoder, poisoned.data, output_dir=folder, **training)
    return poisoned


def _optimised(
    clip: LoadedModel,
    data: CaptionedPixels,
    attack: Attack,
    seed: int,
    class_names: Sequence[str] | None,
    templates: Sequence[str],
    target_captions: Mapping[str, Sequence[str]] | None,
) -> Attack:
    """BadCLIP's attack with its patch optimised."""
    (trigger,), (target,) = attack.triggers, attack.targets
    assert isinstance(trigger, PatchTrigger)
    of_target = naming(data.captions, target, data.labels, class_names)
    captions = choices(data.captions, of_target, target, templates, target_captions)
    encoder = clip.encoder
    patch = optimise_patch(encoder, data, trigger, target, captions, class_names=class_names, seed=seed)
    return replace(attack, triggers=[patch])
