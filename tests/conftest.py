import gc
import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import pytest
import torch
from tiny import save_tiny

from hf_invertune.demo import victim_folder
from hf_invertune.encoder import DualEncoder
from hf_invertune.hub import load_clip


torch.set_num_threads(1)
gc.freeze()  # each inversion collects garbage, which takes long with all that was imported above


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder with a tiny random CLIP; a test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder):
    return load_clip(tiny_folder, device="cpu")


@pytest.fixture
def encoder(tiny):
    return DualEncoder(tiny.model, tiny.processor)


@pytest.fixture(scope="session")
def victim():
    """The embedded poisoned model; no test may change it."""
    return load_clip(victim_folder("poisoned"), device="cpu")


@pytest.fixture
def pixels():
    return torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
