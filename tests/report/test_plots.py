import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_invertune.models.evaluation import Measurement, Metrics, Rate
from hf_invertune.report.plots import (
    label_shift,
    layer_scores,
    neuron_map,
    picture,
    rates,
    training_curves,
)
from hf_invertune.stages.configs import ScanConfig
from hf_invertune.stages.identification import ScanResult
from hf_invertune.stages.localization import CriticalNeurons
from hf_invertune.stages.simulation import Simulation
from hf_invertune.stages.verdict import Evidence, Verdict
from hf_invertune.triggers import (
    AdditiveTrigger,
    BlendTrigger,
    MaskedTrigger,
    PatchTrigger,
    ScatteredPatchTrigger,
    checkerboard,
)


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def pixels_of(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def drawn(trigger, withheld=False):
    """The pixels of what a page shows of a trigger, by caption."""
    return {caption: pixels_of(picture(pixels)) for caption, pixels in trigger.panels(withheld).items()}


@pytest.fixture
def scan():
    """A scan of 200 labels, of which the last is the target, 50 were inverted, and the first has a dollar sign."""
    names = ["a $b$ & <c>", *(f"label {i}" for i in range(1, 200))]
    scores = {k: 20.0 - k / 20 for k in range(150, 199)} | {199: 1.0}
    patch = PatchTrigger(checkerboard(2), 0, 0)
    return ScanResult(
        verdict=Verdict.BACKDOORED,
        target=199,
        class_names=names,
        templates=["{}"],
        config=ScanConfig(),
        seed=0,
        simulations=[Simulation("patch", [0.5] + [0.0] * 199, [0.1] + [0.0] * 198 + [0.4], patch)],
        shortlist=list(scores),
        evidence=[Evidence("masked", scores, 198, [])],
        images=10,
        seconds=1.0,
    )


def test_label_shift_shows_the_strongest_labels(scan):
    shown = [text for text in texts(label_shift(scan).svg()) if text.startswith(("label", "a $b$"))]
    assert len(shown) == 20
    assert shown[:2] == ["a $b$ &amp; &lt;c&gt;", "label 199"]


def test_label_shift_shows_every_simulation(scan):
    """Also those of a third family, and of two that are called the same."""
    scan.simulations = [
        replace(scan.simulations[0], kind=kind) for kind in ("patch", "swirl", "swirl", "wave", "ring")
    ]
    (axes,) = (chart := label_shift(scan)).figure.axes
    assert len(axes.containers) == 5 and all(len(bars) == 20 for bars in axes.containers)
    assert [text for text in texts(chart.svg()) if text.startswith("universal")] == [
        f"universal {simulation.kind}" for simulation in scan.simulations
    ]


def test_layer_scores_count_the_critical_neurons():
    assert "17" in texts(layer_scores(CriticalNeurons([0.1, 0.2, 0.9], {2: list(range(17))}, [64] * 3)).svg())


def test_neuron_map_has_a_row_a_critical_layer_and_a_stroke_a_neuron():
    svg = neuron_map(CriticalNeurons([0.1, 0.8, 0.9], {2: [0, 7, 63], 1: [5]}, [64, 16, 64])).svg()
    assert [text for text in texts(svg) if text.startswith("layer")] == ["layer 1", "layer 2"]
    assert "3 of 64 in layer 2" in svg
    strokes = re.findall(r'd="((?:M [\d. ]+\s+L [\d. ]+\s*)+)"', svg)
    assert [path.count("M") for path in strokes if path.count("M") == path.count("L")].count(3) == 1


def test_rates_of_a_model_without_labels():
    metrics = Metrics(agreement=Rate(9, 10), attack_success_rate=Rate(0, 0))
    shown = texts(rates([Measurement("mine", metrics, metrics, "aa" * 32)]).svg())
    assert "agreement" in shown and "ASR, mine" in shown and "clean accuracy" not in shown


def test_training_curves_draw_what_there_is():
    curves = training_curves([{"step": 1, "loss": 2.0, "learning_rate": 0.1}, {"step": 2, "loss": float("nan")}]).svg()
    assert "loss" in texts(curves) and "share, %" not in curves and "learning rate" not in curves


def test_charts_are_the_same_each_time_and_take_the_colours_of_the_page(scan):
    svg = label_shift(scan).svg()
    assert svg == label_shift(scan).svg()
    assert "var(--accent, #3f7fd0)" in svg
    assert not re.search(r"(fill|stroke): #", svg)
    assert "http" not in svg and svg.startswith("<svg ") and svg.rstrip().endswith("</svg>")


def test_picture_keeps_values_and_squares():
    shown = pixels_of(picture(torch.tensor([[[0.0, 1.0], [0.2, 0.4]]]), size=8))
    assert shown.shape == (8, 8, 3)
    assert shown[::4, ::4, 0].tolist() == [[0, 255], [51, 102]]
    assert pixels_of(picture(torch.full((3, 300, 300), 7, dtype=torch.uint8))).shape == (300, 300, 3)
    assert pixels_of(picture(torch.zeros(3, 1000, 1))).shape == (1000, 1, 3)  # no width of 224 times that


def test_trigger_pictures_say_what_they_are():
    delta = torch.zeros(3, 4, 4)
    delta[0] = 1  # beyond the bound: what is applied is shown
    additive = drawn(AdditiveTrigger(delta, 8 / 255))
    assert list(additive) == ["added pattern, amplified 16 times around grey"]
    assert additive.popitem()[1][0, 0].tolist() == [255, 128, 128]
    masked = drawn(MaskedTrigger(torch.full((1, 4, 4), 0.2), torch.ones(3, 4, 4)))
    assert [(name, pixels[0, 0, 0]) for name, pixels in masked.items()] == [
        ("pattern", 255),
        ("mask", 51),
        ("pattern × mask", 51),
    ]
    for patch in (PatchTrigger(torch.ones(3, 2, 3), 5, 7), ScatteredPatchTrigger(torch.ones(3, 2, 3), 1)):
        assert [(name, pixels.min()) for name, pixels in drawn(patch).items()] == [("patch", 255)]
    blended = drawn(BlendTrigger(torch.ones(3, 4, 4), 1.0))
    assert [(name, pixels.min()) for name, pixels in blended.items()] == [("on a grid", 255)]


def test_of_a_withheld_trigger_at_most_the_place_is_shown():
    mask = torch.zeros(1, 4, 4)
    mask[:, 1:3, 2] = 0.5
    place = drawn(MaskedTrigger(mask, torch.rand(3, 4, 4)).outline(), withheld=True)
    assert list(place) == ["its place"] and place["its place"][::56, ::56, 0].tolist() == (mask[0] * 510).tolist()
    others = (
        AdditiveTrigger(torch.rand(3, 4, 4), 1.0),
        BlendTrigger(torch.rand(3, 4, 4), 0.5),
        PatchTrigger(torch.rand(3, 2, 2), 0, 0),
        ScatteredPatchTrigger(torch.rand(3, 2, 2), 0),
    )
    assert not any(trigger.outline().panels(withheld=True) for trigger in others)


def test_a_picture_for_the_card(scan):
    chart = label_shift(scan)
    picture = Image.open(io.BytesIO(chart.png()))
    assert picture.format == "PNG" and picture.width > 600
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert label_shift(scan).png() == chart.png() == chart.png()
