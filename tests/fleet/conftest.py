"""A small fleet: tiny models that differ in their weights, one that cannot be loaded, drawings to look at."""

import shutil

import pytest
import torch
from fleets import NAMES, QUICK, save_variant

from hf_invertune.data.pixels import PixelDataset
from hf_invertune.report import html
from hf_invertune.stages.configs import RemovalConfig


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Reports without their charts, which take most of the time that a small fleet takes."""
    monkeypatch.setattr(html, "charts", lambda report: [])


@pytest.fixture(scope="session")
def fleet(tiny_folder, tmp_path_factory):
    """Folders of five different models, and in their middle one whose weights are cut short."""
    folder = tmp_path_factory.mktemp("fleet")
    for number, name in enumerate(NAMES):
        save_variant(tiny_folder, folder / name, number)
    broken = folder / "broken"
    shutil.copytree(tiny_folder, broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    return [folder / name for name in (*NAMES[:2], "broken", *NAMES[2:])]


@pytest.fixture
def config():
    return RemovalConfig.of(QUICK)


@pytest.fixture(scope="session")
def looked_at():
    """Pictures without labels."""
    return PixelDataset((torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255).byte())
