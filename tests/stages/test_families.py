"""Waves and blends: what the families can express, where their searches start, and how blends race."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from hf_invertune.errors import InputError
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.encoder import DualEncoder
from hf_invertune.stages import race
from hf_invertune.stages.configs import Bars, GatheringConfig, InversionConfig, ScanConfig
from hf_invertune.stages.families import AdditiveFamily, BlendFamily, MaskedFamily, WaveFamily, WindowFamily
from hf_invertune.stages.gathering import Gatherer, apart, concentration
from hf_invertune.stages.identification import TargetIdentifier
from hf_invertune.stages.inversion import held_out
from hf_invertune.triggers import BlendTrigger, MaskedTrigger, WaveTrigger
from hf_invertune.utils.seeds import stream


NAMES = ["red circle", "blue square", "green ring", "white cross"]
SIZE = torch.Size((32, 32))


@pytest.fixture
def classifier(encoder):
    return ZeroShotClassifier(encoder, NAMES)


# Waves


def test_the_probes_are_all_waves_once():
    family = WaveFamily(highest=2)
    probes = family.probes()
    pictures = torch.stack([probe(torch.full((3, 32, 32), 0.5)).flatten() for probe in probes])
    assert len(probes) == 4 * 12  # half of the 5 x 5 frequencies, without the constant one
    assert torch.cdist(pictures, pictures).add(torch.eye(len(probes))).min() > 0.1
    assert {probe.amplitude for probe in probes} == {family.amplitude}


def test_waves_go_on_from_a_trigger():
    family, wave = WaveFamily(), torch.tensor([3.3, -1.2, 0.4])
    first = family.parameters(3, SIZE, torch.Generator().manual_seed(0), [WaveTrigger(wave, 0.1), None])
    triggers = family.trigger(first).split()
    torch.testing.assert_close(triggers[0].wave, wave)
    assert triggers[0].amplitude == family.amplitude
    assert (triggers[1].wave[:2] % 1).abs().max() < 1e-5  # one of the grid
    assert [wide.amplitude for wide in WaveFamily(amplitude=0.8).wider()] == [0.8, 1.0]


def test_universal_waves_are_some_of_the_probes():
    family = WaveFamily(highest=3)
    first, make = family.perturbations(SIZE, torch.Generator().manual_seed(0))
    waves = [trigger.wave for trigger in make(first).split()]
    grid = torch.stack([probe.wave for probe in family.probes()])
    assert len(waves) == 9 and all((grid - wave).abs().sum(1).min() < 1e-5 for wave in waves)


class Seeing:
    """An encoder to which all pictures with this wave look the same."""

    device = torch.device("cpu")
    embed_batches, embed_pixels = DualEncoder.embed_batches, DualEncoder.embed_pixels

    def __init__(self, encoder, wave):
        self.encoder, self.wave = encoder, wave(torch.full((3, 32, 32), 0.5)) - 0.5
        self.frozen, self.model = encoder.frozen, encoder.model

    def embed_images(self, pixels):
        seen = ((pixels - 0.5) * normalize(self.wave.flatten(), dim=0).view_as(self.wave)).flatten(-3).sum(-1)
        home = self.encoder.embed_images(pixels)
        place = torch.zeros(home.shape[-1])
        place[0] = 1
        return normalize(home + 20 * (seen - 6).relu().unsqueeze(-1) * place, dim=-1)


def test_a_planted_wave_is_the_best_probe(classifier, pixels):
    planted = WaveTrigger(torch.tensor([2.0, -1.0, 0.0]), 0.2)
    classifier.encoder = Seeing(classifier.encoder, planted)
    family = WaveFamily(amplitude=0.2, highest=3)
    config = GatheringConfig((family,), starts=3, steps=1, learning_rate=1e-6)
    places = Gatherer(classifier.encoder, classifier.head, config).starts(0.5 + 0.1 * (pixels - 0.5), family)
    torch.testing.assert_close(places[0].trigger.wave, planted.wave, atol=1e-3, rtol=0)
    assert places[0].concentration > 0.9


@pytest.fixture
def starts(classifier, pixels, monkeypatch):
    """What a search by these settings learns from."""
    seen = []

    def learn(self, pixels, family, aim, start, generator, steps):
        seen.extend(start)
        return []

    def run(family, *given):
        monkeypatch.setattr(Gatherer, "_learn", learn)
        Gatherer(classifier.encoder, classifier.head, GatheringConfig((family,), starts=3)).starts(
            pixels, family, *given
        )
        return seen

    return run


def test_a_search_goes_on_from_what_is_given_and_from_the_best_probes(starts, classifier, pixels):
    """The best are those that lead where the search shall."""
    family, given = WaveFamily(highest=1), WaveTrigger(torch.tensor([0.5, 0.5, 0.5]), 0.1)
    there = normalize(torch.randn(classifier.head.shape[-1], generator=torch.Generator().manual_seed(2)), dim=0)
    learnt_on, _ = apart(pixels, torch.Generator().manual_seed(stream(0, "gathering")))

    def nearness(probe):
        return float((classifier.encoder.embed_images(probe(learnt_on)) @ there).mean().detach())

    first, *rest = starts(family, [given], there)
    best = sorted(family.probes(), key=nearness, reverse=True)
    assert first is given and len(rest) > 1
    assert [probe.digest() for probe in rest] == [probe.digest() for probe in best[: len(rest)]]


def test_after_a_trial_the_starts_that_gather_best_go_on(classifier, pixels, monkeypatch):
    """Of windows whose patterns are held by a rate of next to nothing, the two that gather most."""
    family, rounds = WindowFamily(), []
    original = Gatherer._learn

    def learn(self, pixels, family, aim, start, generator, steps):
        rounds.append((steps, len(start)))
        return original(self, pixels, family, aim, start, generator, steps)

    monkeypatch.setattr(Gatherer, "_learn", learn)
    settings = {"starts": 5, "steps": 3, "batch_size": 2, "learning_rate": 1e-6}
    all_five = Gatherer(classifier.encoder, classifier.head, GatheringConfig((family,), trial=3, **settings)).starts(
        pixels, family
    )
    two = Gatherer(
        classifier.encoder, classifier.head, GatheringConfig((family,), trial=2, kept=2, **settings)
    ).starts(pixels, family)
    assert rounds == [(3, 5), (2, 5), (1, 2)] and len(all_five) == 5
    learnt_on, _ = apart(pixels, torch.Generator().manual_seed(stream(0, "gathering")))
    middle = classifier.encoder.embed_pixels(pixels).mean(0)

    def gathered(place):
        return float(concentration(classifier.encoder.embed_pixels(learnt_on, place.trigger), middle))

    best = sorted(all_five, key=gathered, reverse=True)[:2]
    for one, other in zip(two, best, strict=True):
        torch.testing.assert_close(one.trigger.pattern, other.trigger.pattern, atol=0.01, rtol=0)


def test_without_probes_a_search_starts_at_random(starts):
    given = MaskedTrigger(torch.zeros(1, 32, 32), torch.zeros(3, 32, 32))
    assert starts(WindowFamily(), [given]) == [given, None, None]


def test_a_search_towards_a_place(classifier, pixels):
    """It nears that place and no other."""
    family = WindowFamily(side=0.9)
    config = GatheringConfig((family,), starts=2, steps=20, batch_size=4)
    there = normalize(torch.randn(classifier.head.shape[-1], generator=torch.Generator().manual_seed(1)), dim=0)
    nearest = [
        max(
            float(one.direction @ there)
            for one in Gatherer(classifier.encoder, classifier.head, config).starts(pixels, family, (), towards)
        )
        for towards in (there, -there)
    ]
    assert nearest[0] > nearest[1] + 0.05


# Blends


def test_blends_go_on_from_a_trigger():
    family = BlendFamily()
    found = BlendTrigger(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(0.1, 0.9), 0.3)
    first, second = family.trigger(family.parameters(2, SIZE, torch.Generator(), [found])).split()
    torch.testing.assert_close(first.pattern, found.pattern)
    assert first.alpha == family.opacity and 0 < second.pattern.min() < second.pattern.max() < 1
    assert [wide.opacity for wide in family.wider()] == [2 * family.opacity]
    assert [wide.opacity for wide in BlendFamily(opacity=0.7).wider()] == [1.0]


def test_a_blend_is_a_picture_seen_through_the_images():
    family = BlendFamily(opacity=0.25)
    (variables,) = family.parameters(2, SIZE, torch.Generator().manual_seed(0), ())
    pixels = torch.rand(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(family.trigger([variables])(pixels), 0.75 * pixels + 0.25 * variables.sigmoid())
    first, make = family.perturbations(SIZE, torch.Generator().manual_seed(0))
    assert make(first)(pixels).shape == (1, 4, 3, 32, 32)


def test_what_races_for_the_cheapest_trigger_is_not_learnt_on():
    assert MaskedFamily().refined and AdditiveFamily().refined and not BlendFamily().refined
    assert MaskedFamily().wider() == AdditiveFamily().wider() == []


def test_blends_race_once_and_are_scored_on_other_pictures(classifier, pixels, monkeypatch):
    fixed = InversionConfig(steps=2, batch_size=2, embedding_weight=0.0, ssim_weight=0.0)
    never = {"blend": Bars(1e9, 1e9)}
    config = ScanConfig((BlendFamily(),), simulation_steps=1, fixed=fixed, fixed_restarts=3, bars=never)
    config.gathering = GatheringConfig(families=())
    calls = []

    def measure(classifier, inverted, held):
        calls.append((inverted.label, len(held)))
        return held_out(classifier, inverted, held)

    monkeypatch.setattr(race, "held_out", measure)
    evidence = TargetIdentifier(classifier, config).identify(pixels).evidence[0]
    assert sorted(label for label, _ in calls) == [0, 1, 2, 3]
    assert {count for _, count in calls} == {max(2, len(pixels) // 6)}
    best = evidence.candidates[0]
    assert best.objective == evidence.scores[best.label] == min(evidence.scores.values())


# Bars


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": (WaveFamily(), WaveFamily(highest=2))}, "`families`: got .'wave', 'wave'.; name each once"),
        ({"families": (MaskedFamily(),)}, "`bars`: there are none for masked"),
    ],
)
def test_gathering_families_have_bars_and_come_once(changes, message):
    with pytest.raises(InputError, match=message):
        replace(GatheringConfig(), **changes)
