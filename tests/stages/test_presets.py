"""The paper's way is one argument away, and does what the paper says."""

from dataclasses import replace

import pytest
import torch
from tiny_plan import forced_bars, pictures, removal_config

from hf_invertune import BackdoorRemover, preset
from hf_invertune.errors import InputError
from hf_invertune.stages.configs import RemovalConfig
from hf_invertune.stages.families import MaskedFamily
from hf_invertune.tuning.callbacks import ReinversionCallback
from hf_invertune.tuning.pursuit import Chase


def test_presets_by_name():
    assert preset("default") == RemovalConfig()
    with pytest.raises(InputError, match="`preset`: got 'papre'; the nearest are 'paper'"):
        preset("papre")


def test_a_search_for_patches_is_as_thorough_as_ever_in_its_families():
    """So that its bars mean what they mean elsewhere: it leaves families out, and changes nothing of those that it keeps."""
    scan, whole = preset("patches").scan, RemovalConfig().scan
    assert list(scan.searched) == ["window", "masked"]
    left_out = {"families": whole.families, "words": whole.words}
    assert replace(scan, **left_out, gathering=replace(scan.gathering, families=whole.gathering.families)) == whole


def test_settings_of_the_paper():
    """arXiv 2506.12411: weights of the inversion, 200 updates of 64 images, beta 0.5, layers above one deviation."""
    config = preset("paper")
    loss, tuning = config.inversion, config.tuning
    assert (loss.info_nce_weight, loss.embedding_weight, loss.ssim_weight) == (5.0, 0.5, 1.0)
    # 0.01 ||m||_1 of a mask of 224 x 224 is 0.01 * 224^2 = 502 times its mean.
    assert config.scan.families == (MaskedFamily(mask_weight=500.0),)
    assert (loss.steps, loss.batch_size) == (tuning.max_steps, tuning.per_device_train_batch_size) == (200, 64)
    assert (tuning.align_weight, tuning.preserve_weight, tuning.embedding_weight) == (1.0, 0.5, 0.0)
    assert (config.localization.deviations, config.localization.top_layers) == (1.0, None)
    assert (tuning.weight_decay, tuning.lr_scheduler_type, tuning.lora_layers) == (1e-4, "cosine", "critical")


def test_the_papers_removal_works_on_one_trigger_that_stays(tiny_folder, monkeypatch):
    """One inverted trigger, nothing gathered, nothing learnt on or inverted anew while the model is tuned."""
    paper, short = preset("paper"), removal_config()
    paper.scan.bars = forced_bars("backdoored")
    for name in (
        "steps",
        "simulation_steps",
        "simulation_batch_size",
        "restarts",
        "batch_size",
        "max_chance",
        "looks",
    ):
        setattr(paper.scan, name, getattr(short.scan, name))
    paper.inversion.steps, paper.inversion.batch_size, paper.tuning.max_steps = 2, 4, 60
    paper.tuning.per_device_train_batch_size = 4
    paper.audit.minimum_images = 16

    def forbidden(*args, **kwargs):
        raise AssertionError("it was called")

    monkeypatch.setattr(Chase, "__init__", forbidden)
    monkeypatch.setattr(ReinversionCallback, "on_train_begin", lambda *args, **kwargs: None)
    remover = BackdoorRemover.from_pretrained(tiny_folder, device="cpu")
    report = remover.remove(pictures(32), config=paper).report
    assert [found.family for found in report.inverted] == ["masked"]
    assert report.scan.gatherings == [] and [one.family for one in report.scan.evidence] == ["masked"]
    assert not any("reinversion_objective" in entry for entry in report.removal.training)
    assert torch.isfinite(torch.tensor([entry["loss"] for entry in report.removal.training if "loss" in entry])).all()
