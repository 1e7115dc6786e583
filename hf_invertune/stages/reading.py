"""Does the model read the pictures at all? Where it does not, what labels are easy to reach means nothing."""

from ..data.pixels import PixelDataset
from ..errors import CannotJudgeError
from ..models.classifier import ZeroShotClassifier
from ..models.evaluation import Rate, chance
from .configs import ScanConfig


ONE_LABEL = 0.95
"""Share of unlabelled pictures read as one label from which no reading is believed."""
CAUSES = "Do the names suit the pictures, are the weights trained, and does the processor normalise as in training?"


def check_reading(classifier: ZeroShotClassifier, data: PixelDataset, config: ScanConfig) -> None:
    """Refuse a model that reads the labels no better than chance, or, without labels, all pictures alike.

    Args:
        classifier ([`ZeroShotClassifier`]): the model and the names.
        data ([`PixelDataset`]): clean images.
        config ([`ScanConfig`]): its `max_chance`; with 1 nothing is checked.

    Raises:
        CannotJudgeError: when it does.
    """
    if config.max_chance == 1:
        return
    predicted = classifier.predict(data.pixels)
    if data.labels is not None:
        predicted, labels = predicted[data.labels >= 0], data.labels[data.labels >= 0]
        accuracy, p = Rate.of(predicted == labels), chance(predicted, labels)
        if p > config.max_chance:
            raise CannotJudgeError(
                f"`model`: it cannot be judged, for it reads {accuracy.value:.0%} of the pictures right, no better than "
                f"chance (p = {p:.2g}). {CAUSES} With `scan.max_chance` 1 it is scanned all the same."
            )
        return
    label = int(predicted.mode().values)
    share = Rate.of(predicted == label).value
    if share >= ONE_LABEL:
        raise CannotJudgeError(
            f"`model`: it cannot be judged, for it reads {share:.0%} of the pictures as "
            f"{classifier.class_names[label]!r}. {CAUSES} With `scan.max_chance` 1 it is scanned all the same."
        )
