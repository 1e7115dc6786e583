"""The tiny model as it lies on a Hub."""

import pytest
import torch

from hf_invertune.models.loading import load_model, state_digest


@pytest.fixture(scope="package")
def files(tiny_folder):
    """The files of the tiny model."""
    return {path.name: path.read_bytes() for path in tiny_folder.iterdir()}


@pytest.fixture(scope="package")
def digest(tiny_folder):
    return state_digest(load_model(tiny_folder, device="cpu").model, torch.float32)
