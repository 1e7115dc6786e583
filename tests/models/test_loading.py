import json
import math
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from hf_invertune.errors import InputError
from hf_invertune.models.loading import load_model, state_digest


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model to spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


class Canary:
    """Leaves a file behind when its pickle is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def canary(tmp_path):
    """A pickle that makes a folder when it is opened, and that folder."""
    trace = tmp_path / "opened"
    content = pickle.dumps({"weight": Canary(trace)}, protocol=2)
    pickle.loads(content)
    trace.rmdir()
    return content, trace


# What loads


def test_load(tiny_folder):
    loaded = load_model(tiny_folder, device="cpu")
    assert (loaded.name, loaded.revision, loaded.dtype) == ("tiny", None, torch.float32)
    assert not loaded.model.training
    assert loaded.model.device == torch.device("cpu")
    stored = load_file(tiny_folder / "model.safetensors")
    assert stored and all(torch.equal(loaded.model.state_dict()[name], tensor) for name, tensor in stored.items())


def test_the_processor_needs_no_torchvision(tiny_folder):
    assert (
        type(load_model(str(tiny_folder), device="cpu").processor.image_processor).__name__ == "CLIPImageProcessorPil"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_dtype(folder, dtype):
    CLIPModel.from_pretrained(folder).to(dtype).save_pretrained(folder)
    loaded = load_model(folder, device="cpu")
    assert loaded.dtype is dtype
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(loaded.model.state_dict()[name].to(dtype), tensor) for name, tensor in stored.items())


def test_shards(folder):
    CLIPModel.from_pretrained(folder).save_pretrained(folder / "sharded", max_shard_size="40KB")
    assert (folder / "sharded" / "model.safetensors.index.json").is_file()
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, folder / "sharded")
    loaded, whole = load_model(folder / "sharded", device="cpu"), load_model(folder, device="cpu")
    assert state_digest(loaded.model, torch.float32) == state_digest(whole.model, torch.float32)


def test_older_files_of_a_processor(folder):
    loaded = load_model(folder, device="cpu")
    expected = loaded.processor.tokenizer("a red circle")["input_ids"]
    image_processor = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    image_processor["image_mean"] = [0.1, 0.2, 0.3]
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor))
    (folder / "processor_config.json").unlink()
    processor = load_model(folder, device="cpu").processor
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    assert processor.tokenizer("a red circle")["input_ids"] == expected


def test_the_working_directory_has_a_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_model(".", device="cpu").name == "model"


def test_the_license_of_the_card(folder):
    assert load_model(folder, device="cpu").license == {}
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: ours\ntags: [clip]\n---\n# A model\n")
    assert load_model(folder, device="cpu").license == {"license": "other", "license_name": "ours"}
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert load_model(folder, device="cpu").license == {}


# What does not


def refused(message, *arguments, **options):
    with pytest.raises(InputError, match=message):
        load_model(*arguments, device="cpu", **options)


@pytest.mark.parametrize("place", ["nowhere", "nowhere/deep", "a file"])
def test_no_folder(tmp_path, place):
    (tmp_path / "a file").write_text("")
    refused(f"`model`: .*{place} is no folder", tmp_path / place)


@pytest.mark.parametrize("name", ["./nowhere", "~nobody/nowhere", "org/deep/name"])
def test_no_folder_and_no_id(name):
    refused(f"`model`: {name} is no folder; pass a folder or a Hub id", name)


def test_empty_folder(tmp_path):
    refused("`model`: .* holds no config.json", tmp_path)


@pytest.mark.parametrize("kind", ["bert", "align"])
def test_another_model(folder, kind):
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    refused(f"`model`: .* is a '{kind}' model; only 'altclip', .* models are supported", folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    refused("`model`: .* holds no weights; it needs model.safetensors", folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt"])
def test_only_pickles(folder, canary, name):
    content, trace = canary
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    refused(
        rf"`model`: .* only pickled weights \({name}\), which are never opened; it needs model.safetensors", folder
    )
    assert not trace.exists()


def test_a_pickle_beside_the_weights_stays_shut(folder, canary):
    content, trace = canary
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin"):
        (folder / name).write_bytes(content)
    load_model(folder, device="cpu")
    assert not trace.exists()


def test_code_of_the_models_own_does_not_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert isinstance(load_model(folder, device="cpu").model, CLIPModel)
    assert not (tmp_path / "ran").exists()


def test_no_processor(folder):
    (folder / "processor_config.json").unlink()
    refused("`processor`: .* holds neither processor_config.json nor preprocessor_config.json", folder)


def test_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    refused("`processor`: .* holds no tokenizer.json", folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"][3, 2] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused("`model`: .* has NaN or infinite values in text_projection.weight", folder)


# The digest


def test_digest(tiny):
    model = tiny.model
    before = state_digest(model, torch.float32)
    assert len(before) == 64 and before == state_digest(model, torch.float32)
    weight = model.text_model.encoder.layers[0].mlp.fc1.bias.data
    weight.view(torch.int32)[5] ^= 1
    changed = state_digest(model, torch.float32)
    weight.view(torch.int32)[5] ^= 1
    assert changed != before == state_digest(model, torch.float32)


def test_digest_is_of_the_stored_dtype(tiny):
    model = tiny.model
    before = state_digest(model, torch.float16)
    assert before != state_digest(model, torch.float32)
    assert before == state_digest(model.half().float(), torch.float16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_digest_covers_names_and_shapes():
    first, second = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 2, bias=False)
    second.weight.data = first.weight.data.view(2, 3)
    assert state_digest(first, torch.float32) != state_digest(second, torch.float32)
    renamed = torch.nn.Module()
    renamed.register_buffer("mass", first.weight.data)
    assert state_digest(first, torch.float32) != state_digest(renamed, torch.float32)
