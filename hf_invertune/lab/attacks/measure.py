"""How well an attack works on a model."""

from collections.abc import Sequence

from ...data.prompts import TEMPLATES
from ...errors import InputError
from ...models.clip import DualEncoder
from ...models.evaluation import Metrics, evaluate
from ..contrastive import CaptionedPixels
from .attack import Attack
from .poisoning import check_targets


def measure_attack(
    encoder: DualEncoder,
    data: CaptionedPixels,
    class_names: Sequence[str],
    attack: Attack,
    templates: Sequence[str] = TEMPLATES,
) -> list[Metrics]:
    """CA, ASR with its floor, and PA of each trigger of `attack`.

    CA is always that of the plain classifier. For the others a trigger word stands before each prompt, and the name of
    an open target is one more class.

    Args:
        encoder ([`DualEncoder`]): the model.
        data ([`CaptionedPixels`]): pictures with labels.
        class_names (`Sequence[str]`): what the labels stand for.
        attack ([`Attack`]): the triggers and where they lead.
        templates (`Sequence[str]`): make the prompts.

    Raises:
        InputError: pictures without labels, or a target that is neither a class name nor open, or both.
    """
    if data.labels is None:
        raise InputError("`data`: its pictures have no labels, and an attack is measured on labelled ones.")
    check_targets(attack, class_names)
    plain = encoder.zero_shot_head(class_names, templates)
    clean = evaluate(encoder, plain, data.pixels, labels=data.labels).clean_accuracy
    prefix = "" if attack.word is None else f"{attack.word} "
    measured = []
    for trigger, target in zip(attack.triggers, attack.targets, strict=True):
        names = [*class_names, target] if attack.open_target else list(class_names)
        head = encoder.zero_shot_head(names, [prefix + template for template in templates])
        label = names.index(target)
        metrics = evaluate(encoder, head, data.pixels, labels=data.labels, trigger=trigger, target=label)
        metrics.clean_accuracy = clean
        measured.append(metrics)
    return measured
