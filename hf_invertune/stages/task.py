"""What a verb works on, and whether a result that was brought along belongs to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..data.pixels import PixelDataset
from ..errors import InputError
from ..models.classifier import ZeroShotClassifier
from .configs import RemovalConfig
from .inputs import Inputs


@dataclass
class Task:
    """What a verb works on: a classifier, images apart for the work and for the proof, and where they came from."""

    classifier: ZeroShotClassifier
    data: PixelDataset
    clean: PixelDataset
    held_out: PixelDataset
    inputs: Inputs
    config: RemovalConfig

    def check(self, argument: str, inputs: Inputs | None, class_names: Sequence[str]) -> None:
        """Refuse a result of another model, images or names."""
        if inputs is None:
            raise InputError(f"`{argument}`: it does not tell its model and images; pass what a remover gave you.")
        here, data = self.inputs, inputs.data
        differing = {
            "another model": inputs.model.sha256 != here.model.sha256,
            "other images": (data.sha256, data.held_out) != (here.data.sha256, here.data.held_out),
            "other class names": list(class_names) != list(self.classifier.class_names),
        }
        others = [name for name, differs in differing.items() if differs]
        if others:
            raise InputError(f"`{argument}`: it was made with {' and '.join(others)}; make it anew.")
