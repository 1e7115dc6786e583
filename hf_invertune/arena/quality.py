"""What the arena measures of a model, before and after a defence."""

from dataclasses import dataclass

from ..attacks.attack import Attack
from ..attacks.measure import measure_attack
from ..contrastive import CaptionedPixels
from ..encoder import DualEncoder
from ..evaluation import Metrics, Rate, evaluate
from ..retrieval import Retrieval, RetrievalAttack, measure_retrieval, measure_retrieval_attack
from ..storage import Saved
from ..zoo.worlds import World


@dataclass
class Quality(Saved):
    """What the arena measures of one model on the world's test pictures.

    Attributes:
        metrics (`list[Metrics]`): CA, ASR, floor and PA, one entry a trigger; of a clean model one, with CA alone.
        retrieval (`Retrieval`): R@k.
        retrieval_attacks (`list[RetrievalAttack]`): one a trigger.
    """

    metrics: list[Metrics]
    retrieval: Retrieval
    retrieval_attacks: list[RetrievalAttack]

    @property
    def accuracy(self) -> float:
        """CA."""
        return _value(self.metrics[0].clean_accuracy)

    @property
    def attack_success(self) -> float:
        """ASR, true target pictures excluded: of the trigger that succeeds most."""
        return max(_value(metrics.attack_success_rate) for metrics in self.metrics)

    @property
    def floor(self) -> float:
        """What the ASR would be without a backdoor: untriggered pictures read as the target of that trigger."""
        strongest = max(self.metrics, key=lambda metrics: _value(metrics.attack_success_rate))
        return _value(strongest.target_rate)


def measure_quality(encoder: DualEncoder, data: CaptionedPixels, world: World, attack: Attack | None) -> Quality:
    """Measure a model.

    Args:
        encoder ([`DualEncoder`]): the model.
        data ([`CaptionedPixels`]): test pictures with labels.
        world ([`World`]): gives class names, templates, and the captions of a target.
        attack ([`Attack`], *optional*): the one that was mounted against the model; none of a clean one.
    """
    retrieval = measure_retrieval(encoder, data)
    if attack is None:
        head = encoder.zero_shot_head(world.class_names, world.templates)
        return Quality([evaluate(encoder, head, data.pixels, labels=data.labels)], retrieval, [])
    metrics = measure_attack(encoder, data, world.class_names, attack, world.templates)
    attacks = [
        measure_retrieval_attack(encoder, data, trigger, world.captions_of(target), attack.word)
        for trigger, target in zip(attack.triggers, attack.targets, strict=True)
    ]
    return Quality(metrics, retrieval, attacks)


def _value(rate: Rate | None) -> float:
    return float("nan") if rate is None else rate.value
