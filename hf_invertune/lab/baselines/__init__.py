"""Rival defences, each faithful to its authors' loss and optimiser; see docs/baselines.md."""

from .cleanclip import CleanCLIP
from .defence import Defence, Defended
from .fine_tuning import FineTuning
from .invertune_published import InverTunePublished
from .par import PAR
from .unlearning import NeuralCleanseUnlearning


BASELINES: dict[str, type[Defence]] = {
    "fine-tuning": FineTuning,
    "cleanclip": CleanCLIP,
    "par": PAR,
    "invertune-published": InverTunePublished,
    "neural-cleanse": NeuralCleanseUnlearning,
}
"""By the name that the command line knows them by."""

__all__ = [
    "BASELINES",
    "PAR",
    "CleanCLIP",
    "Defence",
    "Defended",
    "FineTuning",
    "InverTunePublished",
    "NeuralCleanseUnlearning",
]
