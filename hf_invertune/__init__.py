"""Find, invert and remove backdoors in Hugging Face CLIP models with InverTune (arXiv 2506.12411).

Names are imported when they are first used, so that `import hf_invertune` does not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .arguments import InverTuneArguments, RemovalConfig
    from .data import PixelDataset, load_images
    from .encoder import DualEncoder
    from .errors import HubError, InputError
    from .evaluation import Metrics, Rate, evaluate
    from .identification import ScanConfig, ScanResult, TargetIdentifier, Verdict
    from .inversion import InversionConfig, InvertedTrigger, TriggerInverter
    from .localization import CriticalNeurons, LocalizationConfig, NeuronLocalizer
    from .remover import BackdoorRemover
    from .report import AuditReport
    from .result import RemovalResult
    from .trainer import InverTuneTrainer
    from .triggers import AdditiveTrigger, BlendTrigger, MaskedTrigger, PatchTrigger, Trigger
    from .verification import verify_report

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
    "arguments": ("InverTuneArguments", "RemovalConfig"),
    "data": ("PixelDataset", "load_images"),
    "encoder": ("DualEncoder",),
    "errors": ("HubError", "InputError"),
    "evaluation": ("Metrics", "Rate", "evaluate"),
    "identification": ("ScanConfig", "ScanResult", "TargetIdentifier", "Verdict"),
    "inversion": ("InversionConfig", "InvertedTrigger", "TriggerInverter"),
    "localization": ("CriticalNeurons", "LocalizationConfig", "NeuronLocalizer"),
    "remover": ("BackdoorRemover",),
    "report": ("AuditReport",),
    "result": ("RemovalResult",),
    "trainer": ("InverTuneTrainer",),
    "triggers": ("AdditiveTrigger", "BlendTrigger", "MaskedTrigger", "PatchTrigger", "Trigger"),
    "verification": ("verify_report",),
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
