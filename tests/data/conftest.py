"""What pictures are read with, and where what is made of tables on the way is kept."""

import datasets
import pytest

from hf_invertune.models.loading import load_model


@pytest.fixture(scope="package")
def processor(tiny_folder):
    return load_model(tiny_folder, device="cpu").processor


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
