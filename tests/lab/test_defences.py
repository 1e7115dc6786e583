"""The defences that only the arena has: ours, and none."""

import torch
from arena_zoo import pairs
from tiny import CLASS_NAMES
from tiny_plan import removal_config

from hf_invertune.lab.arena import defences
from hf_invertune.lab.arena.defences import DEFENCES, NoDefence, Ours
from hf_invertune.lab.baselines import BASELINES
from hf_invertune.models.loading import state_digest
from hf_invertune.remover import BackdoorRemover
from hf_invertune.stages.configs import RemovalConfig
from hf_invertune.stages.verdict import Verdict
from hf_invertune.triggers import Trigger


DATA = pairs(24, seed=1)


def defend(clip, monkeypatch, learning_rate, verdict):
    """What ours hands back with two updates a stage and that verdict, and what it asked of [`BackdoorRemover.remove`]."""
    asked, remove = [], BackdoorRemover.remove
    monkeypatch.setattr(defences, "RemovalConfig", lambda seed: removal_config(verdict, seed))

    def note(remover, images, config):
        source = remover.source
        result = remove(remover, images, config=config)
        asked.append((source, images, config, result))
        return result

    monkeypatch.setattr(BackdoorRemover, "remove", note)
    defended = Ours(learning_rate, seed=7).defend(clip, DATA, CLASS_NAMES)
    ((source, images, config, result),) = asked
    assert source is clip
    assert torch.equal(images.pixels, DATA.pixels) and torch.equal(images.labels, DATA.labels)
    assert images.class_names == CLASS_NAMES
    assert (defended.model, defended.trigger) == (
        result.model,
        result.report.inverted[0].trigger if result.report.inverted else None,
    )
    assert (defended.verdict, defended.target) == (result.verdict, result.target_name)
    return defended, config


def test_by_name():
    assert {"none": NoDefence, **BASELINES, "hf_invertune": Ours} == DEFENCES
    assert (Ours.name, NoDefence.name) == ("hf_invertune", "none")


def test_no_defence_hands_the_model_back(tiny):
    before = state_digest(tiny.model, torch.float32)
    defended = NoDefence().defend(tiny, DATA, CLASS_NAMES)
    assert defended.model is tiny.model and state_digest(tiny.model, torch.float32) == before
    assert (defended.verdict, defended.target, defended.trigger, defended.details) == (None, None, None, {})


def test_ours_cleans(tiny, monkeypatch):
    before = state_digest(tiny.model, torch.float32)
    defended, config = defend(tiny, monkeypatch, 0.03, "backdoored")
    assert (config.seed, config.tuning.learning_rate, config.tuning.max_steps) == (7, 0.03, 2)
    assert state_digest(defended.model, torch.float32) != before and not defended.model.training
    assert defended.verdict is Verdict.BACKDOORED
    assert defended.target in CLASS_NAMES and isinstance(defended.trigger, Trigger)
    assert list(defended.details) == ["outcome", "reasons", "seconds"]
    assert defended.details["outcome"] in ("cleaned", "reduced", "not cleaned")
    assert {"scan", "tuning"} <= set(defended.details["seconds"])


def test_ours_leaves_a_clean_model_alone(tiny, monkeypatch):
    before = state_digest(tiny.model, torch.float32)
    defended, config = defend(tiny, monkeypatch, None, "clean")
    assert config.tuning.learning_rate == RemovalConfig().tuning.learning_rate
    assert state_digest(defended.model, torch.float32) == before
    assert defended.verdict is Verdict.CLEAN and defended.trigger is None
    assert defended.details["outcome"] == "unchanged" and defended.details["reasons"]
