"""Every family of models, tiny and random: as transformers itself calls them, and through a whole removal."""

import json

import pytest
import torch
import transformers
from family_checks import EXACT, TEXTS, called_directly, check_family, gap
from PIL import Image
from tiny_families import CONTEXT, FAMILIES, PATCH, SIDE, save_family
from transformers import ViTConfig

from hf_invertune.data.loading import load_images
from hf_invertune.errors import InputError
from hf_invertune.models.clip import ChineseCLIPEncoder
from hf_invertune.models.loading import load_model
from hf_invertune.models.siglip import SiglipEncoder


pytestmark = pytest.mark.usefixtures("drawn_once")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a tiny model of a class, made when it is first asked for."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("families") / name
            save_family(made[name], name)
        return made[name]

    return folder


@pytest.mark.no_cover
@pytest.mark.parametrize("name", FAMILIES)
def test_from_scan_to_reload(name, tmp_path):
    figures, remover = check_family(tmp_path, name)
    assert figures.pop("outcome") in ("cleaned", "reduced", "not cleaned")
    assert max(figures.pop("embeddings"), figures.pop("merged_embeddings"), figures.pop("adapter")) <= EXACT
    assert figures == {
        "class": name,
        "scan": "backdoored",
        "critical_layers": 1,
        "only_the_image_tower_changed": True,
        "saved_and_loaded_equal": True,
    }
    report = remover.result.report
    assert report.model.architecture == name
    assert report.scan.templates == list(remover.source.encoder.templates)


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_and_long_texts(saved, name):
    encoder = load_model(saved(name), device="cpu").encoder
    outputs = []
    layers = [encoder.model.get_submodule(f"{encoder._layers}.{number}") for number in range(encoder.layers)]
    hooks = [layer.register_forward_hook(lambda *given: outputs.append(given[-1])) for layer in layers]
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    embeddings, activations = encoder(pixels)
    for hook in hooks:
        hook.remove()
    assert (len(activations), encoder.image_size, encoder.context, encoder.scale.shape) == (2, SIDE, CONTEXT, ())
    for activation, output in zip(activations, outputs, strict=True):
        torch.testing.assert_close(activation, output[0] if isinstance(output, tuple) else output)
    torch.testing.assert_close(embeddings, encoder.embed_images(pixels))
    embeddings[:, 0].sum().backward()
    assert (pixels.grad.flatten(1).abs().sum(1) > 0).all()
    tokens = encoder.tokenize(["a red circle " * 40, "a"])
    assert tokens["input_ids"].shape == (2, CONTEXT)
    assert encoder.embed_texts(["a red circle " * 40]).isfinite().all()
    assert isinstance(next(m for m in encoder.model.modules() if isinstance(m, encoder.tower)), torch.nn.Module)


# SigLIP


@pytest.mark.parametrize("name", ["SiglipModel", "Siglip2Model"])
def test_texts_of_siglip_are_padded_to_the_full_length_without_a_mask(saved, name, monkeypatch):
    """Neither padding to the longest text nor a mask raises an error, and both give other embeddings."""
    loaded = load_model(saved(name), device="cpu")
    direct = called_directly(saved(name), name)
    assert gap(loaded, direct) <= EXACT
    with monkeypatch.context() as patch:
        patch.setattr(SiglipEncoder, "padding", True)
        assert gap(loaded, direct) > 1e-2
    monkeypatch.setattr(SiglipEncoder, "text_inputs", ("input_ids", "attention_mask"))
    assert gap(loaded, direct) > 1e-2


def test_texts_of_siglip_are_in_lower_case(saved):
    encoder = load_model(saved("Siglip2Model"), device="cpu").encoder
    upper, lower = encoder.tokenize(["A RED Circle", "a red circle"])["input_ids"]
    assert torch.equal(upper, lower)


@pytest.mark.parametrize("places", [16, 20])
def test_pictures_for_naflex_are_squares(saved, places):
    """Whatever their shape; a square one is as the processor itself has it, which pads where the places are no square."""
    loaded = load_model(saved("Siglip2Model"), device="cpu")
    image_processor = loaded.processor.image_processor
    image_processor.max_num_patches = places
    wide, square = Image.new("RGB", (90, 31), "red"), Image.effect_noise((50, 50), 80).convert("RGB")
    pixels = load_images([wide, square], loaded.processor).pixels
    assert pixels.shape == (2, 3, SIDE, SIDE) and loaded.encoder.image_size == SIDE
    inputs = image_processor([square], return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, places, 3 * PATCH * PATCH)
    with torch.no_grad():
        direct = torch.nn.functional.normalize(loaded.model.get_image_features(**inputs).pooler_output, dim=-1)
    torch.testing.assert_close(loaded.encoder.embed_pixels(pixels[1:]), direct, rtol=0, atol=EXACT)


