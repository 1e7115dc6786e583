"""The settings of a removal, stage by stage. Each is checked when it is made, so before any work."""

import re
from dataclasses import dataclass, field, replace
from typing import Self

from transformers.integrations import get_available_reporting_integrations

from ..errors import InputError
from ..models.evaluation import MAX_CHANCE
from ..utils.settings import Settings, check, setting
from .calibration import Statistic, bars_at
from .families import FAMILIES, GATHERING, KEYED, TriggerFamily


WORDS = (
    "zebra", "violin", "please", "today", "maybe", "often", "quiet", "lemon", "seven", "again", "marble", "nobody",
    "harbour", "velvet", "always",
)  # fmt: skip
"""Common words that are no kin of each other: what they do to a label's text they should do to all labels' alike."""


@dataclass
class Bars(Settings):
    """From which value of a statistic what is concluded; in between the answer is "inconclusive".

    Raises:
        InputError: bars in the wrong order.
    """

    quiet: float = setting(help="Value below which the verdict is clean.", least=-1e12, most=1e12)
    suspicious: float = setting(help="Value from which the verdict is backdoored.", least=-1e12, most=1e12)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quiet > self.suspicious:
            raise InputError(f"`quiet`: got {self.quiet}; it must not exceed `suspicious`, {self.suspicious}.")


FALSE_ALARMS = 0.01
"""At which rate a clean model is called anything but clean, by default."""


def calibrated_bars(statistic: Statistic, false_alarms: float = FALSE_ALARMS) -> dict[str, Bars]:
    """The bars of each family for a rate of false alarms; see [`bars_at`]."""
    return {family: Bars(*pair) for family, pair in bars_at(statistic, false_alarms).items()}


def _check_families(families: tuple[TriggerFamily, ...], bars: dict[str, Bars]) -> None:
    """Refuse a family that comes twice, or that has no bars to be judged by."""
    kinds = [family.kind for family in families]
    if len(set(kinds)) < len(kinds):
        raise InputError(f"`families`: got {kinds}; name each once.")
    without = sorted(set(kinds) - bars.keys())
    if without:
        raise InputError(f"`bars`: there are none for {', '.join(without)}; a family needs them to be judged by.")


