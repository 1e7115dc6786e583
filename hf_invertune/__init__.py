"""Find, invert and remove backdoors in Hugging Face CLIP models with InverTune (arXiv 2506.12411).

Names are imported when they are first used, so that `import hf_invertune` does not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .data.loading import load_images
    from .data.pixels import PixelDataset
    from .errors import HubError, InputError
    from .hub.result import RemovalResult
    from .models.clip import DualEncoder
    from .models.evaluation import Metrics, Rate, evaluate
    from .remover import BackdoorRemover
    from .report.report import AuditReport
    from .report.verify import verify_report
    from .stages.identification import ScanConfig, ScanResult, TargetIdentifier, Verdict
    from .stages.inversion import InversionConfig, InvertedTrigger, TriggerInverter
    from .stages.localization import CriticalNeurons, LocalizationConfig, NeuronLocalizer
    from .triggers import AdditiveTrigger, BlendTrigger, MaskedTrigger, PatchTrigger, Trigger
    from .tuning.arguments import InverTuneArguments, RemovalConfig
    from .tuning.trainer import InverTuneTrainer

    __version__: str

__all__ = [
    "AdditiveTrigger",
    "AuditReport",
    "BackdoorRemover",
    "BlendTrigger",
    "CriticalNeurons",
    "DualEncoder",
    "HubError",
    "InputError",
    "InverTuneArguments",
    "InverTuneTrainer",
    "InversionConfig",
    "InvertedTrigger",
    "LocalizationConfig",
    "MaskedTrigger",
    "Metrics",
    "NeuronLocalizer",
    "PatchTrigger",
    "PixelDataset",
    "Rate",
    "RemovalConfig",
    "RemovalResult",
    "ScanConfig",
    "ScanResult",
    "TargetIdentifier",
    "Trigger",
    "TriggerInverter",
    "Verdict",
    "__version__",
    "evaluate",
    "load_images",
    "verify_report",
]

_MODULES = {
    "data.loading": ("load_images",),
    "data.pixels": ("PixelDataset",),
    "errors": (
        "HubError",
        "InputError",
    ),
    "hub.result": ("RemovalResult",),
    "models.clip": ("DualEncoder",),
    "models.evaluation": (
        "Metrics",
        "Rate",
        "evaluate",
    ),
    "remover": ("BackdoorRemover",),
    "report.report": ("AuditReport",),
    "report.verify": ("verify_report",),
    "stages.identification": (
        "ScanConfig",
        "ScanResult",
        "TargetIdentifier",
        "Verdict",
    ),
    "stages.inversion": (
        "InversionConfig",
        "InvertedTrigger",
        "TriggerInverter",
    ),
    "stages.localization": (
        "CriticalNeurons",
        "LocalizationConfig",
        "NeuronLocalizer",
    ),
    "triggers": (
        "AdditiveTrigger",
        "BlendTrigger",
        "MaskedTrigger",
        "PatchTrigger",
        "Trigger",
    ),
    "tuning.arguments": (
        "InverTuneArguments",
        "RemovalConfig",
    ),
    "tuning.trainer": ("InverTuneTrainer",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("hf_invertune")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
