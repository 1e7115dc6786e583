"""What a verb works on, and whether a result that was brought along belongs to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from ..data.pixels import PixelDataset
from ..errors import InputError
from ..models.classifier import ZeroShotClassifier
from .configs import RemovalConfig
from .identification import ScanResult
from .inputs import Inputs
from .reference import Profile


@dataclass
class Task:
    """What a verb works on: a classifier, images apart for the work and for the proof, and where they came from."""

    classifier: ZeroShotClassifier
    data: PixelDataset
    clean: PixelDataset
    held_out: PixelDataset
    inputs: Inputs
    config: RemovalConfig
    reference: Profile | None = None

    def check_scan(self, scan: ScanResult) -> None:
        """Refuse a scan of something else, or one that was done otherwise."""
        self.check("scan", scan.inputs, scan.class_names)
        for name, here in (("templates", list(self.classifier.templates)), ("seed", self.config.seed)):
            if getattr(scan, name) != here:
                raise InputError(f"`scan`: its {name} are {getattr(scan, name)!r}, and here {here!r}; scan anew.")
        if self.reference is not None and self.reference != scan.reference:
            raise InputError(
                "`reference`: the scan that was brought along had another, or none; leave it out, or scan anew."
            )
        more = scan.config.searched.keys() - self.config.scan.searched.keys()
        if more:
            raise InputError(
                f"`scan`: it searched by {', '.join(sorted(more))} triggers too, which `config` lacks; add them."
            )

    def beside(self, reference: Profile | None) -> Self:
        """The same task, held against a trusted model when there is one, with the bars that this calls for.

        Raises:
            InputError: when it is the profile of the model itself, or of other names, templates or settings.
        """
        if reference is None:
            return self
        reference.check(self.inputs, self.classifier.class_names, self.classifier.templates, self.config.scan)
        config = replace(self.config, scan=reference.barred(self.config.scan))
        return replace(self, config=config, reference=reference)

    def run(self, label: int | None) -> dict[str, Any]:
        """What a resumed removal towards `label` must have in common with the interrupted one."""
        return {
            "model": [self.inputs.model.sha256, self.inputs.model.text_sha256],
            "images": self.inputs.data.sha256,
            "class_names": list(self.classifier.class_names),
            "templates": list(self.classifier.templates),
            "target": label,
            "config": self.config.plain(),
        }

    def check(self, argument: str, inputs: Inputs | None, class_names: Sequence[str]) -> None:
        """Refuse a result of another model, images or names."""
        if inputs is None:
            raise InputError(f"`{argument}`: it does not tell its model and images; pass what a remover gave you.")
        here, data = self.inputs, inputs.data
        differing = {
            "another model": inputs.model.sha256 != here.model.sha256,
            "another text tower": inputs.model.text_sha256 != here.model.text_sha256,
            "other images": (data.sha256, data.held_out) != (here.data.sha256, here.data.held_out),
            "other class names": list(class_names) != list(self.classifier.class_names),
        }
        others = [name for name, differs in differing.items() if differs]
        if others:
            raise InputError(f"`{argument}`: it was made with {' and '.join(others)}; make it anew.")
