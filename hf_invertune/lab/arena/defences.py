"""The defences that the arena compares: the rivals, ours, and none."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...models.loading import LoadedClip
from ...remover import BackdoorRemover
from ...tuning.arguments import RemovalConfig
from ..baselines import BASELINES
from ..baselines.defence import Defence, Defended
from ..contrastive import CaptionedPixels


class NoDefence(Defence):
    """The model as it came: what the others are held against, along a rebound above all."""

    name = "none"

    def treat(self, clip: LoadedClip, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        return Defended(clip.model)


class Ours(Defence):
    """[`BackdoorRemover.remove`] with its defaults; `learning_rate` is that of its adapter."""

    name = "hf_invertune"
    minimum_images = RemovalConfig.minimum_images

    def treat(self, clip: LoadedClip, data: CaptionedPixels, class_names: Sequence[str], found: Any) -> Defended:
        config = RemovalConfig.seeded(self.seed)
        if self.learning_rate is not None:
            config = replace(config, learning_rate=self.learning_rate)
        result = BackdoorRemover(clip).remove(data.images(class_names), config=config)
        report = result.report
        details = {"outcome": result.outcome, "reasons": report.reasons, "seconds": report.seconds}
        return Defended(result.model, result.verdict, result.target_name, report.trigger, details)


DEFENCES: dict[str, type[Defence]] = {"none": NoDefence, **BASELINES, "hf_invertune": Ours}
"""By the name that the command line knows them by."""