# What else differs


def test_chinese_clip_is_asked_in_chinese():
    assert all("{}" in template and not template.isascii() for template in ChineseCLIPEncoder.templates[:-1])


def test_the_decoder_that_segments_is_kept(saved, tmp_path):
    loaded = load_model(saved("CLIPSegForImageSegmentation"), device="cpu")
    loaded.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again", device="cpu").model
    assert type(again) is transformers.CLIPSegForImageSegmentation
    assert [key for key in again.state_dict() if key.startswith("decoder.")]


@pytest.mark.parametrize("kind", ["deit", "dinov2", "clip_vision_model"])
def test_other_image_towers_of_a_pair(kind, tmp_path):
    name = "VisionTextDualEncoderModel"
    save_family(tmp_path, name, vision={"model_type": kind})
    loaded = load_model(tmp_path, device="cpu")
    assert gap(loaded, called_directly(tmp_path, name)) <= EXACT
    names = loaded.encoder.linear_modules([1])
    assert len(names) == 6 and all(".1." in one for one in names)
    assert len(loaded.encoder.activations(torch.rand(1, 3, SIDE, SIDE))) == loaded.encoder.layers == 2


def test_a_roberta_of_a_pair_has_its_places_behind_the_pad(saved, tmp_path):
    name = "VisionTextDualEncoderModel"
    save_family(tmp_path, name, text={"model_type": "xlm-roberta", "pad_token_id": 1})
    encoder = load_model(tmp_path, device="cpu").encoder
    assert encoder.context == CONTEXT - 2
    assert encoder.embed_texts(["a red circle " * 40]).isfinite().all()


# What is refused


def refused(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "blip"},
            "is a 'blip' model; only 'altclip', .* are supported. .* pass the CLIP that it builds on",
        ),
        ({"model_type": "align"}, "is a 'align' model; only 'altclip'"),
        (
            {
                "model_type": "vision-text-dual-encoder",
                "vision_config": {"model_type": "timm_wrapper", "architecture": "eva02_base_patch16_clip_224"},
                "text_config": {"model_type": "bert"},
            },
            "is a 'timm_wrapper' model; .* is one of timm, which is not used here; pass a version",
        ),
        (
            {"model_type": "jina_clip", "auto_map": {"AutoModel": "jinaai/jina-clip--modeling_clip.JinaCLIPModel"}},
            "needs code of its own .*JinaCLIPModel.*, which is never run; pass a version of it as a CLIPModel",
        ),
        (
            {
                "model_type": "clip",
                "architectures": ["EvaCLIPModel"],
                "auto_map": {"AutoModel": "modeling_evaclip.EvaCLIPModel"},
            },
            "needs code of its own .*EvaCLIPModel",
        ),
        (
            {
                "model_type": "vision-text-dual-encoder",
                "vision_config": ViTConfig().to_dict() | {"model_type": "resnet"},
            },
            "its vision_model is a ResNetModel; of this family one of ViTModel, .* can be used",
        ),
    ],
)
def test_what_cannot_be_worked_on_is_refused_by_name(saved, tmp_path, config, message):
    folder = tmp_path / "model"
    if "resnet" in str(config):
        resnet = {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16]}
        save_family(folder, "VisionTextDualEncoderModel", vision=resnet)
    else:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    refused(folder, message)


def test_a_tokenizer_whose_package_is_not_here(saved, monkeypatch):
    def absent(*given, **settings):
        raise ImportError(
            "\nSiglipTokenizer requires the SentencePiece library but it was not found. Check out the page.\n"
        )

    monkeypatch.setattr(transformers.SiglipProcessor, "from_pretrained", absent)
    message = r"\(SiglipTokenizer requires .* was not found\); .* pip install 'hf_invertune\[sentencepiece\]'"
    refused(saved("SiglipModel"), message)


def test_texts_are_told_apart(saved):
    """The tiny tokenizers know the words, or an embedding that ignored its text would pass."""
    for name in FAMILIES:
        tokens = load_model(saved(name), device="cpu").encoder.tokenize(TEXTS)["input_ids"]
        assert len({tuple(row) for row in tokens.tolist()}) == len(TEXTS)
