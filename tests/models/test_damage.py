"""Models that are damaged, or whose parts do not fit each other: one clear error each, whatever is wrong."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accidents import accident
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.data.loading import resize
from hf_invertune.errors import InputError
from hf_invertune.models.loading import load_model


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model to spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def refused(message, folder):
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder, device="cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def change(path, *keys, **values):
    """Set values in the JSON object of a file, or in that at `keys` in it."""
    settings = inner = json.loads(path.read_text())
    for key in keys:
        inner = inner[key]
    inner.update(values)
    path.write_text(json.dumps(settings))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


# Weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "`model`: the model.safetensors of .* is empty; fetch or save it anew"),
        (POINTER.encode(), "`model`: the model.safetensors of .* is a pointer of Git LFS, .* run `git lfs pull`"),
        (b"{}", r"`model`: the model.safetensors of .* is cut off or damaged \(.*\); fetch or save it anew"),
    ],
)
def test_a_file_that_holds_no_weights(folder, content, message):
    (folder / "model.safetensors").write_bytes(content)
    refused(message, folder)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_weights_that_are_cut_off(folder, share):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    refused("`model`: the model.safetensors of .* is cut off or damaged", folder)


@pytest.fixture
def sharded(folder):
    CLIPModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink()
    load_model(folder, device="cpu")
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "index.json of .* is damaged"),
        ("[]", "index.json of .* holds a list; it must be a JSON object"),
        ("{}", "index.json of .* has no weight_map"),
        ('{"weight_map": {"a": 1}}', "index.json of .* has no weight_map"),
        (
            '{"weight_map": {"a": "../model.safetensors"}}',
            "lists '../model.safetensors', which is no .safetensors file",
        ),
        ('{"weight_map": {"a": "weights.bin"}}', "lists 'weights.bin', which is no .safetensors file beside it"),
        (
            '{"weight_map": {"a": "b.safetensors"}}',
            "lacks b.safetensors, which its model.safetensors.index.json lists",
        ),
    ],
)
def test_a_broken_index(sharded, content, message):
    (sharded / "model.safetensors.index.json").write_text(content)
    refused(f"`model`: .*{message}", sharded)


def test_a_missing_shard(sharded):
    gone = sorted(sharded.glob("model-*.safetensors"))[1]
    gone.unlink()
    refused(f"`model`: .* lacks {gone.name}, which its model.safetensors.index.json lists", sharded)


def test_weights_of_another_shape(folder):
    change(folder / "config.json", "text_config", hidden_size=64)
    refused(r"`model`: text_model\..* in model.safetensors of .* by its config.json .* floats of shape", folder)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("text_config", {"num_hidden_layers": 10**9}, "has 1000000000 layers, and its weights are"),
        ("vision_config", {"num_hidden_layers": 30}, "parameters, and its weights have"),
        ("vision_config", {"num_hidden_layers": 3}, r"lack vision_model\.encoder\.layers\.2"),
    ],
)
def test_more_layers_than_weights(folder, part, values, message):
    change(folder / "config.json", part, **values)
    refused(f"`model`: .*{message}", folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_that_are_no_floats(folder, dtype):
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"] = weights["text_projection.weight"].to(dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused("`model`: text_projection.weight .* or it is quantised", folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            "with bitsandbytes; gradients need the float weights",
        ),
        ({"quant_method": "own"}, "with own; gradients need the float weights"),
        ({}, "are quantised, by its config.json; gradients"),
        ("int8", "are quantised, by its config.json; gradients"),
    ],
)
def test_quantised_weights(folder, settings, message):
    change(folder / "config.json", quantization_config=settings)
    refused(f"`model`: the weights of .*{message}", folder)


@pytest.mark.parametrize("attention", ["flash_attention_2", "kernels-community/own", "nothing"])
def test_an_attention_that_is_not_installed(folder, attention):
    expected = load_model(folder, device="cpu").encoder.embed_texts(["a cat"])
    change(folder / "config.json", attn_implementation=attention, _attn_implementation=attention)
    torch.testing.assert_close(load_model(folder, device="cpu").encoder.embed_texts(["a cat"]), expected)


# Settings


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ((), {"projection_dim": "16"}),
        ((), {"text_config": "x"}),
        (("text_config",), {"hidden_size": None}),
        (("text_config",), {"hidden_act": "swish-own"}),
        (("vision_config",), {"num_attention_heads": 0}),
        (("vision_config",), {"num_attention_heads": 3}),
        (("vision_config",), {"num_channels": 1}),
        (("vision_config",), {"layer_norm_eps": float("nan")}),
        (("vision_config",), {"image_size": 2**40}),
        ((), {"dtype": "float7"}),
    ],
)
def test_settings_of_the_wrong_kind(folder, part, values):
    change(folder / "config.json", *part, **values)
    refused("^`model`: .*config.json", folder)


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "7", POINTER, "\ufeff{}", "[" * 100_000])
def test_a_file_that_is_no_object(folder, file, content):
    (folder / file).write_text(content)
    refused(f"^`(model|processor)`: the {file} of ", folder)


# Processor and model


def processed(folder, **values):
    change(folder / "processor_config.json", "image_processor", **values)
    return folder


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"crop_size": {"height": 24, "width": 24}}, "24x24"),
        ({"crop_size": {"height": 32, "width": 40}}, "32x40"),
        ({"crop_size": {"height": 30, "width": 30}}, "30x30"),
        ({"do_center_crop": False}, "32x44"),
    ],
)
def test_pictures_of_another_size(folder, values, size):
    refused(f"`processor`: that of .* makes pictures of {size} pixels, .* takes 32x32", processed(folder, **values))


@pytest.mark.parametrize(
    "values",
    [{"image_mean": [0.5]}, {"image_mean": [0.5, 0.5]}, {"image_std": [1, 1, 0]}, {"image_std": "x"}]
    + [{"image_mean": None}, {"image_mean": [0.5, 0.5, "x"]}, {"rescale_factor": 0}, {"size": {"longest": 3}}],
)
def test_colours_that_cannot_be_normalised(folder, values):
    refused("^`processor`: ", processed(folder, **values))


@pytest.mark.parametrize(
    "values",
    [
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120, 110, 100], "image_std": [60, 70, 80]},
        {"rescale_factor": 2 / 255, "image_mean": [1.0, 0.9, 0.8]},
        {"do_normalize": False, "do_rescale": False},
        {"image_mean": 0.4, "image_std": 0.3},
    ],
)
def test_the_processor_is_obeyed(folder, values):
    loaded = load_model(processed(folder, **values), device="cpu")
    picture = Image.effect_mandelbrot((40, 32), (-3, -2.5, 2, 2.5), 9).convert("RGB")
    expected = loaded.processor.image_processor(picture, return_tensors="pt")["pixel_values"].float()
    pixels = torch.from_numpy(resize(picture, loaded.processor)).float()[None] / 255
    torch.testing.assert_close(loaded.encoder.pixel_values(pixels), expected, rtol=1e-5, atol=1e-4)


def test_a_tokenizer_of_another_model(folder):
    change(folder / "tokenizer.json", "model", "vocab", extra=100_000)
    refused("`processor`: the tokenizer of .* gives ids up to 100000, and the text tower .* knows those below", folder)


def test_a_tokenizer_with_another_end_of_text(folder):
    change(folder / "config.json", "text_config", eos_token_id=7)
    refused("`model`: the text tower of .* gives everything the same embedding; .* `eos_token_id`", folder)


def test_on_the_command_line(folder, tmp_path):
    (folder / "model.safetensors").write_bytes(b"")
    arguments = ["remove", str(folder), "--images", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--verbose"]
    outcome = CliRunner().invoke(cli.app, arguments)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr.count("\n")) == (2, "", 1)
    assert outcome.stderr.startswith("error: MODEL: the model.safetensors of ") and not list(
        (tmp_path / "out").iterdir()
    )


# Anything at all


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("seed", "count"), [(0, 150), pytest.param(1, 5_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_accidents(folder, seed, count):
    """Each ends with a model or one error that names the file or the model."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    outcomes = []
    for number in range(count):
        name, content = accident(files, np.random.default_rng([seed, number]))
        (folder / name).write_bytes(content)
        try:
            load_model(folder, device="cpu")
            outcomes.append("loaded")
        except InputError as error:
            assert re.fullmatch(rf"`(model|processor)`: .*({re.escape(str(folder))}|its ).{{1,600}}", str(error)), (
                number
            )
            outcomes.append("refused")
        (folder / name).write_bytes(files[name])
    assert outcomes.count("refused") > count / 2 > outcomes.count("loaded") > count / 20
