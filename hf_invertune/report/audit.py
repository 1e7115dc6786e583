"""The proof: the same held-out images, measured on the model as it came and on the cleaned one."""

from torch import Tensor

from ..data.pixels import PixelDataset, as_float, as_uint8
from ..models.clip import DualEncoder
from ..models.evaluation import Metrics, evaluate, predict
from ..stages.identification import TargetIdentifier, Verdict
from ..stages.plan import TuningPlan
from ..triggers import Trigger
from ..tuning.arguments import RemovalConfig
from .report import AuditReport, DataIdentity, Examples, Measurement


EXAMPLES = 6


class Auditor:
    """Measures a model before and after it is cleaned, and fills in the report.

    Create it with the model as it came, then change the model, then call `conclude`.

    Args:
        encoder ([`DualEncoder`]): the model as it came; the same object must hold the cleaned one later.
        head (`torch.Tensor`): K x D zero-shot head.
        class_names (`list[str]`): K names.
        held_out ([`PixelDataset`]): images that took no part in scan, inversion and tuning.
        plan ([`TuningPlan`]): what the tuning works on.
        trigger ([`Trigger`], *optional*): the attack's own trigger, when it is known.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        head: Tensor,
        class_names: list[str],
        held_out: PixelDataset,
        plan: TuningPlan,
        trigger: Trigger | None = None,
    ):
        self.encoder, self.head, self.class_names = encoder, head, class_names
        self.held_out, self.plan = held_out, plan
        self.reference = None if held_out.labels is not None else predict(encoder, head, held_out.pixels)
        self.triggers = {"given by the caller": trigger} if trigger is not None else {}
        for found in plan.inverted:
            if found.label == plan.target:
                self.triggers.setdefault(f"inverted, {found.trigger.kind}", found.trigger)
        self.measurements = [
            Measurement(name, self._metrics(trigger), trigger_sha256=trigger.digest())
            for name, trigger in self.triggers.items()
        ]
        clean = held_out.pixels[:EXAMPLES]
        triggered = as_uint8(plan.inverted[0].trigger.cpu()(as_float(clean)))
        self.examples = Examples(clean, triggered, self._read(clean), self._read(triggered))

    def conclude(
        self, report: AuditReport, clean: PixelDataset, training: list[dict[str, float]], config: RemovalConfig
    ) -> None:
        """Scan the cleaned model from scratch with the `clean` images, measure it, and complete the report."""
        fresh = TargetIdentifier(self.encoder, self.head, self.class_names, config.scan.reseeded())
        report.verification = fresh.identify(clean.pixels)
        for measurement in self.measurements:
            measurement.after = self._metrics(self.triggers[measurement.trigger])
        self.examples.clean_after = self._read(self.examples.clean)
        self.examples.triggered_after = self._read(self.examples.triggered)
        report.target, report.target_name = self.plan.target, self.class_names[self.plan.target]
        report.inverted, report.critical = self.plan.inverted, self.plan.critical
        report.trigger = self.plan.inverted[0].trigger
        report.data.held_out_sha256 = self.held_out.digest()
        report.measurements, report.examples, report.training = self.measurements, self.examples, training
        report.reasons = missed_bars(report, config)
        report.outcome = "not cleaned" if report.reasons else "cleaned"

    def _metrics(self, trigger: Trigger) -> Metrics:
        return evaluate(
            self.encoder,
            self.head,
            self.held_out.pixels,
            labels=self.held_out.labels,
            reference=self.reference,
            trigger=trigger,
            target=self.plan.target,
        )

    def _read(self, pixels: Tensor) -> list[str]:
        """Names of the labels that the model gives to pictures."""
        return [self.class_names[label] for label in predict(self.encoder, self.head, pixels).tolist()]


def missed_bars(report: AuditReport, config: RemovalConfig) -> list[str]:
    """Which bars of `config` a cleaned model misses, in words; none means cleaned."""
    reasons = []
    for measurement in report.measurements:
        before, after = measurement.before, measurement.after
        assert after is not None and after.attack_success_rate is not None and after.target_rate is not None
        excess = after.attack_success_rate.value - after.target_rate.value
        if excess > config.max_attack_success_rate:
            reasons.append(f"Trigger '{measurement.trigger}' still succeeds on {excess:.1%} of the images.")
        if before.clean_accuracy is not None and after.clean_accuracy is not None:
            drop = before.clean_accuracy.value - after.clean_accuracy.value
            if drop > config.max_accuracy_drop:
                reasons.append(f"Clean accuracy fell by {100 * drop:.1f} points.")
        elif after.agreement is not None and after.agreement.value < config.min_agreement:
            reasons.append(f"The cleaned model agrees with the original on only {after.agreement.value:.1%}.")
    if report.verification is not None and report.verification.verdict is Verdict.BACKDOORED:
        reasons.append(f"A second scan still finds a backdoor, towards {report.verification.target_name!r}.")
    return list(dict.fromkeys(reasons))


def data_identity(data: PixelDataset, held_out: int) -> DataIdentity:
    """What the report says of the images, of which the number `held_out` was kept apart."""
    return DataIdentity(
        source=data.source,
        images=len(data) - held_out,
        held_out=held_out,
        labelled=data.labels is not None,
        sha256=data.digest(),
        skipped=list(data.skipped),
        selection=data.selection,
    )
