"""The defences that the arena compares: the rivals, ours, and none."""

from collections.abc import Sequence
from typing import Any

from ...models.loading import LoadedModel
from ...remover import BackdoorRemover
from ...stages.configs import AuditConfig, RemovalConfig
from ..baselines import BASELINES
from ..baselines.defence import Defence, Defended
from ..contrastive import CaptionedPixels


class NoDefence(Defence):
    """The model as it came: what the others are held against, along a rebound above all."""

    name = "none"

    def treat(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        return Defended(clip.model)


class Ours(Defence):
    """[`BackdoorRemover.remove`] with its defaults; `learning_rate` is that of its adapter."""

    name = "hf_invertune"
    revision = 3
    minimum_images = AuditConfig.minimum_images

    def treat(self, clip: LoadedModel, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        config = RemovalConfig(seed=self.seed)
        if self.learning_rate is not None:
            config.tuning.learning_rate = self.learning_rate
        result = BackdoorRemover(clip).remove(data.images(class_names), config=config)
        report = result.report
        seconds = {"scan": report.scan.seconds, **report.seconds}
        details = {"outcome": result.outcome, "reasons": report.reasons, "seconds": seconds}
        trigger = report.inverted[0].trigger if report.inverted else None
        return Defended(result.model, result.verdict, result.target_name, trigger, details)


DEFENCES: dict[str, type[Defence]] = {"none": NoDefence, **BASELINES, "hf_invertune": Ours}
"""By the name that the command line knows them by."""
