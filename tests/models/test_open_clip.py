"""Models in the format of open_clip: read, refused, and written back bit by bit."""

import json
import random
import shutil
import string
from collections import Counter

import numpy as np
import pytest
import torch
from open_clip_models import config_of, golden, save_open_clip
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from hf_invertune.errors import InputError
from hf_invertune.models.loading import load_model
from hf_invertune.models.open_clip import conversion


CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of a tiny ViT; a test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("open_clip") / "vit"
    save_open_clip(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(made, tmp_path / "model")


def load(folder):
    return load_model(folder, device="cpu")


def close(ours, theirs):
    torch.testing.assert_close(normalize(ours, dim=-1), normalize(theirs, dim=-1), rtol=0, atol=1e-6)


# What loads


@pytest.mark.parametrize("quick", [True, False])
def test_embeddings_are_those_of_the_mathematics(tmp_path, quick):
    theirs = save_open_clip(tmp_path / "model", config_of({"quick_gelu": quick}))
    encoder = load(tmp_path / "model").encoder
    assert type(encoder.model) is CLIPModel
    texts = ["red circle", "a photo of the blue square"]
    ids = encoder.processor.tokenizer(texts, padding="max_length", return_tensors="pt")["input_ids"]
    pixels = torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]))
    with torch.no_grad():
        close(encoder.embed_images(pixels), theirs.encode_image((pixels - mean) / std))
        close(encoder.embed_texts(texts), theirs.encode_text(ids))
        torch.testing.assert_close(encoder.scale, theirs.logit_scale.exp())


@pytest.mark.parametrize("name", ["vit", "vit-gelu", "rn"])
def test_embeddings_are_those_of_open_clip(name, tmp_path):
    folder, expected = golden(name, tmp_path / "model")
    model = load(folder).model
    with torch.no_grad():
        close(
            model.get_image_features(pixel_values=expected["pixel_values"]).pooler_output, expected["image_features"]
        )
        close(model.get_text_features(input_ids=expected["input_ids"]).pooler_output, expected["text_features"])