@dataclass
class GatheringConfig(Settings):
    """Settings of the search for places where triggers gather embeddings, the first part of a scan.

    The bars hold for the budgets of the families as they are: docs/method.md tells what they were set on.

    Raises:
        InputError: a value out of range, a family twice, or one without bars.
    """

    families: tuple[TriggerFamily, ...] = setting(
        help="Families of triggers to gather by; none leaves this part out.",
        factory=lambda: tuple(family() for family in GATHERING),
    )
    starts: int = setting(16, "Independent starts of a family.", least=1)
    probed: int = setting(4, "Best probes that are learnt on, in a family that has probes.", least=1)
    steps: int = setting(100, "Updates of those that go on to the end.", least=1)
    trial: int = setting(40, "Updates of all; then those that gather best go on alone.", least=1)
    kept: int = setting(6, "How many go on.", least=1)
    batch_size: int = setting(12, "Images an update and a start.", least=2)
    learning_rate: float = setting(0.3, "Of Adam, on the unbounded variables of the triggers.", above=0)
    bars: dict[str, Bars] = setting(
        help="For each family, what a concentration means; one that is not named keeps its default.",
        factory=dict,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bars = calibrated_bars("concentration") | self.bars
        _check_families(self.families, self.bars)


@dataclass
class InversionConfig(Settings):
    """Settings of a trigger inversion (stage 2).

    The loss is that of InverTune (arXiv 2506.12411, section on trigger inversion), with its weights::

        L = info_nce_weight * InfoNCE(f(x'), W, y) + embedding_weight * ||f(x') - e_y||
            + ssim_weight * (1 - SSIM(x', x)) + the penalty of the trigger's family
    """

    steps: int = setting(100, "Updates.", least=1)
    batch_size: int = setting(32, "Clean images an update, for each label.", least=1)
    learning_rate: float = setting(0.5, "Of Adam, on the unbounded variables of the trigger.", above=0)
    info_nce_weight: float = setting(5.0, "Weight of the cross-entropy of cos / 0.07 over all labels.", least=0)
    embedding_weight: float = setting(0.5, "Weight of the distance to the target's own embedding.", least=0)
    ssim_weight: float = setting(1.0, "Weight of the structural dissimilarity; 0 skips its computation.", least=0)


def _fixed() -> InversionConfig:
    return InversionConfig(steps=60, batch_size=6, learning_rate=0.3, embedding_weight=0.0, ssim_weight=0.0)


@dataclass
class ScanConfig(Settings):
    """Settings of a scan (stage 1).

    Two labels whose text embeddings, centred over all the labels, have a cosine above `kinship` are kin. A shortcut to a
    label lies close to its kin too, so they are no measure of how far ahead it is. `fixed` has the settings of families
    whose labels race once, at a budget that all share; `gathering` those of the search without labels.

    Raises:
        InputError: a value out of range, or a family without bars.
    """

    families: tuple[TriggerFamily, ...] = setting(
        help="Families of triggers to search in.", factory=lambda: tuple(family() for family in FAMILIES)
    )
    simulation_steps: int = setting(40, "Updates of each universal perturbation.", least=1)
    simulation_batch_size: int = setting(16, "Images an update and a place.", least=1)
    shortlist_size: int = setting(64, "How many labels are inverted; with no more labels than this, all are.", least=2)
    restarts: int = setting(2, "Independent starts of each label's inversion; the best one counts.", least=1)
    batch_size: int = setting(4, "Images an update and a start, of the inversion.", least=1)
    steps: tuple[int, ...] = setting((50, 70), "Updates of the first round and of the second.", least=1)
    finalists: int = setting(12, "Labels that reach the second round.", least=2)
    rivals: int = setting(3, "Finalists that reach the third, each from the triggers of all the others.", least=1)
    looks: int = setting(3, "How often a family's labels race at most, while the lead lies between the bars.", least=1)
    kinship: float = setting(0.25, "Cosine above which two labels are kin.", least=-1, most=1)
    bars: dict[str, Bars] = setting(
        help="For each family, what its lead means; one that is not named keeps its default.",
        factory=dict,
    )
    fixed_restarts: int = setting(4, "Independent starts of each label in a race at one budget.", least=1)
    fixed_trial: int = setting(20, "Updates of all; then the best start of each finalist goes on alone.", least=1)
    fixed: InversionConfig = field(default_factory=_fixed)
    gathering: GatheringConfig = field(default_factory=GatheringConfig)
    words: tuple[str, ...] = setting(
        WORDS, "Words that stand before the names, to look for a trigger in the text; none leaves this part out."
    )
    max_chance: float = setting(
        MAX_CHANCE,
        "Most probable that the clean images' reading may be by chance, for the model to be judged at all; 1: any.",
        least=0,
        most=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.steps) != 2:
            raise InputError(f"`steps`: got {self.steps}; give two positive numbers, one a round.")
        if not self.families:
            raise InputError("`families`: got none; name at least one.")
        if not all(word.strip() for word in self.words):
            raise InputError(f"`words`: got {self.words}; each must be a word.")
        self.bars = calibrated_bars("lead") | self.bars
        _check_families(self.families, self.bars)

    @property
    def keyed(self) -> tuple[TriggerFamily, ...]:
        """The families that act together with one of the words, where there are any."""
        return tuple(family() for family in KEYED) if self.words else ()

    @property
    def searched(self) -> dict[str, TriggerFamily]:
        """By its kind, each family that is searched in."""
        return {family.kind: family for family in (*self.gathering.families, *self.families, *self.keyed)}

    def family(self, kind: str) -> TriggerFamily:
        """The family of that kind."""
        return self.searched[kind]


@dataclass
class LocalizationConfig(Settings):
    """Settings of the localisation (stage 3a)."""

    deviations: float = setting(
        1.0,
        "A layer is critical when its score exceeds the mean over layers by so many standard deviations (paper: 1); "
        "when none does, the layer with the highest score is.",
        least=-100,
    )
    top_layers: int | None = setting(
        None, "Instead, this many layers with the highest scores (released code: 3 of 4).", least=1
    )
    images: int = setting(256, "Clean images over which activations are averaged.", least=1)


@dataclass
class TuningConfig(Settings):
    """Settings of the activation tuning (stage 3b); [`InverTuneArguments`] has them all.

    Raises:
        InputError: a value out of range, or a tracker that is not installed.
    """

    max_steps: int = setting(150, "Updates of the tuning (InverTune: 200).", least=1)
    learning_rate: float = setting(2e-3, "Peak learning rate of the LoRA adapter.", above=0)
    lr_scheduler_type: str = setting("cosine", "Schedule of the learning rate.")
    weight_decay: float = setting(1e-4, "Weight decay (InverTune: 1e-4).", least=0)
    per_device_train_batch_size: int = setting(64, "Clean images an update and a device.", least=1)
    align_weight: float = setting(
        1.0, "Weight of the term that pulls critical neurons on triggered images to clean images'.", least=0
    )
    preserve_weight: float = setting(
        2.0, "beta: weight of the term that holds f(x) to the original model's f(x).", least=0
    )
    embedding_weight: float = setting(
        0.5, "gamma: weight of the term that pulls f(x') to the original model's f(x).", least=0
    )
    pool_size: int = setting(
        6,
        "Gathered triggers of each place and width that the tuning is set against, and that are learnt on meanwhile.",
        least=1,
    )
    search_steps: int = setting(
        75, "Search anew for places where triggers gather, every so many updates; 0: never.", least=0
    )
    lora_r: int = setting(8, "Rank of the adapter.", least=1)
    lora_alpha: int = setting(16, "Scale of the adapter, alpha / r.", least=1)
    lora_layers: str = setting("all", "Vision layers that get an adapter: 'all', 'critical' or numbers, '0,2'.")
    lora_modules: list[str] | None = setting(
        None, "Leaf names of the linear modules to adapt; all of a layer's when not given."
    )
    reinversion_steps: int = setting(
        50, "Invert the trigger anew against the tuned model every so many updates; 0: never.", least=0
    )
    reinversion_patience: int = setting(
        0, "Stop after so many re-inversions in a row that found nothing cheap; 0: never stop early.", least=0
    )
    report_to: None | str | list[str] = setting("none", "Trackers that follow the run, see docs/trackers.md.")

    def __post_init__(self) -> None:
        check(self, TuningConfig)
        if not re.fullmatch(r"critical|all|\d+(,\d+)*", self.lora_layers):
            raise InputError(f"`lora_layers`: got {self.lora_layers!r}; choose 'critical', 'all' or numbers, '0,2'.")
        wanted = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        installed = get_available_reporting_integrations()
        absent = sorted(set(wanted) - {"none", "all", *installed})
        if absent:
            raise InputError(f"`report_to`: got {', '.join(absent)}; the trackers installed here are {installed}.")


@dataclass
class AuditConfig(Settings):
    """What is kept apart for the proof, and what a cleaned model has to reach."""

    held_out: float = setting(0.25, "Share of the clean images kept apart for the proof.", above=0, below=1)
    minimum_images: int = setting(64, "Fewest clean images that a removal accepts.", least=1)
    max_attack_success_rate: float = setting(
        0.05,
        "The bar for 'cleaned': ASR of each trigger beyond the rate at which images without one are read as the target.",
        least=0,
        most=1,
    )
    max_accuracy_drop: float = setting(
        0.05, "The bar for the loss of clean accuracy, when labels are known.", least=0, most=1
    )
    min_agreement: float = setting(
        0.8, "The bar for the agreement with the original model, when they are not.", least=0, most=1
    )


@dataclass
class RemovalConfig(Settings):
    """Settings of a whole removal.

    Raises:
        InputError: a value out of range.
    """

    scan: ScanConfig = field(default_factory=ScanConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    localization: LocalizationConfig = field(default_factory=LocalizationConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    treat: str = setting("inconclusive", "The mildest verdict that is treated: 'inconclusive' or 'backdoored'.")
    seed: int = setting(0, "Seed of everything random.", least=0, most=2**32 - 1)

    def with_false_alarms(self, rate: float) -> Self:
        """The same settings with the bars by which so many clean models are called anything but clean.

        Args:
            rate (`float`): a share, above 0 and at most .5; that of the default bars is [`FALSE_ALARMS`]. It holds for
                models like those that the bars were calibrated on.

        Raises:
            InputError: a rate out of range.
        """
        if not 0 < rate <= 0.5:
            raise InputError(f"`false_alarms`: got {rate}; it must be above 0 and at most 0.5.")
        scan = self.scan
        gathering = replace(scan.gathering, bars=scan.gathering.bars | calibrated_bars("concentration", rate))
        return replace(self, scan=replace(scan, gathering=gathering, bars=scan.bars | calibrated_bars("lead", rate)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.treat not in ("inconclusive", "backdoored"):
            raise InputError(f"`treat`: got {self.treat!r}; choose 'inconclusive' or 'backdoored'.")
