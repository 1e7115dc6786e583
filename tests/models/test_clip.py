import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.encoder import DualEncoder


NAMES = ("red circle", "blue square", "a zebra")


@pytest.fixture
def pictures():
    values = torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return [Image.fromarray(picture.numpy()) for picture in values], values.permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("model", ["tiny_folder", "victim"])
def test_image_embeddings_are_those_of_the_plain_pipeline(model, pictures, request, tiny_folder):
    if model == "victim":
        loaded = request.getfixturevalue("victim")
        plain, processor = loaded.model, loaded.processor
        encoder = loaded.encoder
    else:
        plain, processor = CLIPModel.from_pretrained(tiny_folder), CLIPProcessor.from_pretrained(tiny_folder)
        encoder = DualEncoder.of(CLIPModel.from_pretrained(tiny_folder), processor)
    images, pixels = pictures
    inputs = processor(images=images, text=["a"] * 3, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(encoder.pixel_values(pixels), inputs["pixel_values"], rtol=0, atol=1e-5)
        expected = plain(**inputs).image_embeds
        torch.testing.assert_close(encoder.embed_images(pixels), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(expected.norm(dim=-1), torch.ones(3))


def test_embeddings_take_any_leading_dimensions(encoder, pixels):
    flat = encoder.embed_images(pixels)
    assert flat.shape == (12, 16)
    torch.testing.assert_close(encoder.embed_images(pixels.view(2, 6, 3, 32, 32)), flat.view(2, 6, 16))
    torch.testing.assert_close(encoder.embed_batches(iter(pixels.split(5))), flat.detach())
    assert not encoder.embed_batches(iter(pixels.split(5))).requires_grad


def test_gradients_reach_the_pixels(encoder, pixels):
    pixels.requires_grad_()
    encoder.embed_images(pixels)[:, 0].sum().backward()
    assert (pixels.grad.flatten(1).abs().sum(1) > 0).all()


def test_zero_shot_head_by_hand(encoder):
    templates = ["a photo of a {}", "{}"]
    head = ZeroShotClassifier(encoder, NAMES, templates).head
    assert head.shape == (3, 16)
    assert not head.requires_grad
    torch.testing.assert_close(head.norm(dim=-1), torch.ones(3))
    for row, name in zip(head, NAMES, strict=True):
        mean = torch.zeros(16)
        for text in (f"a photo of a {name}", name):
            tokens = encoder.processor.tokenizer([text], return_tensors="pt")
            with torch.no_grad():
                features = encoder.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
            mean += features[0] / features[0].norm() / 2
        torch.testing.assert_close(row, mean / mean.norm())


def test_zero_shot_head_reads_drawings(victim):
    from hf_invertune.lab.drawings import CLASS_NAMES, draw

    encoder, drawn = victim.encoder, draw(100, seed=77)
    with torch.no_grad():
        read = (encoder.embed_images(drawn.pixels) @ ZeroShotClassifier(encoder, CLASS_NAMES).head.T).argmax(1)
    assert (read == drawn.labels).float().mean() > 0.9


def test_long_texts_are_cut(encoder):
    tokens = encoder.tokenize(["red " * 100, "red"])
    assert tokens["input_ids"].shape == tokens["attention_mask"].shape == (2, 24)
    assert tokens["attention_mask"].sum(1).tolist() == [24, 3]


def test_activations_are_the_layers_outputs(encoder, pixels):
    outputs = []

    def keep(module, arguments, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [m.register_forward_hook(keep) for m in encoder.model.vision_model.encoder.layers]
    activations = encoder.activations(pixels)
    for hook in hooks:
        hook.remove()
    assert len(activations) == encoder.layers == 2
    for activation, output in zip(activations, outputs, strict=True):
        assert activation.shape == (12, 17, 32)
        torch.testing.assert_close(activation, output)


def test_properties(encoder):
    assert (encoder.image_size, encoder.layers, encoder.device) == (32, 2, torch.device("cpu"))
    assert not {"mean", "std"} & set(encoder.state_dict())


def test_a_lora_adapter_is_transparent(tiny, encoder, pixels):
    expected = encoder.embed_images(pixels).detach(), ZeroShotClassifier(encoder, NAMES).head
    wrapped = DualEncoder.of(get_peft_model(tiny.model, LoraConfig(target_modules=["fc1"])), tiny.processor)
    assert (wrapped.image_size, wrapped.layers) == (32, 2)
    torch.testing.assert_close(wrapped.embed_images(pixels).detach(), expected[0])
    torch.testing.assert_close(ZeroShotClassifier(wrapped, NAMES).head, expected[1])
    assert len(wrapped.activations(pixels)) == 2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_frozen(encoder, training, fails):
    model = encoder.model.train(training)
    model.logit_scale.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert set(before.values()) == {True, False}
    try:
        with encoder.frozen():
            assert not any(parameter.requires_grad for parameter in model.parameters())
            assert not any(module.training for module in model.modules())
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
    assert all(module.training is training for module in model.modules())
