"""Find, invert and remove backdoors in Hugging Face CLIP models with InverTune (arXiv 2506.12411).

Names are imported when they are first used, so that `import hf_invertune` does not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .answers.answer import Answer, Finding, StandsOut
    from .data.loading import load_images
    from .data.pixels import PixelDataset
    from .errors import CannotJudgeError, ExitCode, HubError, InputError
    from .fleet.cache import ScanCache
    from .fleet.models import ModelSpec, search_models
    from .fleet.run import scan_models
    from .hub.result import RemovalResult
    from .lab.arena.benchmark import benchmark
    from .lab.arena.rebound import ReboundConfig
    from .lab.arena.rows import Row
    from .lab.arena.run import ArenaSettings
    from .lab.arena.search import search_learning_rates
    from .lab.attacks.catalog import make_attack
    from .lab.attacks.poisoning import poison, poison_dataset
    from .lab.baselines.defence import Defence, Defended
    from .lab.contrastive import CaptionedPixels
    from .lab.demo import demo_images, demo_victim
    from .lab.victim import make_victim
    from .lab.zoo.build import Zoo, build_zoo
    from .lab.zoo.recipe import Recipe
    from .models.classifier import ZeroShotClassifier
    from .models.encoder import DualEncoder
    from .models.evaluation import Measurement, Metrics, Rate, evaluate
    from .models.folders import confirm_labels
    from .models.loading import LoadedModel, load_model
    from .remover import BackdoorRemover
    from .report.report import AuditReport
    from .report.verify import Claim, verify_report
    from .stages.configs import (
        AuditConfig,
        Bars,
        GatheringConfig,
        InversionConfig,
        LocalizationConfig,
        RemovalConfig,
        ScanConfig,
        TuningConfig,
    )
    from .stages.families import (
        AdditiveFamily,
        BlendFamily,
        KeyedFamily,
        MaskedFamily,
        TriggerFamily,
        WaveFamily,
        WindowFamily,
    )
    from .stages.gathering import Gatherer, Gathering
    from .stages.identification import ScanResult, TargetIdentifier
    from .stages.inversion import InvertedTrigger, TriggerInverter
    from .stages.localization import CriticalNeurons, NeuronLocalizer
    from .stages.plan import Pool, TuningPlan, make_plan
    from .stages.presets import preset
    from .stages.reference import Profile
    from .stages.simulation import Simulation, Simulator
    from .stages.verdict import Evidence, Verdict
    from .triggers import (
        AdditiveTrigger,
        BlendTrigger,
        MaskedTrigger,
        PatchTrigger,
        SampleSpecificTrigger,
        ScatteredPatchTrigger,
        Trigger,
        WarpTrigger,
        WaveTrigger,
    )
    from .tuning.arguments import InverTuneArguments
    from .tuning.callbacks import (
        BackdoorEvaluationCallback,
        InterruptCallback,
        InverTuneCallback,
        ReinversionCallback,
        TriggerInversionCallback,
    )
    from .tuning.proof import AuditReportCallback, ProofCallback
    from .tuning.pursuit import PursuitCallback
    from .tuning.trainer import InverTuneTrainer

    __version__: str

__all__ = [
    "AdditiveFamily",
    "AdditiveTrigger",
    "Answer",
    "ArenaSettings",
    "AuditConfig",
    "AuditReport",
    "AuditReportCallback",
    "BackdoorEvaluationCallback",
    "BackdoorRemover",
    "Bars",
    "BlendFamily",
    "BlendTrigger",
    "CannotJudgeError",
    "CaptionedPixels",
    "Claim",
    "CriticalNeurons",
    "Defence",
    "Defended",
    "DualEncoder",
    "Evidence",
    "ExitCode",
    "Finding",
    "Gatherer",
    "Gathering",
    "GatheringConfig",
    "HubError",
    "InputError",
    "InterruptCallback",
    "InverTuneArguments",
    "InverTuneCallback",
    "InverTuneTrainer",
    "InversionConfig",
    "InvertedTrigger",
    "KeyedFamily",
    "LoadedModel",
    "LocalizationConfig",
    "MaskedFamily",
    "MaskedTrigger",
    "Measurement",
    "Metrics",
    "ModelSpec",
    "NeuronLocalizer",
    "PatchTrigger",
    "PixelDataset",
    "Pool",
    "Profile",
    "ProofCallback",
    "PursuitCallback",
    "Rate",
    "ReboundConfig",
    "Recipe",
    "ReinversionCallback",
    "RemovalConfig",
    "RemovalResult",
    "Row",
    "SampleSpecificTrigger",
    "ScanCache",
    "ScanConfig",
    "ScanResult",
    "ScatteredPatchTrigger",
    "Simulation",
    "Simulator",
    "StandsOut",
    "TargetIdentifier",
    "Trigger",
    "TriggerFamily",
    "TriggerInversionCallback",
    "TriggerInverter",
    "TuningConfig",
    "TuningPlan",
    "Verdict",
    "WarpTrigger",
    "WaveFamily",
    "WaveTrigger",
    "WindowFamily",
    "ZeroShotClassifier",
    "Zoo",
    "__version__",
    "benchmark",
    "build_zoo",
    "confirm_labels",
    "demo_images",
    "demo_victim",
    "evaluate",
    "load_images",
    "load_model",
    "make_attack",
    "make_plan",
    "make_victim",
    "poison",
    "poison_dataset",
    "preset",
    "scan_models",
    "search_learning_rates",
    "search_models",
    "verify_report",
]

_MODULES = {
    "answers.answer": (
        "Answer",
        "Finding",
        "StandsOut",
    ),
    "data.loading": ("load_images",),
    "data.pixels": ("PixelDataset",),
    "errors": (
        "CannotJudgeError",
        "ExitCode",
        "HubError",
        "InputError",
    ),
    "fleet.cache": ("ScanCache",),
    "fleet.models": (
        "ModelSpec",
        "search_models",
    ),
    "fleet.run": ("scan_models",),
    "hub.result": ("RemovalResult",),
    "lab.arena.benchmark": ("benchmark",),
    "lab.arena.rebound": ("ReboundConfig",),
    "lab.arena.rows": ("Row",),
    "lab.arena.run": ("ArenaSettings",),
    "lab.attacks.catalog": ("make_attack",),
    "lab.attacks.poisoning": (
        "poison",
        "poison_dataset",
    ),
    "lab.victim": ("make_victim",),
    "lab.baselines.defence": (
        "Defence",
        "Defended",
    ),
    "lab.arena.search": ("search_learning_rates",),
    "lab.contrastive": ("CaptionedPixels",),
    "lab.demo": (
        "demo_images",
        "demo_victim",
    ),
    "lab.zoo.build": (
        "Zoo",
        "build_zoo",
    ),
    "lab.zoo.recipe": ("Recipe",),
    "models.classifier": ("ZeroShotClassifier",),
    "models.encoder": ("DualEncoder",),
    "models.evaluation": (
        "Measurement",
        "Metrics",
        "Rate",
        "evaluate",
    ),
    "models.folders": ("confirm_labels",),
    "models.loading": (
        "LoadedModel",
        "load_model",
    ),
    "remover": ("BackdoorRemover",),
    "report.report": ("AuditReport",),
    "report.verify": (
        "Claim",
        "verify_report",
    ),
    "stages.configs": (
        "AuditConfig",
        "Bars",
        "GatheringConfig",
        "InversionConfig",
        "LocalizationConfig",
        "RemovalConfig",
        "ScanConfig",
        "TuningConfig",
    ),
    "stages.families": (
        "AdditiveFamily",
        "BlendFamily",
        "KeyedFamily",
        "MaskedFamily",
        "TriggerFamily",
        "WaveFamily",
        "WindowFamily",
    ),
    "stages.gathering": (
        "Gatherer",
        "Gathering",
    ),
    "stages.identification": (
        "ScanResult",
        "TargetIdentifier",
    ),
    "stages.inversion": (
        "InvertedTrigger",
        "TriggerInverter",
    ),
    "stages.localization": (
        "CriticalNeurons",
        "NeuronLocalizer",
    ),
    "stages.plan": (
        "Pool",
        "TuningPlan",
        "make_plan",
    ),
    "stages.presets": ("preset",),
    "stages.reference": ("Profile",),
    "stages.simulation": (
        "Simulation",
        "Simulator",
    ),
    "stages.verdict": (
        "Evidence",
        "Verdict",
    ),
    "triggers": (
        "AdditiveTrigger",
        "BlendTrigger",
        "MaskedTrigger",
        "PatchTrigger",
        "SampleSpecificTrigger",
        "ScatteredPatchTrigger",
        "Trigger",
        "WarpTrigger",
        "WaveTrigger",
    ),
    "tuning.arguments": ("InverTuneArguments",),
    "tuning.callbacks": (
        "BackdoorEvaluationCallback",
        "InterruptCallback",
        "InverTuneCallback",
        "ReinversionCallback",
        "TriggerInversionCallback",
    ),
    "tuning.proof": (
        "AuditReportCallback",
        "ProofCallback",
    ),
    "tuning.pursuit": ("PursuitCallback",),
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
