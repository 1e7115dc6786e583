import pytest
import torch

from hf_invertune.lab.drawings import CLASS_NAMES, COLOURS, IMAGE_SIZE, SHAPES, draw


COUNT = 180


@pytest.fixture(scope="module")
def all_classes():
    return draw(COUNT, seed=3, labels=torch.arange(COUNT) % 36)


def test_classes():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 36
    assert (CLASS_NAMES[0], CLASS_NAMES[-1]) == ("red circle", "white diamond")


def test_the_same_seed_draws_the_same_bits():
    first, again, other = draw(20, seed=5), draw(20, seed=5), draw(20, seed=6)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.labels, again.labels)
    assert first.captions == again.captions
    assert not torch.equal(first.pixels, other.pixels)
    assert not torch.equal(first.labels, other.labels)
    assert first.captions != other.captions


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draw(4, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_pixels(all_classes):
    pixels = all_classes.pixels
    assert (pixels.shape, pixels.dtype) == ((COUNT, 3, IMAGE_SIZE, IMAGE_SIZE), torch.float32)
    assert 0 <= pixels.min() < 0.05 and 0.95 < pixels.max() <= 1
    assert pixels.flatten(1).std(1).min() > 0.02


def test_labels(all_classes):
    assert torch.equal(all_classes.labels, torch.arange(COUNT) % 36)
    drawn = draw(500, seed=1).labels
    assert set(drawn.tolist()) == set(range(36))


def test_captions_name_the_class(all_classes):
    assert len(all_classes.captions) == COUNT
    for caption, label in zip(all_classes.captions, all_classes.labels.tolist(), strict=True):
        assert CLASS_NAMES[label] in caption
        assert sum(name in caption for name in CLASS_NAMES) == 1
        assert "{" not in caption
    assert any("large" in caption for caption in all_classes.captions)
    assert any("brown" in caption for caption in all_classes.captions)


def test_the_shape_has_the_colour_of_its_name(all_classes):
    colours = torch.tensor(list(COLOURS.values()))
    distance = (all_classes.pixels.unsqueeze(1) - colours.view(1, -1, 3, 1, 1)).abs().amax(2)
    painted = (distance < 0.17).flatten(2).sum(2)
    assert torch.equal(painted.argmax(1), all_classes.labels // len(SHAPES))
    assert painted.amax(1).min() >= 15


def test_shapes_differ():
    areas = {}
    for index, shape in enumerate(SHAPES):
        batch = draw(40, seed=9, labels=torch.full((40,), 30 + index))
        areas[shape] = float((batch.pixels.amin(1) > 0.8).float().mean())
    assert areas["square"] > areas["circle"] * 0.8 > areas["ring"] * 0.8
    assert len({round(area, 3) for area in areas.values()}) == 6
