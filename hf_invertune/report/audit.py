"""The proof: the same held-out images, measured on the model as it came and on the cleaned one."""

from ..data.pixels import PixelDataset, as_float, as_uint8
from ..models.classifier import ZeroShotClassifier
from ..models.evaluation import Measurement, Metrics, evaluate
from ..stages.configs import RemovalConfig
from ..stages.identification import TargetIdentifier
from ..stages.plan import TuningPlan
from ..stages.reference import Profile
from ..triggers import Trigger
from ..utils.seeds import stream
from .content import Examples, Removal, title


EXAMPLES = 6


class Auditor:
    """Measures a model as it came, and later what became of it.

    Args:
        classifier ([`ZeroShotClassifier`]): the model as it came.
        held_out ([`PixelDataset`]): images that took no part in scan, inversion and tuning.
        plan ([`TuningPlan`]): what the tuning begins with.
        trigger ([`Trigger`], *optional*): the attack's own trigger, when it is known.
    """

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        held_out: PixelDataset,
        plan: TuningPlan,
        trigger: Trigger | None = None,
    ):
        self.held_out, self.target = held_out, plan.target
        self.reference = None if held_out.labels is not None else classifier.predict(held_out.pixels)
        self.triggers: dict[str, tuple[Trigger, str | None]] = {}
        if trigger is not None:
            self.triggers["given by the caller"] = trigger, None
        for family, found in plan.first_of_each_family().items():
            self.triggers[title(family)] = found.trigger, found.word
        self.before = {name: self._metrics(classifier, *one) for name, one in self.triggers.items()}
        self.clean, self.word = held_out.pixels[:EXAMPLES], plan.inverted[0].word
        self.triggered = as_uint8(plan.inverted[0].trigger.cpu()(as_float(self.clean)))
        self.readings = self._read(classifier)

    def conclude(
        self,
        classifier: ZeroShotClassifier,
        plan: TuningPlan,
        clean: PixelDataset,
        training: list[dict[str, float]],
        config: RemovalConfig,
        sha256: str,
        reference: Profile | None = None,
    ) -> Removal:
        """Scan the cleaned model from scratch with the `clean` images, and measure it.

        Args:
            classifier ([`ZeroShotClassifier`]): the cleaned model.
            plan ([`TuningPlan`]): what the tuning ended with.
            clean ([`PixelDataset`]): the images that the model was cleaned with.
            training (`list[dict[str, float]]`): the tuning's log.
            config ([`RemovalConfig`]): settings of the scan.
            sha256 (`str`): digest of the cleaned model's weights.
            reference ([`Profile`], *optional*): of the trusted model that the first scan had.
        """
        seed = stream(config.seed, "second scan")
        second = TargetIdentifier(classifier, config.scan, seed, reference).identify(clean.pixels)
        measurements = [
            Measurement(name, self.before[name], self._metrics(classifier, trigger, word), trigger.digest())
            for name, (trigger, word) in self.triggers.items()
        ]
        return Removal(
            target=plan.target,
            inverted=plan.inverted,
            critical=plan.critical,
            measurements=measurements,
            second_scan=second,
            examples=Examples(self.clean, self.triggered, *self.readings, *self._read(classifier)),
            training=training,
            held_out_sha256=self.held_out.digest(),
            sha256=sha256,
        )

    def _metrics(self, classifier: ZeroShotClassifier, trigger: Trigger, word: str | None) -> Metrics:
        return evaluate(
            classifier,
            self.held_out.pixels,
            labels=self.held_out.labels,
            reference=self.reference,
            trigger=trigger,
            target=self.target,
            word=word,
        )

    def _read(self, classifier: ZeroShotClassifier) -> list[list[int]]:
        """How a model reads the examples, clean and triggered, with the trigger's word where it has one."""
        return [classifier.predict(self.clean).tolist(), classifier.after(self.word).predict(self.triggered).tolist()]
