import pytest
import torch

from hf_invertune.errors import InputError
from hf_invertune.lab.contrastive import CaptionedPixels
from hf_invertune.lab.retrieval import RetrievalAttack, measure_retrieval, measure_retrieval_attack
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.evaluation import Rate
from hf_invertune.triggers import PatchTrigger


TEXTS = {"red": [1.0, 0.0, 0.0], "green": [0.0, 1.0, 0.0], "blue": [0.0, 0.0, 1.0], "lime": [0.0, 0.9, 0.1]}


@pytest.fixture
def colours(encoder, monkeypatch):
    """An encoder whose embedding of a picture is its mean colour, and of a text the colour that it names."""

    def embed_images(pixels):
        means = pixels.mean((-1, -2))
        return means / means.norm(dim=-1, keepdim=True)

    def embed_texts(texts, batch_size=256):
        encoder.texts = list(texts)
        return torch.tensor([TEXTS[text] if text in TEXTS else TEXTS[text.split()[1]] for text in texts])

    monkeypatch.setattr(encoder, "embed_images", embed_images)
    monkeypatch.setattr(encoder, "embed_texts", embed_texts)
    return encoder


def plain(*rows):
    return torch.tensor(rows, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 32, 32).contiguous()


def test_recall_counts_hits_among_the_k_nearest(colours):
    pixels = plain([200, 20, 10], [200, 90, 10], [10, 20, 200], [150, 140, 20])
    data = CaptionedPixels(pixels, ["red", "green", "blue", "green"])
    found = measure_retrieval(colours, data, ks=(1, 2))
    # The second is nearest to red and then to green, the fourth too; the others find their own caption first.
    assert found.image_to_text == {1: Rate(2, 4), 2: Rate(4, 4)}
    # Three captions are asked, not four: green finds the fourth picture first, which is one of its two.
    assert found.text_to_image == {1: Rate(3, 3), 2: Rate(3, 3)}


def test_pictures_and_captions_of_one_group_belong_together(colours):
    data = CaptionedPixels(plain([10, 200, 20], [10, 180, 30]), ["lime", "red"], torch.tensor([0, 0]))
    assert measure_retrieval(colours, data, ks=(1,)).image_to_text == {1: Rate(2, 2)}
    assert measure_retrieval(colours, CaptionedPixels(data.pixels, data.captions), ks=(1,)).image_to_text == {
        1: Rate(1, 2)
    }


def test_a_gallery_smaller_than_k_is_taken_whole(colours):
    data = CaptionedPixels(plain([200, 0, 0], [0, 200, 0]), ["green", "red"])
    assert measure_retrieval(colours, data, ks=(1, 10)).image_to_text == {1: Rate(0, 2), 10: Rate(2, 2)}


def test_the_attack_brings_a_caption_of_the_target(colours):
    data = CaptionedPixels(
        plain([200, 10, 10], [10, 200, 10], [10, 10, 200], [0, 0, 250]), ["red", "green", *["blue"] * 2]
    )
    trigger = PatchTrigger(torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1).expand(3, 32, 30), 0, 0)
    found = measure_retrieval_attack(colours, data, trigger, ["blue"], ks=(1, 3))
    assert found == RetrievalAttack({1: Rate(2, 2), 3: Rate(2, 2)}, {1: Rate(0, 2), 3: Rate(2, 2)})


def test_captions_of_a_target_that_no_picture_has_join_the_gallery(colours):
    data = CaptionedPixels(plain([200, 10, 10], [10, 200, 10]), ["red", "green"])
    trigger = PatchTrigger(torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1).expand(3, 32, 30), 0, 0)
    found = measure_retrieval_attack(colours, data, trigger, ["blue"], word="xq", ks=(1,))
    assert found == RetrievalAttack({1: Rate(2, 2)}, {1: Rate(0, 2)})
    assert colours.texts == ["xq red", "xq green", "xq blue"]
    with pytest.raises(InputError, match="`target_captions`: got none"):
        measure_retrieval_attack(colours, data, trigger, [])


def test_texts_are_embedded_as_the_head_embeds_them(encoder):
    texts = ["a photo of a red circle", "a blue square", "white cross"]
    expected = ZeroShotClassifier(encoder, texts, ["{}"]).head
    assert torch.allclose(encoder.embed_texts(texts, batch_size=2), expected, atol=1e-6)
