"""Image towers that come without a text tower: judged with another model's, and saved as what they came as."""

import json
import shutil

import pytest
import torch
import transformers
from lone_towers import KINDS, LLAVA, image_embeddings, save_tower, stored
from safetensors.torch import load_file, save_file
from tiny import CLASS_NAMES
from tiny_families import DIMENSION, SIDE, pictures, save_family
from tiny_plan import pictures as drawn
from tiny_plan import removal_config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_invertune.errors import InputError
from hf_invertune.fleet.cache import scan_key
from hf_invertune.models.loading import load_model
from hf_invertune.remover import BackdoorRemover


pytestmark = pytest.mark.usefixtures("drawn_once")
EXACT = 1e-6


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of a tower and of the model that it is judged in, made when they are first asked for."""
    made = tmp_path_factory.mktemp("towers")

    def get(kind):
        whole = made / KINDS[kind][1]
        if not whole.exists():
            save_family(whole, KINDS[kind][1])
        if not (made / kind).exists():
            save_tower(made / kind, kind, whole)
        return made / kind, whole

    return get


@pytest.fixture
def copied(folders, tmp_path):
    """A tower that a test may change, and its model."""
    folder, whole = folders("CLIPVisionModel")
    return shutil.copytree(folder, tmp_path / "tower"), shutil.copytree(whole, tmp_path / "whole")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(message, folder, **options):
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder, device="cpu", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_is_judged_with_a_text_tower_and_saved_as_it_came(kind, folders, tmp_path):
    folder, whole = folders(kind)
    loaded, text = load_model(folder, text_model=whole, device="cpu"), load_model(whole, device="cpu")
    pixels = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    direct = image_embeddings(folder, kind, whole, text.encoder.image_inputs(text.encoder.pixel_values(pixels)))
    with torch.no_grad():
        embeddings, others = loaded.encoder.embed_images(pixels), text.encoder.embed_images(pixels)
    torch.testing.assert_close(embeddings, direct, rtol=0, atol=EXACT)
    assert float((embeddings - others).abs().max()) > 1e-3
    assert torch.equal(loaded.encoder.embed_texts(CLASS_NAMES), text.encoder.embed_texts(CLASS_NAMES))
    assert (loaded.dtype, loaded.origin.tower.architecture) == (torch.float16, KINDS[kind][0])
    assert loaded.origin.tower.text_sha256 == text.digest() != loaded.digest()
    loaded.save_pretrained(tmp_path / "saved")
    assert contents(tmp_path / "saved") == contents(folder)
    own = getattr(transformers, KINDS[kind][0]).from_pretrained(folder, dtype="float32")
    tower = getattr(getattr(own, "model", own), "vision_tower", own)
    assert loaded.parameters == sum(parameter.numel() for parameter in tower.parameters())


@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection", "LLaVA"])
def test_a_cleaned_tower_goes_back_where_it_came_from(kind, folders, tmp_path):
    folder, whole = folders(kind)
    remover = BackdoorRemover.from_pretrained(folder, text_model=whole, device="cpu")
    texts = remover.source.encoder.embed_texts(CLASS_NAMES)
    result = remover.remove(drawn(32), CLASS_NAMES, config=removal_config())
    assert result.outcome != "unchanged" and result.adapter is None
    assert torch.equal(remover.source.encoder.embed_texts(CLASS_NAMES), texts)  # not rounded to the tower's dtype
    remover.save_pretrained(tmp_path / "saved")
    before, after = stored(folder), stored(tmp_path / "saved")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed and all("encoder.layers." in name for name in changed)
    assert {name: tensor.dtype for name, tensor in before.items()} == {name: t.dtype for name, t in after.items()}
    old, new = contents(folder), contents(tmp_path / "saved")
    touched = {name for name in old if old[name] != new[name]}
    weights = {path.name for path in folder.glob("*.safetensors")}
    assert old.keys() == new.keys() and touched <= weights
    if kind == "LLaVA":
        assert len(touched) < len(weights) > 1
    again = load_model(tmp_path / "saved", text_model=whole, device="cpu")
    assert again.digest() == result.report.sha256_after == remover.source.digest() != result.report.model.sha256
    pixels = drawn(4).pixels
    assert torch.equal(again.encoder.embed_pixels(pixels), remover.source.encoder.embed_pixels(pixels))


def test_nothing_of_the_language_model_is_read(folders, monkeypatch):
    folder, whole = folders("LLaVA")
    asked = []

    class Counting:
        def __init__(self, *given, **settings):
            self.opened = original(*given, **settings)

        def __enter__(self):
            self.file = self.opened.__enter__()
            return self

        def __exit__(self, *given):
            return self.opened.__exit__(*given)

        def get_tensor(self, key):
            asked.append(key)
            return self.file.get_tensor(key)

    from hf_invertune.models import towers

    original = towers.safe_open
    monkeypatch.setattr(towers, "safe_open", Counting)
    load_model(folder, text_model=whole, device="cpu")
    assert asked and all("vision_tower" in key for key in asked)


def test_the_processor_of_a_lone_tower_is_obeyed(copied):
    folder, whole = copied
    processor = pictures(CLIPImageProcessorPil)
    processor.image_mean = [0.1, 0.2, 0.3]
    processor.save_pretrained(folder)
    encoder = load_model(folder, text_model=whole, device="cpu").encoder
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.processor.tokenizer is not None


def test_other_text_towers_are_other_models(copied, tmp_path):
    folder, whole = copied
    scans = BackdoorRemover.from_pretrained(folder, text_model=whole, device="cpu")
    scan = scans.scan(drawn(32), CLASS_NAMES, config=removal_config())
    weights = load_file(whole / "model.safetensors")
    weights["text_projection.weight"] += 0.1
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    other = BackdoorRemover.from_pretrained(folder, text_model=whole, device="cpu")
    with pytest.raises(InputError, match="`scan`: it was made with another text tower; make it anew"):
        other.remove(drawn(32), CLASS_NAMES, scan=scan, config=removal_config())
    keys = [scan_key(remover.source, drawn(32), removal_config(), None) for remover in (scans, other, scans)]
    assert keys[0] == keys[2] != keys[1]


# What is refused


def test_a_text_model_of_another_family_or_for_a_whole_model(folders):
    folder, whole = folders("CLIPVisionModel")
    refused("`text_model`: .* has a text tower of its own; leave it out", whole, text_model=whole)
    refused("`text_model`: nowhere/at/all is no folder", folder, text_model="nowhere/at/all")
    siglip = folders("SiglipVisionModel")[1]
    message = "`text_model`: SiglipModel is a SiglipModel, and the image tower of .* is one of a CLIPModel"
    refused(message, folder, text_model=siglip)


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_size", 64), ("num_hidden_layers", 3), ("image_size", 64), ("patch_size", 16), ("hidden_act", "relu")],
)
def test_a_text_model_of_another_make_is_refused_before_weights_are_read(copied, field, value):
    folder, whole = copied
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    (folder / "model.safetensors").write_bytes(b"")
    refused(
        rf"`text_model`: the image tower of whole has the {field} .*, and that of .* {value!r}",
        folder,
        text_model=whole,
    )


def change(path, edit):
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda w: w.pop("post_layernorm.bias"),
            r"`text_model`: .* lacks vision_model\.post_layernorm\.bias \(1 in all\)",
        ),
        (
            lambda w: w.update({"encoder.layers.2.mlp.fc1.bias": torch.zeros(64).half()}),
            r"`text_model`: .* has vision_model\.encoder\.layers\.2\.mlp\.fc1\.bias \(1 in all\)",
        ),
        (
            lambda w: w.update({"post_layernorm.bias": torch.zeros(5).half()}),
            r"`text_model`: vision_model\.post_layernorm\.bias is of shape \[5\] in .*, and of \[32\] in the text model",
        ),
        (
            lambda w: w.update({"post_layernorm.bias": torch.zeros(32)}),
            "`model`: the image tower of .* is stored as F16, F32; save it in one dtype",
        ),
        (
            lambda w: w.update({"other.embeddings.patch_embedding.weight": torch.zeros(1)}),
            "`model`: the weights of .* hold 2 image towers; it must be one",
        ),
        (
            lambda w: w.pop("embeddings.patch_embedding.weight"),
            "`model`: the weights of .* hold 0 image towers",
        ),
        (
            lambda w: w["post_layernorm.bias"].fill_(torch.inf),
            r"`model`: .* has NaN or infinite values in vision_model\.post_layernorm\.bias",
        ),
    ],
)
def test_weights_that_are_not_those_of_such_a_tower(copied, edit, message):
    folder, whole = copied
    change(folder / "model.safetensors", edit)
    refused(message, folder, text_model=whole)


def test_a_projection_of_another_width(folders, tmp_path):
    source, whole = folders("CLIPVisionModelWithProjection")
    folder = shutil.copytree(source, tmp_path / "tower")
    wide = torch.zeros(DIMENSION + 8, 32).half()
    change(folder / "model.safetensors", lambda w: w.update({"visual_projection.weight": wide}))
    refused(r"visual_projection\.weight is of shape \[24, 32\] .* of \[16, 32\]", folder, text_model=whole)


def test_files_that_have_gone_or_changed_since(copied, tmp_path):
    folder, whole = copied
    loaded = load_model(folder, text_model=whole, device="cpu")
    with pytest.raises(InputError, match="`format`: got 'open_clip'; this model can be saved as 'transformers'"):
        loaded.save_pretrained(tmp_path / "saved", "open_clip")
    change(folder / "model.safetensors", lambda w: w.update({k: t.float() for k, t in w.items()}))
    with pytest.raises(InputError, match="has changed since the tower of .* was loaded; load it anew"):
        loaded.save_pretrained(tmp_path / "saved")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json has gone, into a copy of which"):
        loaded.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_class_that_is_no_name_stays_out_of_cards(copied):
    folder, whole = copied
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["X\nimport os"]}))
    assert load_model(folder, text_model=whole, device="cpu").origin.tower.architecture == "clip_vision_model"


def test_llava_is_the_class_of_a_llava(folders):
    assert json.loads((folders("LLaVA")[0] / "config.json").read_text())["architectures"] == [LLAVA]
