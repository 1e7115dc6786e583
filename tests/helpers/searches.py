"""A short search on the tiny model, for tests that hold what several processes find against what one does."""

import torch

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.loading import load_model
from hf_invertune.stages.configs import Bars, GatheringConfig, InversionConfig, ScanConfig
from hf_invertune.stages.families import BlendFamily, MaskedFamily, WaveFamily, WindowFamily
from hf_invertune.stages.identification import TargetIdentifier


NAMES = ("red circle", "blue square", "green ring", "white cross")
SURE = Bars(-1e9, -1e9)


def search(source, looks=1, bars=SURE):
    """The scan of `source` by a few steps of four families, two of which race up to `looks` times between `bars`."""
    pixels = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    gathering = GatheringConfig(
        (WindowFamily(), WaveFamily(highest=1)), starts=4, probed=4, steps=3, trial=3, kept=2, batch_size=3,
        bars={"window": SURE, "wave": SURE},
    )  # fmt: skip
    fixed = InversionConfig(steps=3, batch_size=2, embedding_weight=0, ssim_weight=0)
    config = ScanConfig(
        (MaskedFamily(), BlendFamily()), simulation_steps=1, simulation_batch_size=1, restarts=2, batch_size=2,
        steps=(3, 2), finalists=4, rivals=2, looks=looks, fixed_restarts=2, fixed_trial=2, fixed=fixed, gathering=gathering,
        bars={"masked": bars, "blend": bars}, words=(),
    )  # fmt: skip
    return TargetIdentifier(ZeroShotClassifier(source.encoder, NAMES), config).identify(pixels)


def found_by(scan):
    """What a scan found, as JSON has it."""
    return {
        "verdict": scan.verdict,
        "target": scan.target,
        "scores": [score for family in scan.evidence for _, score in sorted(family.scores.items())],
        "concentrations": [place.concentration for place in scan.gatherings],
    }


def learnt_by_one(folder):
    """On how many pictures one process learns in that search."""
    source, learnt = load_model(folder, device="cpu"), []
    embed = source.encoder.image_features
    source.encoder.image_features = lambda pixels: learnt.append(pixels.requires_grad * len(pixels)) or embed(pixels)
    search(source)
    return sum(learnt)
