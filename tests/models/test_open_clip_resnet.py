"""CLIP with a ResNet: its mathematics, its layers of many widths, convolutional adapters, and the way back to its file."""

import copy
import json

import pytest
import torch
from open_clip_models import RESNET, config_of, save_open_clip
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import multi_head_attention_forward

from hf_invertune.errors import InputError
from hf_invertune.lab.arena.cost import measure_cost
from hf_invertune.models.adapter import add_adapter, merge
from hf_invertune.models.encoder import DualEncoder
from hf_invertune.models.loading import load_model
from hf_invertune.models.open_clip.conversion import describe
from hf_invertune.models.open_clip.resnet import AttentionPool, Bottleneck, ResNetCLIP
from hf_invertune.report.plots import neuron_map
from hf_invertune.stages.configs import LocalizationConfig
from hf_invertune.stages.localization import NeuronLocalizer
from hf_invertune.triggers import PatchTrigger


WIDTHS = [32, 64, 64, 128, 256, 16]
"""Of the layers of the tiny one: five bottlenecks and the pool."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_clip") / "rn"
    save_open_clip(folder, config_of(vision=RESNET))
    return folder


@pytest.fixture
def loaded(folder):
    return load_model(folder, device="cpu")


def test_the_pool_is_torchs_attention_from_the_mean(pixels):
    torch.manual_seed(0)
    pool, maps = AttentionPool(6, 32, 4, 8), torch.randn(2, 32, 2, 3)
    places = maps.flatten(2).permute(2, 0, 1)
    places = torch.cat([places.mean(0, keepdim=True), places]) + pool.positional_embedding[:, None]
    projections = {f"{name}_proj_weight": getattr(pool, f"{name}_proj").weight for name in "qkv"}
    bias = torch.cat([getattr(pool, f"{name}_proj").bias for name in "qkv"])
    attended, _ = multi_head_attention_forward(
        *(places, places, places, 32, 4, None, bias, None, None, False, 0.0, pool.c_proj.weight, pool.c_proj.bias),
        use_separate_proj_weight=True,
        **projections,
    )
    torch.testing.assert_close(pool(maps), attended[0])


def test_a_bottleneck_halves_its_maps_by_averaging():
    torch.manual_seed(0)
    block, maps = Bottleneck(8, 4, 2).eval(), torch.randn(1, 8, 4, 4)
    inner = block.conv2(block.conv1(maps).div((1 + 1e-5) ** 0.5).relu()).div((1 + 1e-5) ** 0.5).relu()
    pooled = [one.unflatten(-1, (2, 2)).unflatten(-3, (2, 2)).mean((-1, -3)) for one in (inner, maps)]
    long = block.conv3(pooled[0]) + block.downsample[1](pooled[1])
    torch.testing.assert_close(block(maps), long / (1 + 1e-5) ** 0.5)
    assert (block(maps) < 0).any()  # the last rectifier is not the block's


def test_what_it_is_called_by(loaded, pixels):
    encoder = loaded.encoder
    assert isinstance(loaded.model, ResNetCLIP) and loaded.format == "open_clip"
    assert (encoder.image_size, encoder.layers) == (32, 6)
    assert type(DualEncoder.of(loaded.model, loaded.processor)) is type(encoder)
    states = encoder.activations(pixels)
    assert [state.shape[-1] for state in states] == WIDTHS
    assert [state.shape[1] for state in states] == [64, 16, 16, 4, 1, 1]
    assert all((state < 0).any() for state in states)  # no rectifier hides what is silent
    embeddings, hidden = encoder(pixels)
    torch.testing.assert_close(embeddings, encoder.embed_images(pixels))
    torch.testing.assert_close(hidden, states)
    tokens = encoder.tokenize(["red circle", "blue square"])
    output = loaded.model(encoder.pixel_values(pixels), **tokens)
    expected = encoder.scale * embeddings @ encoder.embed_texts(["red circle", "blue square"]).T
    torch.testing.assert_close(output.logits_per_image, expected)


def test_statistics_stand_still_in_training(loaded, pixels):
    before, expected = copy.deepcopy(loaded.model.state_dict()), loaded.encoder.embed_images(pixels)
    loaded.model.train()
    torch.testing.assert_close(loaded.encoder.embed_images(pixels), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())


def test_its_passes_are_counted(loaded, pixels):
    with measure_cost() as cost:
        loaded.encoder.embed_images(pixels).sum().backward()
        with torch.no_grad():
            loaded.encoder.embed_images(pixels[:5])
    assert (cost.forward, cost.backward) == (17, 12)


def test_layers_of_many_widths_are_localised(loaded, pixels):
    trigger = PatchTrigger(torch.ones(3, 12, 12), 0, 0)
    found = NeuronLocalizer(loaded.encoder, LocalizationConfig(top_layers=6)).localize(pixels, [trigger])
    assert found.widths == WIDTHS and found.layers == [0, 1, 2, 3, 4, 5]
    with torch.no_grad():
        clean, triggered = (loaded.encoder.activations(images) for images in (pixels, trigger(pixels)))
    for layer, (plain, other) in enumerate(zip(clean, triggered, strict=True)):
        change = (other.mean(0) - plain.mean(0)).norm() / plain.mean(0).norm()
        assert found.layer_scores[layer] == pytest.approx(float(change), rel=1e-4)
    assert f"{len(found.neurons[3])} of 128 in layer 3" in neuron_map(found).description


@pytest.mark.parametrize("leaves", [None, ["conv2"], ["v_proj", "0"]])
def test_an_adapter_on_convolutions_is_trained_and_merged(loaded, pixels, leaves):
    encoder, before = loaded.encoder, copy.deepcopy(loaded.model.state_dict())
    plain = encoder.embed_images(pixels).detach()
    adapted = add_adapter(encoder, range(6), leaves, rank=2, alpha=4)
    torch.testing.assert_close(encoder.embed_images(pixels).detach(), plain)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    for _ in range(2):
        embeddings, hidden = adapted.train()(pixels)
        (embeddings[:, 0].sum() + sum(state.mean() for state in hidden)).backward()
        with torch.no_grad():
            for parameter in trained:
                parameter -= 0.1 * parameter.grad.sign()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trained)
    tuned = encoder.embed_images(pixels).detach()
    assert not torch.allclose(tuned, plain, atol=1e-3)
    merged = loaded.holding(merge(adapted, loaded.model.config, torch.float32))
    torch.testing.assert_close(merged.encoder.embed_images(pixels).detach(), tuned, rtol=0, atol=1e-5)
    after = merged.model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    modules = dict(merged.model.named_modules())
    kinds = {type(modules[name.removesuffix(".weight")]) for name in changed}
    assert kinds == {None: {nn.Conv2d, nn.Linear}, "conv2": {nn.Conv2d}}.get(leaves and leaves[0], kinds)
    assert all(name.startswith("visual.") and name.endswith(".weight") for name in changed)


def test_an_untouched_model_is_written_back_bit_by_bit(folder, loaded, tmp_path):
    loaded.save_pretrained(tmp_path / "back")
    config, weights = "open_clip_config.json", "open_clip_model.safetensors"
    assert (tmp_path / "back" / weights).read_bytes() == (folder / weights).read_bytes()
    assert json.loads((tmp_path / "back" / config).read_text()) == json.loads((folder / config).read_text())
    assert load_file(folder / weights)["visual.bn1.num_batches_tracked"] == 7
    assert load_model(tmp_path / "back", device="cpu").digest() == loaded.digest()
    with pytest.raises(InputError, match="`format`: got 'transformers'; this model can be saved as 'open_clip'"):
        loaded.save_pretrained(tmp_path / "plain", "transformers")


def test_one_of_ones_own_making_is_described(folder, loaded):
    config = json.loads((folder / "open_clip_config.json").read_text())
    described = describe(loaded.model.config, loaded.processor)
    assert described["model_cfg"]["vision_cfg"] == config["model_cfg"]["vision_cfg"]
    assert described["model_cfg"] == config["model_cfg"]


@pytest.mark.parametrize("change", [{"layers": [1, 2, 1]}, {"image_size": 48}, {"width": 7}, {"layers": [1, 0, 1, 1]}])
def test_configs_of_no_resnet(folder, tmp_path, change):
    config = config_of(vision=RESNET)
    config["model_cfg"]["vision_cfg"] |= change
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").touch()
    with pytest.raises(InputError, match="open_clip_config.json of .* cannot be used: .*layers`?(: got| is)"):
        load_model(tmp_path, device="cpu")


def test_a_config_json_of_one_is_refused(folder, loaded):
    with pytest.raises(InputError, match="such models are read from an open_clip_config.json"):
        type(loaded.encoder).read(folder, "org/rn")
