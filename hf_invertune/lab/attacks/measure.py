"""How well an attack works on a model."""

from ...errors import InputError
from ...models.classifier import ZeroShotClassifier
from ...models.evaluation import Metrics, evaluate
from ..contrastive import CaptionedPixels
from .attack import Attack
from .poisoning import check_targets


def measure_attack(classifier: ZeroShotClassifier, data: CaptionedPixels, attack: Attack) -> list[Metrics]:
    """CA, ASR with its floor, and PA of each trigger of `attack`.

    CA is always that of the plain classifier. For the others a trigger word stands before each prompt, and the name of
    an open target is one more class.

    Args:
        classifier ([`ZeroShotClassifier`]): the model, and what the labels stand for.
        data ([`CaptionedPixels`]): pictures with labels.
        attack ([`Attack`]): the triggers and where they lead.

    Raises:
        InputError: pictures without labels, or a target that is neither a class name nor open, or both.
    """
    if data.labels is None:
        raise InputError("`data`: its pictures have no labels, and an attack is measured on labelled ones.")
    names = classifier.class_names
    check_targets(attack, names)
    clean = evaluate(classifier, data.pixels, labels=data.labels).clean_accuracy
    measured = []
    for trigger, target in zip(attack.triggers, attack.targets, strict=True):
        known = [*names, target] if attack.open_target else names
        attacked = classifier.with_names(known)
        label = attacked.label_of(target)
        metrics = evaluate(attacked, data.pixels, labels=data.labels, trigger=trigger, target=label, word=attack.word)
        metrics.clean_accuracy = clean
        measured.append(metrics)
    return measured
