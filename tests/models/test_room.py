"""How many pictures fit is known from what a model keeps of one, and from the memory of its device."""

import psutil
import pytest
import torch

from hf_invertune.models import room
from hf_invertune.models.room import bytes_kept, memory_of, pictures_at_once


SIZE = torch.Size((32, 32))


def test_what_is_kept_grows_with_the_layers_and_does_not_count_the_weights(encoder):
    whole = bytes_kept(encoder, SIZE)
    assert whole == pytest.approx(bytes_kept(encoder, SIZE, pictures=6), rel=0.05)
    layers = encoder.model.vision_model.encoder.layers
    encoder.model.vision_model.encoder.layers = layers[:1]
    assert 0 < bytes_kept(encoder, SIZE) < 0.8 * whole
    with torch.no_grad():  # a layer as wide, whose weights would weigh much more than one picture's activations
        assert sum(weight.nbytes for weight in encoder.model.parameters()) > 2 * whole


def test_it_is_found_out_once_for_each_size(encoder, monkeypatch):
    asked = []
    monkeypatch.setattr(room, "bytes_kept", lambda encoder, size: asked.append(size) or 1000)
    monkeypatch.setattr(room, "memory_of", lambda device: 1_000_000)
    assert [pictures_at_once(encoder, SIZE) for _ in range(3)] == [400] * 3 and asked == [SIZE]


def test_one_picture_goes_through_at_least(encoder, monkeypatch):
    monkeypatch.setattr(room, "memory_of", lambda device: 1)
    assert pictures_at_once(encoder, SIZE) == 1


def test_the_processes_of_a_machine_share_its_memory(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    whole = memory_of(torch.device("cpu"))
    assert whole == psutil.virtual_memory().total
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_of(torch.device("cpu")) == whole // 4