@pytest.mark.parametrize("name", ["vit", "vit-gelu", "rn"])
def test_a_model_of_open_clip_is_written_back_byte_by_byte(name, tmp_path):
    folder, _ = golden(name, tmp_path / "model")
    load(folder).save_pretrained(tmp_path / "back", "open_clip")
    same(folder, tmp_path / "back")
    assert (tmp_path / "back" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_pictures_without_normalisation(tmp_path, pixels):
    preprocess = {"mean": [0, 0, 0], "std": [1, 1, 1], "resize_mode": "squash", "interpolation": "bicubic"}
    theirs = save_open_clip(tmp_path / "model", config_of(preprocess=preprocess))
    encoder = load(tmp_path / "model").encoder
    torch.testing.assert_close(encoder.pixel_values(pixels), pixels, rtol=0, atol=0)
    with torch.no_grad():
        close(encoder.embed_images(pixels), theirs.encode_image(pixels))
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 80, 3), dtype=np.uint8))
    expected = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC)) / 255
    seen = encoder.processor.image_processor(picture, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(seen, expected.transpose(2, 0, 1), atol=1e-6)


def test_what_holds_when_nothing_is_said(tmp_path):
    vision = {"image_size": 16, "patch_size": ..., "head_width": ..., "width": 64, "mlp_ratio": ...}
    config = config_of({"quick_gelu": ...}, vision, {"heads": ..., "mlp_ratio": ...})
    config["model_cfg"]["vision_cfg"] |= {
        "patch_dropout": 0.5,
        "timm_pool": "avg",
        "pool_type": "tok",
        "ls_init_value": None,
    }
    del config["preprocess_cfg"]
    folder = tmp_path / "model"
    model = {**config["model_cfg"], "quick_gelu": False}
    model["vision_cfg"] = {**model["vision_cfg"], "patch_size": 16, "head_width": 64, "mlp_ratio": 4.0}
    model["text_cfg"] = {**model["text_cfg"], "heads": 8, "mlp_ratio": 4.0}
    save_open_clip(folder, {"model_cfg": model})
    (folder / CONFIG).write_text(json.dumps(config))
    loaded = load(folder)
    vision, image = loaded.model.config.vision_config, loaded.processor.image_processor
    assert (vision.hidden_act, vision.num_attention_heads, vision.patch_size) == ("gelu", 1, 16)
    assert loaded.model.config.text_config.num_attention_heads == 8
    assert (list(image.image_mean), list(image.image_std)) == (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    assert (image.resample, image.size["shortest_edge"], image.do_center_crop) == (Image.Resampling.BICUBIC, 16, True)
    loaded.save_pretrained(tmp_path / "again", "open_clip")
    assert json.loads((tmp_path / "again" / CONFIG).read_text()) == config


@pytest.mark.parametrize("file", ["open_clip_pytorch_model.safetensors", WEIGHTS])
def test_the_names_of_the_weights(folder, file):
    expected = load(folder).digest()
    shutil.copy(folder / WEIGHTS, folder / "kept")
    (folder / WEIGHTS).unlink()
    (folder / "open_clip_pytorch_model.safetensors").write_text("damaged")
    (folder / "kept").rename(folder / file)
    assert load(folder).digest() == expected


def test_of_both_formats_that_of_transformers_is_read(folder, tiny_folder):
    for file in tiny_folder.iterdir():
        shutil.copy(file, folder)
    loaded = load(folder)
    assert loaded.format == "transformers" and loaded.digest() == load(tiny_folder).digest()
    (folder / "model.safetensors").unlink()
    assert load(folder).format == "open_clip"


def test_the_tokenizer_of_clip_comes_from_the_cache(tmp_path, monkeypatch):
    config = config_of(text={"vocab_size": conversion.VOCABULARY})
    save_open_clip(tmp_path / "model", config, tokenizer=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    refused(
        tmp_path / "model", "holds no tokenizer; add tokenizer.json and tokenizer_config.json .*hf download openai/"
    )
    place = tmp_path / "cache" / "models--openai--clip-vit-base-patch32"
    letters = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    numbers = map(str, range(conversion.VOCABULARY - len(letters) - 2))
    entries = [*letters, *numbers, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({entry: index for index, entry in enumerate(entries)}, [])
    tokenizer.save_pretrained(place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    loaded = load(tmp_path / "model")
    assert loaded.model.config.text_config.eos_token_id == 49407
    assert loaded.processor.tokenizer.model_max_length == 24


# What does not


def refused(folder, message):
    with pytest.raises(InputError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (
            "vision_cfg",
            {"timm_model_name": "convnext_base"},
            r"an image tower of timm \(timm_model_name convnext_base\)",
        ),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "a text tower of transformers"),
        (None, {"multimodal_cfg": {"layers": 12}}, "the text decoder of CoCa"),
        (None, {"custom_text": True}, r"a text tower of its own \(custom_text\)"),
        (None, {"init_logit_bias": -10}, "the bias of SigLIP"),
        ("vision_cfg", {"pool_type": "avg"}, "pool_type 'avg'"),
        ("text_cfg", {"pool_type": "eos"}, "pool_type 'eos'"),
        ("vision_cfg", {"ls_init_value": 1e-4}, "ls_init_value 0.0001"),
        ("vision_cfg", {"layers": "12"}, "vision_cfg.layers is '12'; it must be of type int"),
        ("vision_cfg", {"width": 10**30}, "vision_cfg.width is 1000.*at most"),
        ("vision_cfg", {"width": -32}, "vision_cfg.width is -32; it must be at least"),
        ("vision_cfg", {"head_width": 1024}, "`heads`: 0 cannot share a width of 32"),
        ("vision_cfg", {"image_size": [32, 64]}, "only squares"),
        ("text_cfg", {"heads": 3}, "`heads`: 3 cannot share a width of 32"),
        ("preprocess_cfg", {"resize_mode": "longest"}, "resize_mode is 'longest'; choose 'shortest' or 'squash'"),
        ("preprocess_cfg", {"mean": [0.5, 0.5]}, "`mean`: got .*; give one number, or three"),
        ("preprocess_cfg", {"std": [1, 0, 1]}, "preprocess_cfg.std is .*; it must be above 0"),
        ("preprocess_cfg", {"mean": [float("nan")] * 3}, "preprocess_cfg.mean is"),
    ],
)
def test_configs_that_cannot_be_converted(folder, place, change, message):
    config = json.loads((folder / CONFIG).read_text())
    model = config["model_cfg"]
    {None: model, "preprocess_cfg": config["preprocess_cfg"]}.get(place, model.get(place)).update(change)
    (folder / CONFIG).write_text(json.dumps(config))
    refused(folder, f"`model`: the open_clip_config.json of .*model cannot be used: .*{message}")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model_cfg": 3}', "[" * 100_000, '{"model_cfg": {"vision_cfg": {}}}']
)
def test_a_damaged_config(folder, text):
    (folder / CONFIG).write_text(text)
    refused(folder, "`model`: the open_clip_config.json of .* cannot be (read|used)")


def spoiled(change):
    def spoil(folder):
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "the open_clip_model.safetensors of .* cannot be read"),
        (lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs"), "cannot be read .*; fetch it again"),
        (spoiled(lambda weights: weights.pop("visual.proj")), "lack visual.proj"),
        (spoiled(lambda weights: weights.update(logit_bias=torch.zeros(()))), "hold an unknown logit_bias"),
        (spoiled(lambda weights: weights.update({"visual.proj": torch.zeros(2, 2)})), r"visual.proj .*\(2, 2\)"),
        (spoiled(lambda weights: weights.update({"visual.proj": weights["visual.proj"].char()})), "torch.int8"),
        (spoiled(lambda weights: weights["ln_final.bias"].fill_(torch.inf)), "NaN or infinite values"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "open_clip_pytorch_model.bin"), "only pickled weights"),
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no weights; it needs open_clip_model.safetensors"),
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            "`processor`: .* holds no tokenizer; add tokenizer.json",
        ),
        (lambda folder: CLIPTokenizer({"<|endoftext|>": 0, "a": 1}, []).save_pretrained(folder), "the largest id"),
    ],
)
def test_damaged_files(folder, spoil, message):
    spoil(folder)
    refused(folder, message)


