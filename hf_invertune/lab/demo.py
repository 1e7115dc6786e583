"""The embedded demo: a small backdoored CLIP, its clean twin, and the removal on drawings made on the spot."""

import json
import time
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from ..data.pixels import PixelDataset, as_uint8
from ..remover import BackdoorRemover
from ..report.report import AuditReport
from ..stages.configs import RemovalConfig
from ..triggers import Trigger
from .drawings import CLASS_NAMES, draw


CLEAN_IMAGES, TEST_IMAGES = 512, 2000
CLEAN_SEED, TEST_SEED = 5_000, 6_000
"""Seeds of the drawings: neither those of the victims' training nor those of their own test."""


@dataclass
class DemoResult:
    """What the demo shows; CA and ASR are of the attack's own trigger, on drawings that nothing else saw.

    Attributes:
        verdict (`str`), target (`str`, *optional*), outcome (`str`): what the removal concluded and did.
        true_target (`str`, *optional*): the label that the attack was made for; `None` for the clean twin.
        ca_before, ca_after (`float`): clean accuracy in [0, 1].
        asr_before, asr_after (`float`): success of the attack's own trigger in [0, 1], target images excluded.
        identical (`bool`): whether every weight is bit-identical to the original.
        seconds (`float`): wall time.
        report ([`AuditReport`]): the audit report.
    """

    verdict: str
    target: str | None
    true_target: str | None
    ca_before: float
    ca_after: float
    asr_before: float
    asr_after: float
    identical: bool
    seconds: float
    outcome: str
    report: AuditReport


def demo_victim(name: str) -> Path:
    """Folder of an embedded model, `"poisoned"` or `"clean"`, that `from_pretrained` loads."""
    with as_file(files("hf_invertune") / "lab" / "victims" / name) as folder:
        return folder


def victim_truth() -> tuple[dict[str, Any], Trigger]:
    """How the poisoned model was made, and the attack's own trigger."""
    folder = demo_victim("")
    return json.loads((folder / "truth.json").read_text()), Trigger.load(folder / "trigger.safetensors")


def demo_images(count: int = CLEAN_IMAGES, seed: int = CLEAN_SEED) -> PixelDataset:
    """`count` labelled drawings as a dataset."""
    drawn = draw(count, seed)
    pixels = as_uint8(drawn.pixels)
    return PixelDataset(pixels, drawn.labels, CLASS_NAMES, source=f"drawings, seed {seed}")


def run_demo(
    output_dir: Path | None = None, *, victim: str = "poisoned", config: RemovalConfig | None = None
) -> DemoResult:
    """Scan and clean an embedded model, then measure it with the attack's own trigger; the config's seed draws the pictures."""
    begin = time.perf_counter()
    truth, trigger = victim_truth()
    remover = BackdoorRemover.from_pretrained(demo_victim(victim))
    config = config or RemovalConfig()
    test = demo_images(TEST_IMAGES, TEST_SEED)
    before = remover.evaluate(test, trigger=trigger, target=truth["target"])
    result = remover.remove(
        demo_images(CLEAN_IMAGES, CLEAN_SEED + config.seed), output_dir=output_dir, trigger=trigger, config=config
    )
    after = remover.evaluate(test, trigger=trigger, target=truth["target"])
    rates = [rate for metrics in (before, after) for rate in (metrics.clean_accuracy, metrics.attack_success_rate)]
    ca_before, asr_before, ca_after, asr_after = (rate.value for rate in rates if rate is not None)
    return DemoResult(
        verdict=result.verdict,
        target=result.target_name,
        true_target=truth["target"] if victim == "poisoned" else None,
        ca_before=ca_before,
        ca_after=ca_after,
        asr_before=asr_before,
        asr_after=asr_after,
        identical=result.report.model.sha256 == result.report.sha256_after,
        seconds=time.perf_counter() - begin,
        outcome=result.outcome,
        report=result.report,
    )
