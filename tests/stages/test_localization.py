from contextlib import nullcontext

import pytest
import torch

from hf_invertune.errors import InputError
from hf_invertune.stages.localization import (
    CriticalNeurons,
    LocalizationConfig,
    NeuronLocalizer,
    critical_layers,
    critical_neurons,
    layer_score,
)
from hf_invertune.triggers import AdditiveTrigger, MaskedTrigger, PatchTrigger


class Pixelwise:
    """Two layers of 2 tokens and 3 hidden units: a constant one, and the top row of pixels (token: column)."""

    device = torch.device("cpu")
    layers = 2
    frozen = staticmethod(nullcontext)

    def activations(self, pixels):
        rows = pixels[:, :, 0].transpose(1, 2)
        return [torch.ones_like(rows), rows]


def test_layer_score():
    clean = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    triggered = torch.tensor([[3.0, 2.0], [1.0, 2.0]])
    assert layer_score(triggered, clean) == pytest.approx(3 / 5)
    assert layer_score(clean, clean) == 0


@pytest.mark.parametrize(
    ("scores", "settings", "expected"),
    [
        ([1, 1, 1, 5], {}, [3]),  # mean 2, population deviation 1.73
        ([0, 0, 0, 1, 1.2], {}, [3, 4]),  # 0.44 + 0.543 < 1; the sample deviation, 0.607, would leave layer 3 out
        ([0, 0, 0, 1, 1.2], {"deviations": 1.2}, [4]),
        ([5, 0, 1, 0], {"deviations": 0}, [0]),
        ([0, 1], {}, [1]),  # nothing above 0.5 + 0.5: the highest
        ([2, 2, 2], {}, [0]),
        ([1, 3, 2], {"deviations": 9}, [1]),
        ([3, 1, 2, 0], {"top_layers": 2}, [0, 2]),
        ([1, 3, 2], {"top_layers": 1}, [1]),
        ([1, 3], {"top_layers": 5}, [0, 1]),
    ],
)
def test_critical_layers(scores, settings, expected):
    assert critical_layers([float(score) for score in scores], LocalizationConfig(**settings)) == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_critical_neurons(seed):
    change = torch.tensor([0.1, 0.0, 5.0, 0.05, 5.2, 0.2])
    assert critical_neurons(change, seed) == [2, 4]
    assert critical_neurons(5.2 - change, seed) == [0, 1, 3, 5]


def test_localize_by_hand():
    """The top left pixel of each of 100 pictures goes from (0.2, 0.4, 0.6) to (0.2, 0.4, 1.0)."""
    pixels = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).repeat(100, 1, 2, 2)
    trigger = PatchTrigger(torch.tensor([0.2, 0.4, 1.0]).view(3, 1, 1), 0, 0)
    found = NeuronLocalizer(Pixelwise()).localize(pixels, [trigger])
    assert found.layer_scores == pytest.approx([0.0, 0.4 / (2 * 0.56) ** 0.5])
    assert (found.neurons, found.layers, found.widths) == ({1: [2]}, [1], [3, 3])


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_localize_averages_over_pictures_and_triggers():
    """Blank and white pictures by turns: the mean is 0.5, whatever the size of a chunk."""
    pixels = (torch.arange(130) % 2).float().view(-1, 1, 1, 1).repeat(1, 3, 1, 2)
    mask = torch.ones(1, 1, 2)
    triggers = [MaskedTrigger(mask, torch.ones(3, 1, 2)), MaskedTrigger(mask, torch.full((3, 1, 2), 0.6))]
    found = NeuronLocalizer(Pixelwise(), LocalizationConfig(images=130)).localize(pixels, triggers)
    assert found.layer_scores == pytest.approx([0.0, (0.8 - 0.5) / 0.5], abs=1e-6)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_localize_takes_the_first_images_only():
    pixels = torch.full((8, 3, 1, 2), 0.5)
    pixels[4:] = 0.25
    trigger = AdditiveTrigger(torch.full((3, 1, 2), 0.1), 0.1)
    found = NeuronLocalizer(Pixelwise(), LocalizationConfig(images=4)).localize(pixels, [trigger])
    assert found.layer_scores[1] == pytest.approx(0.2)
    whole = NeuronLocalizer(Pixelwise(), LocalizationConfig(images=8)).localize((pixels * 255).byte(), [trigger])
    assert whole.layer_scores[1] == pytest.approx(0.1 / 0.375, rel=0.01)


def test_localize_a_model(encoder, pixels):
    trigger = PatchTrigger(torch.ones(3, 8, 8), 0, 0)
    found = NeuronLocalizer(encoder, LocalizationConfig(top_layers=2)).localize(pixels, [trigger])
    clean, triggered = (encoder.activations(images)[1].mean(0).detach() for images in (pixels, trigger(pixels)))
    assert found.layer_scores[1] == pytest.approx(float((triggered - clean).norm() / clean.norm()), rel=1e-4)
    assert found.layers == [0, 1]
    assert found.widths == [32, 32]
    change = (triggered - clean).abs().mean(0)
    inside = found.neurons[1]
    outside = [unit for unit in range(32) if unit not in inside]
    assert inside and outside and change[inside].min() > change[outside].max()


def test_layers_are_in_order():
    assert CriticalNeurons([], {5: [1], 2: []}, [8] * 6).layers == [2, 5]


@pytest.mark.parametrize(("name", "value"), [("top_layers", 0), ("top_layers", -1), ("images", 0)])
def test_wrong_settings(name, value):
    with pytest.raises(InputError, match=f"`{name}`: got {value}"):
        LocalizationConfig(**{name: value})
