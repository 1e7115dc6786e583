import gc
import itertools
import os
import time

from loopback_environment import HUB


# isort: split
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import datasets
import huggingface_hub
import pytest
import torch
from browser import Browser, find_chromium
from tiny import save_tiny

from hf_invertune.lab.demo import demo_victim
from hf_invertune.models.loading import load_model
from hf_invertune.report import html
from hf_invertune.utils.runtime import keep_freed_memory


torch.set_num_threads(1)
keep_freed_memory()
gc.freeze()  # each inversion collects garbage, which takes long with all that was imported above


LONGEST = ("demo", "hub_pull", "remover", "publish", "examples", "hub_round_trip", "main", "verify", "trackers")


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that two workers end at about the same time."""
    first = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.name, len(first)))


@pytest.fixture(autouse=True)
def scans(tmp_path_factory, monkeypatch):
    """Where this test keeps its scans, which no other one finds there; the folder is made with the first."""
    folder = tmp_path_factory.getbasetemp() / "scans" / str(next(_COUNT))
    monkeypatch.setenv("HF_INVERTUNE_CACHE", str(folder))
    return folder


_COUNT = itertools.count()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder with a tiny random CLIP; a test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    """A tab of headless Chromium."""
    program = find_chromium()
    if program is None:
        missing = "no Chromium on the path; install one to test pages in it"
        if os.environ.get("HF_INVERTUNE_REQUIRE_CHROMIUM") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with Browser(program) as opened:
        yield opened


@pytest.fixture
def tiny(tiny_folder):
    return load_model(tiny_folder, device="cpu")


@pytest.fixture
def encoder(tiny):
    return tiny.encoder


@pytest.fixture(scope="session")
def victim():
    """The embedded poisoned model; no test may change it."""
    return load_model(demo_victim("poisoned"), device="cpu")


@pytest.fixture
def pixels():
    return torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def drawn_once(monkeypatch):
    """Reports that agree in what their charts show share them: drawing takes most of the time that a page takes."""

    def charts(report):
        shown = repr((report.scan, report.removal))
        if shown not in _DRAWN:
            _DRAWN[shown] = list(_draw(report))
        return _DRAWN[shown]

    monkeypatch.setattr(html, "charts", charts)


_DRAWN, _draw = {}, html.charts


class Clock:
    """The `time` of modules that back off: they note how long they would sleep, and go on."""

    def __init__(self):
        self.naps = []

    def __getattr__(self, name):
        return getattr(time, name)

    def sleep(self, seconds):
        self.naps.append(seconds)


@pytest.fixture
def naps(monkeypatch):
    """The seconds that the Hub's client would have slept between its tries."""
    clock = Clock()
    for module in ("huggingface_hub.utils._http", "huggingface_hub.file_download", "datasets.utils.file_utils"):
        monkeypatch.setattr(f"{module}.time", clock)
    return clock.naps


@pytest.fixture
def hub(tmp_path, monkeypatch, naps):
    """The Hub that this process and its children talk to, empty, as are the caches."""
    HUB.reset()
    cache = tmp_path / "hub cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets cache"))
    huggingface_hub.HfFileSystem.clear_instance_cache()
    yield HUB
    assert not HUB.crashes, HUB.crashes[0]