def test_no_damage_ends_in_a_traceback(made, tmp_path):
    """Bytes changed, cut and doubled, anywhere in a config or tokenizer, or in the head of the weights."""
    generator, outcomes = random.Random(0), Counter()
    files = [path for path in sorted(made.iterdir()) for _ in range(3 if path.name == CONFIG else 1)]
    for number in range(200):
        folder = shutil.copytree(made, tmp_path / str(number))
        path = folder / generator.choice(files).name
        content = bytearray(path.read_bytes())
        for _ in range(generator.choice((1, 3, 20))):
            start = generator.randrange(min(len(content), 12_000))
            content[start : start + generator.choice((0, 1, 20))] = generator.choice((b"", b"0", b'"', content[:20]))
        path.write_bytes(content)
        try:
            load(folder)
            outcomes["loaded"] += 1
        except InputError as error:
            assert str(error).startswith(("`model`: ", "`processor`: "))
            outcomes["refused"] += 1
    assert outcomes["refused"] > 150


# What is written


def same(one, other):
    first, second = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype is second[name].dtype and torch.equal(tensor, second[name]), name
    assert json.loads((one / CONFIG).read_text()) == json.loads((other / CONFIG).read_text())


def mixed(weights):
    """What open_clip calls fp16: all but layer norms and embeddings."""
    for name, tensor in weights.items():
        if ".ln_" not in name and "embedding" not in name:
            weights[name] = tensor.half()


@pytest.mark.parametrize("change", [None, mixed, lambda w: w.update({k: t.bfloat16() for k, t in w.items()})])
def test_an_untouched_model_is_written_back_bit_by_bit(folder, tmp_path, change):
    if change:
        spoiled(change)(folder)
    config = json.loads((folder / CONFIG).read_text())
    config["model_cfg"]["vision_cfg"]["patch_dropout"] = 0.25
    (folder / CONFIG).write_text(json.dumps({**config, "note": "of its own"}))
    loaded = load(folder)
    loaded.save_pretrained(tmp_path / "back", "open_clip")
    same(folder, tmp_path / "back")
    loaded.save_pretrained(tmp_path / "plain")
    assert type(CLIPModel.from_pretrained(tmp_path / "plain")) is CLIPModel
    again = load(tmp_path / "plain")
    assert again.format == "transformers" and again.digest() == loaded.digest()
    again.save_pretrained(tmp_path / "and back", "open_clip")
    same(folder, tmp_path / "and back")
    assert load(tmp_path / "and back").digest() == loaded.digest()


def test_a_weight_that_a_narrow_dtype_would_round_is_written_wide(folder, tmp_path):
    spoiled(mixed)(folder)
    loaded = load(folder)
    loaded.model.visual_projection.weight.data += 1e-5
    loaded.save_pretrained(tmp_path / "back", "open_clip")
    weights = load_file(tmp_path / "back" / WEIGHTS)
    assert (weights["visual.proj"].dtype, weights["text_projection"].dtype) == (torch.float32, torch.float16)
    assert load(tmp_path / "back").digest() == loaded.digest()


def test_a_model_of_transformers_can_be_saved_so(tiny, tmp_path, pixels):
    tiny.model.config.vision_config.hidden_act = tiny.model.config.text_config.hidden_act
    tiny.save_pretrained(tmp_path / "model", "open_clip")
    loaded = load(tmp_path / "model")
    assert loaded.digest() == tiny.digest()
    with torch.no_grad():
        torch.testing.assert_close(loaded.encoder.embed_images(pixels), tiny.encoder.embed_images(pixels))
        torch.testing.assert_close(loaded.encoder.embed_texts(["red"]), tiny.encoder.embed_texts(["red"]))


def test_a_config_of_another_model_is_not_written(folder, tiny, tmp_path):
    tiny.model.config.open_clip = {
        "config": json.loads((folder / CONFIG).read_text()),
        "dtypes": {"logit_scale": ["load"]},
    }
    tiny.save_pretrained(tmp_path / "saved", "open_clip")
    assert load(tmp_path / "saved").digest() == tiny.digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.config.vision_config, "hidden_act", "gelu"), "one activation"),
        (
            lambda model: setattr(model.config.text_config, "layer_norm_eps", 1e-6),
            "layer norms with an epsilon of 1e-05",
        ),
    ],
)
def test_what_open_clip_cannot_do_is_not_written(tiny, tmp_path, change, message):
    change(tiny.model)
    with pytest.raises(InputError, match=f"`format`: open_clip needs {message}.*save it as 'transformers'"):
        tiny.save_pretrained(tmp_path / "saved", "open_clip")
    with pytest.raises(InputError, match="`format`: got 'onnx'; .*'transformers' or 'open_clip'"):
        tiny.save_pretrained(tmp_path / "saved", "onnx")
    assert not (tmp_path / "saved").exists()
