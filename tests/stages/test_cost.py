"""What a scan costs is said before it begins, and holds."""

from dataclasses import replace

import pytest
import torch

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.room import pictures_at_once
from hf_invertune.stages.configs import Bars, GatheringConfig, InversionConfig, ScanConfig
from hf_invertune.stages.cost import Pace, Passes, measure_pace, scan_passes
from hf_invertune.stages.families import AdditiveFamily, BlendFamily, MaskedFamily, WaveFamily, WindowFamily
from hf_invertune.stages.identification import TargetIdentifier


UNSURE, SURE = Bars(-1e9, 1e9), Bars(-1e9, -1e9)
SIZE = torch.Size((32, 32))


@pytest.fixture
def counted(encoder, monkeypatch):
    """What goes through the encoder, as it goes."""
    counts = {"learnt": 0, "read": 0, "texts": 0, "widest": 0}
    pictures, texts = encoder.image_features, encoder.text_features

    def image_features(pixels):
        learnt = pixels.requires_grad
        counts["learnt" if learnt else "read"] += len(pixels)
        counts["widest"] = max(counts["widest"], learnt * len(pixels))
        return pictures(pixels)

    def text_features(given):
        counts["texts"] += len(given)
        return texts(given)

    monkeypatch.setattr(encoder, "image_features", image_features)
    monkeypatch.setattr(encoder, "text_features", text_features)
    return counts


def settings(bars, names, trial):
    families = (MaskedFamily(), AdditiveFamily(), BlendFamily())
    gathering = GatheringConfig(
        (WindowFamily(), WaveFamily(highest=1)), starts=4, probed=3, steps=3, trial=trial, kept=2, batch_size=3,
        bars={"window": bars, "wave": bars},
    )  # fmt: skip
    return ScanConfig(
        families, simulation_steps=2, simulation_batch_size=3, shortlist_size=names, restarts=2, batch_size=2,
        steps=(2, 3), finalists=3, rivals=2, looks=2, fixed_restarts=2, fixed_trial=trial,
        fixed=InversionConfig(steps=3, batch_size=2, embedding_weight=0, ssim_weight=0), gathering=gathering,
        bars={family.kind: bars for family in families}, max_chance=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("trial", [1, 3])
@pytest.mark.parametrize(("shortlist", "longest"), [(4, False), (3, True)])
def test_the_passes_of_a_scan(encoder, pixels, counted, shortlist, longest, trial):
    """The most: every look is taken, and none of the labels behind are kin, so that they go on. And the least."""
    config = replace(settings(UNSURE if longest else SURE, shortlist, trial), kinship=1.0 if longest else -1.0)
    names = ("red circle", "blue square", "green ring", "white cross")
    templates = ("a photo of a {}", "a {}")
    pictures_at_once(encoder, SIZE)  # which is found out once, by two pictures
    counted.update(learnt=0, widest=0)
    TargetIdentifier(ZeroShotClassifier(encoder, names, templates), config).identify(pixels)
    assert Passes(**counted) == scan_passes(config, len(pixels), len(names), len(templates), SIZE, longest=longest)


def test_the_check_of_the_reading_counts():
    config = ScanConfig()
    more = scan_passes(config, 96, 10, 7, SIZE)
    less = scan_passes(replace(config, max_chance=1.0), 96, 10, 7, SIZE)
    assert more.read - less.read == 96 and more.learnt == less.learnt


def test_time_and_memory_are_sums():
    pace = Pace(learnt=0.5, read=0.25, text=0.1, weights=1000, picture=10, most=7)
    passes = Passes(learnt=60, read=120, texts=600, widest=6)
    assert pace.minutes(passes) == pytest.approx(2.0) and pace.memory(passes) == 1060
    assert pace.memory(replace(passes, widest=99)) == 1070  # what does not fit is learnt on in parts


def test_the_pace_is_measured(encoder):
    pace = measure_pace(encoder, "a photo of a red circle", SIZE, batch=2)
    assert 0 < pace.read < 1 and 0 < pace.learnt < 1 and 0 < pace.text < 1
    assert pace.weights == sum(parameter.nbytes for parameter in encoder.model.parameters())
    hidden = 17 * 32 * 4  # a picture's tokens through one layer
    assert 10 * hidden < pace.picture < 200 * hidden
    assert all(parameter.grad is None and parameter.requires_grad for parameter in encoder.model.parameters())
