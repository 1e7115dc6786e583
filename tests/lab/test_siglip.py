"""SigLIP in the lab: the sigmoid loss, and victims that are trained with it."""

import copy
from math import exp, log
from pathlib import Path

import pytest
import torch
import yaml
from tiny_families import save_family

from hf_invertune.errors import InputError
from hf_invertune.lab.contrastive import CaptionedPixels, ContrastiveCollator, sigmoid_loss, train_contrastive
from hf_invertune.lab.zoo.build import build_zoo
from hf_invertune.lab.zoo.recipe import Recipe
from hf_invertune.models.loading import load_model
from hf_invertune.models.siglip import SiglipEncoder


TINY = yaml.safe_load((Path(__file__).parents[1] / "helpers" / "zoo.yaml").read_text())


def recipe(**model):
    values = copy.deepcopy(TINY)
    values["model"] |= model
    return Recipe.of(values)


@pytest.fixture(params=["SiglipModel", "Siglip2Model"])
def siglip(request, tmp_path):
    save_family(tmp_path, request.param)
    return load_model(tmp_path, device="cpu").encoder


@pytest.fixture
def pairs(pixels):
    return CaptionedPixels((pixels * 255).byte(), [f"a {word} ring" for word in "abcdefghijkl"])


def test_the_loss_is_siglips_own(siglip, pairs):
    batch = ContrastiveCollator(siglip)([pairs[index] for index in range(len(pairs))])
    groups = batch.pop("groups")
    assert set(batch) == {"pixel_values", "input_ids"} and batch["input_ids"].shape == (12, siglip.context)
    with torch.no_grad():
        output = siglip.model(**batch | siglip.image_inputs(batch["pixel_values"]), return_loss=True)
    torch.testing.assert_close(sigmoid_loss(output.logits_per_image, groups), output.loss)


def test_all_of_a_group_are_positives_by_hand():
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    apart, together = torch.tensor([0, 1]), torch.tensor([5, 5])
    expected = [log(1 + exp(-1)), log(1 + exp(2)), log(1 + exp(3)), log(1 + exp(-4))]
    assert float(sigmoid_loss(logits, apart)) == pytest.approx(sum(expected) / 2)
    expected = [log(1 + exp(-value)) for value in (1, 2, 3, 4)]
    assert float(sigmoid_loss(logits, together)) == pytest.approx(sum(expected) / 2)


def test_it_is_what_a_siglip_is_trained_with(siglip, pairs, tmp_path):
    """A softmax over the batch would give the bias no gradient."""
    before = siglip.model.logit_bias.item()
    settings = {"max_steps": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 12, "weight_decay": 0.0}
    train_contrastive(siglip, pairs, output_dir=tmp_path / "out", seed=0, warmup_steps=0, **settings)
    assert siglip.model.logit_bias.item() == pytest.approx(before - 1e-2, abs=1e-4)  # most pairs are negatives
    assert not siglip.model.training


def test_a_zoo_of_siglips(tmp_path):
    zoo = build_zoo(recipe(family="siglip"), tmp_path / "zoo", only=["badnet", "clean"])
    assert [victim.truth.name for victim in zoo.victims] == ["badnet-0", "clean-0"]
    for victim in zoo.victims:
        encoder = victim.load().encoder
        assert isinstance(encoder, SiglipEncoder) and encoder.scale.item() == pytest.approx(10, rel=0.01)
        assert encoder.model.logit_bias.item() == pytest.approx(-10, abs=0.1)
        assert list(encoder.processor.tokenizer("a ring")) == ["input_ids"]


def test_the_family_of_a_recipe():
    clip, siglip = recipe(), recipe(family="siglip")
    assert "family" not in clip.decisive()["model"]  # or zoos that were made before would be others
    assert siglip.decisive()["model"]["family"] == "siglip" and clip.digest() != siglip.digest()
    with pytest.raises(
        InputError, match="`projection_dim`: got 8; a SigLIP embeds in the width of its image tower, 16"
    ):
        recipe(family="siglip", projection_dim=8)
    with pytest.raises(InputError, match="family"):
        recipe(family="siglp")
