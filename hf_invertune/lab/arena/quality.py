"""What the arena measures of a model, before and after a defence."""

from dataclasses import dataclass

from ...models.encoder import DualEncoder
from ...models.evaluation import Metrics, Rate, evaluate
from ...utils.storage import Saved
from ..attacks.attack import Attack
from ..attacks.measure import measure_attack
from ..contrastive import CaptionedPixels
from ..retrieval import Retrieval, RetrievalAttack, measure_retrieval, measure_retrieval_attack
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
    def strongest(self) -> int:
        """Which of several triggers has the highest ASR, true target pictures excluded."""
        rates = [metrics.attack_success_rate or Rate(0, 1) for metrics in self.metrics]
        return max(range(len(rates)), key=lambda index: rates[index].value)


def measure_quality(encoder: DualEncoder, data: CaptionedPixels, world: World, attack: Attack | None) -> Quality:
    """Measure a model.

    Args:
        encoder ([`DualEncoder`]): the model.
        data ([`CaptionedPixels`]): test pictures with labels.
        world ([`World`]): gives class names, templates, and the captions of a target.
        attack ([`Attack`], *optional*): the one that was mounted against the model; none of a clean one.
    """
    classifier = world.classifier(encoder)
    retrieval = measure_retrieval(encoder, data)
    if attack is None:
        return Quality([evaluate(classifier, data.pixels, labels=data.labels)], retrieval, [])
    metrics = measure_attack(classifier, data, attack)
    attacks = [
        measure_retrieval_attack(encoder, data, trigger, world.captions_of(target), attack.word)
        for trigger, target in zip(attack.triggers, attack.targets, strict=True)
    ]
    return Quality(metrics, retrieval, attacks)
