"""The proof: the same held-out images, measured on the model as it came and on the cleaned one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .data import PixelDataset
from .encoder import DualEncoder
from .evaluation import Metrics, evaluate, predict
from .inversion import InvertedTrigger, as_float
from .report import Examples, Measurement
from .triggers import Trigger


EXAMPLES = 6


class Auditor:
    """Measures a model before and after it is cleaned.

    Create it with the model as it came; `measure_before` must run before the model changes.

    Args:
        encoder ([`DualEncoder`]): the model; it may change between the two measurements.
        head (`torch.Tensor`): K x D zero-shot head.
        held_out ([`PixelDataset`]): images that took no part in scan, inversion and tuning.
        target (`int`): the backdoor's label.
        triggers (`Mapping[str, Trigger]`): the triggers to measure, by the name that the report gives them.
    """

    def __init__(
        self, encoder: DualEncoder, head: Tensor, held_out: PixelDataset, target: int, triggers: Mapping[str, Trigger]
    ):
        self.encoder, self.head, self.held_out = encoder, head, held_out
        self.target, self.triggers = target, dict(triggers)
        self.reference = None if held_out.labels is not None else predict(encoder, head, held_out.pixels)

    def measure_before(self) -> None:
        """Measure the model as it came."""
        self.measurements = [Measurement(name, self._metrics(trigger)) for name, trigger in self.triggers.items()]

    def measure_after(self) -> list[Measurement]:
        """Measure the cleaned model with the same triggers on the same images."""
        for measurement in self.measurements:
            measurement.after = self._metrics(self.triggers[measurement.trigger])
        return self.measurements

    def _metrics(self, trigger: Trigger) -> Metrics:
        return evaluate(
            self.encoder,
            self.head,
            self.held_out.pixels,
            labels=self.held_out.labels,
            reference=self.reference,
            trigger=trigger,
            target=self.target,
        )

    def examples(self, class_names: list[str], strongest: InvertedTrigger) -> Examples:
        """A few held-out pictures, clean and triggered, with the labels that the model gives them now."""
        clean = self.held_out.pixels[:EXAMPLES]
        triggered = (strongest.trigger.cpu()(as_float(clean)) * 255).round().to(torch.uint8)
        return Examples(clean, triggered, *self.example_labels(class_names, clean, triggered))

    def example_labels(self, class_names: list[str], clean: Tensor, triggered: Tensor) -> tuple[list[str], list[str]]:
        """Label names of both rows of pictures."""
        rows = [predict(self.encoder, self.head, pixels).tolist() for pixels in (clean, triggered)]
        names = [[class_names[label] for label in row] for row in rows]
        return names[0], names[1]
