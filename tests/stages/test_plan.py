import pytest
import torch
from tiny_plan import forced_bars, removal_config, scan_config
from torch.nn.functional import normalize

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.stages import plan as module
from hf_invertune.stages.configs import (
    Bars,
    GatheringConfig,
    InversionConfig,
    LocalizationConfig,
    RemovalConfig,
    ScanConfig,
)
from hf_invertune.stages.families import AdditiveFamily, BlendFamily, MaskedFamily, WindowFamily
from hf_invertune.stages.gathering import Gathering
from hf_invertune.stages.identification import ScanResult
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.localization import CriticalNeurons, NeuronLocalizer
from hf_invertune.stages.plan import TuningPlan, make_plan, make_pools, places_of
from hf_invertune.stages.verdict import Evidence, Verdict
from hf_invertune.triggers import AdditiveTrigger, BlendTrigger, MaskedTrigger, PatchTrigger


NAMES = ["red circle", "blue square", "green ring", "white cross"]
MASKED = MaskedTrigger(torch.full((1, 32, 32), 0.5), torch.full((3, 32, 32), 0.5))
ADDITIVE = AdditiveTrigger(torch.zeros(3, 32, 32), 0.1)
BLEND = BlendTrigger(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), 0.2)


def inverted(trigger, cross_entropy, label=2, objective=1.0):
    return InvertedTrigger(label, trigger.kind, trigger, objective, cross_entropy, 0.0)


def scan_of(*candidates):
    """A scan whose finalists were these, each family backdoored with a lead of 3."""
    evidence = []
    for family in ("masked", "additive"):
        own = [candidate for candidate in candidates if candidate.family == family]
        scores = {candidate.label: candidate.objective for candidate in own} or {0: 1.0}
        lowest = min(scores.values())
        evidence.append(Evidence(family, scores | {9: 4 * lowest}, 9, own))
    config = ScanConfig(bars=dict.fromkeys(("masked", "additive", "blend"), Bars(-1, -1)))
    return ScanResult(Verdict.BACKDOORED, 2, NAMES, [], config, 0, [], [0, 1, 2, 3], evidence, 0, 0.0)


def test_stamp_takes_turns():
    patches = [PatchTrigger(torch.full((3, 1, 1), value), 0, 0) for value in (0.25, 0.5, 0.75)]
    plan = TuningPlan(2, [inverted(patch, 0.0) for patch in patches], CriticalNeurons([], {}, []), NAMES)
    pixels = torch.zeros(5, 3, 2, 2)
    for step, expected in [(0, [0.25, 0.5, 0.75, 0.25, 0.5]), (1, [0.5, 0.75, 0.25, 0.5, 0.75])]:
        stamped = plan.stamp(pixels, step)
        assert stamped[:, 0, 0, 0].tolist() == expected
        assert stamped[:, :, 1].abs().sum() == 0
    assert torch.equal(plan.stamp(pixels, 3), plan.stamp(pixels, 0))
    assert pixels.abs().sum() == 0


@pytest.fixture
def make(encoder, pixels, monkeypatch):
    """Plan for label 2 with inversions that end at these cross-entropies; what each started from, and localised."""

    def run(scan, masked, additive):
        starts, localized = {}, []

        def invert(self, pixels, labels, *, start=()):
            assert labels == [2]
            starts[self.family.kind] = start[0]
            trigger, cross_entropy = {"masked": (MASKED, masked), "additive": (ADDITIVE, additive)}[self.family.kind]
            return [inverted(trigger, cross_entropy)]

        def localize(self, pixels, triggers):
            localized.extend(triggers)
            return CriticalNeurons([1.0], {0: [1]}, [2])

        monkeypatch.setattr(module.TriggerInverter, "invert", invert)
        monkeypatch.setattr(module.NeuronLocalizer, "localize", localize)
        plan = make_plan(
            ZeroShotClassifier(encoder, NAMES),
            pixels,
            2,
            scan,
            RemovalConfig(ScanConfig((MaskedFamily(), AdditiveFamily()))),
        )
        assert plan.target == 2
        assert plan.critical == CriticalNeurons([1.0], {0: [1]}, [2])
        return plan, starts, localized

    return run


def test_the_triggers_that_work_are_kept_best_first(make):
    plan, starts, localized = make(None, masked=0.9, additive=0.1)
    assert starts == {"masked": None, "additive": None}
    assert [found.cross_entropy for found in plan.inverted] == [0.1, 0.9]
    assert localized == [ADDITIVE, MASKED]


@pytest.mark.parametrize(("masked", "additive", "kept"), [(0.5, 1.5, 0.5), (4.0, 3.0, 3.0), (1.0, 1.1, 1.0)])
def test_what_does_not_work_is_left_out_unless_nothing_does(make, masked, additive, kept):
    plan, _, _ = make(None, masked, additive)
    assert [found.cross_entropy for found in plan.inverted] == [kept]


def test_the_inversion_goes_on_from_what_the_scan_found(make):
    masked, additive = MaskedTrigger(MASKED.mask, MASKED.pattern), AdditiveTrigger(ADDITIVE.delta, 0.1)
    _, starts, _ = make(scan_of(inverted(masked, 0.5), inverted(additive, 0.6)), masked=0.1, additive=0.2)
    assert starts == {"masked": masked, "additive": additive}


def test_a_family_in_which_the_scan_suspects_another_label_is_left_out(make):
    plan, starts, _ = make(scan_of(inverted(MASKED, 0.5), inverted(ADDITIVE, 0.5, label=3)), masked=0.1, additive=0.2)
    assert starts == {"masked": MASKED}
    assert [found.trigger.kind for found in plan.inverted] == ["masked"]


def test_fresh_starts_when_the_scan_does_not_suspect_the_label(make):
    _, starts, _ = make(scan_of(inverted(MASKED, 0.1, label=3)), masked=0.1, additive=0.2)
    assert starts == {"masked": None, "additive": None}


def test_accomplices_join_but_are_not_localized(make):
    rider, stranger = inverted(MASKED, 0.5, 3, objective=1.5), inverted(MASKED, 0.5, 0, objective=3.0)
    plan, _, localized = make(scan_of(inverted(MASKED, 0.5), rider, stranger), masked=0.1, additive=0.2)
    assert [found.label for found in plan.inverted] == [2, 3]
    assert plan.inverted[1] is rider
    assert localized == [MASKED]


# Pools


WINDOW = WindowFamily(side=0.2)


@pytest.fixture
def suspicious(encoder, pixels):
    """A scan in which both races lead to label 2, and a classifier."""
    triggers = [inverted(MASKED, 0.1), inverted(BLEND, 0.1)]
    families = (MaskedFamily(), BlendFamily(opacity=0.2))
    gathering = GatheringConfig((WINDOW,), starts=3, steps=1, batch_size=2)
    config = scan_config(families=families, bars=forced_bars("backdoored", ("masked", "blend")), gathering=gathering)
    evidence = [Evidence(one.family, {2: 1.0, 0: 4.0}, 0, [one]) for one in triggers]
    scan = ScanResult(Verdict.BACKDOORED, 2, NAMES, [], config, 0, [], [0, 1, 2, 3], evidence, 0, 0.0)
    return scan, ZeroShotClassifier(encoder, NAMES)


def test_a_race_leads_to_places_too(suspicious, pixels):
    """Where its best trigger brings pictures on the average; after those where triggers gather."""
    scan, classifier = suspicious
    there = normalize(torch.ones(16), dim=0)
    scan.gatherings = [Gathering("window", MASKED, value, 2, 1.0, 0.5, there) for value in (1.0, -1.0)]
    found = places_of(classifier, (pixels * 255).byte(), scan)
    assert [(scan.config.family(one.family), one.trigger) for one in found] == [
        (WINDOW, MASKED),
        (MaskedFamily(), MASKED),
        (BlendFamily(opacity=0.2), BLEND),
    ]
    assert torch.equal(found[0].direction, there)
    for one in found[1:]:
        with torch.no_grad():
            mean = classifier.encoder.embed_images(one.trigger((pixels * 255).byte() / 255)).mean(0)
        torch.testing.assert_close(one.direction, normalize(mean, dim=0))


def test_pools_of_a_race(suspicious, pixels):
    """Of the families that have a wider one."""
    scan, classifier = suspicious
    config = removal_config(scan=scan.config, tuning={"pool_size": 2})
    places = places_of(classifier, pixels, scan)
    (pool,) = make_pools(classifier, pixels, places, config)
    assert pool.family == BlendFamily(opacity=0.4) and 1 <= len(pool.triggers) <= 2
    assert {trigger.alpha for trigger in pool.triggers} == {0.4}
    assert all(torch.equal(direction, places[1].direction) for direction in pool.directions)
    assert make_plan(classifier, pixels, 2, scan, config).pools[0].family == pool.family


def test_the_nearest_of_each_place_and_width_are_kept(suspicious, pixels, monkeypatch):
    scan, classifier = suspicious
    asked = []

    def starts(self, pixels, family, start=(), towards=None):
        asked.append((family, start, towards))
        cosines = [0.69, 0.9, 0.75, 0.99, -0.99]
        directions = [cosine * towards for cosine in cosines]
        triggers = [BlendTrigger(torch.full((3, 1, 1), cosine), 0.1) for cosine in cosines]
        return [
            Gathering("window", *pair, 0, 1.0, 0.5, direction)
            for *pair, direction in zip(triggers, cosines, directions, strict=True)
        ]

    monkeypatch.setattr(module.Gatherer, "starts", starts)
    there = [normalize(torch.tensor(direction), dim=0) for direction in ([1.0, 0.0], [1.0, 1.0])]
    places = [
        Gathering(WINDOW.kind, trigger, 1.0, 2, 1.0, 0.5, direction)
        for trigger, direction in zip((MASKED, BLEND), there, strict=True)
    ]

    def kept(size):
        return make_pools(classifier, pixels, places, removal_config(scan=scan.config, tuning={"pool_size": size}))

    pools = kept(2)
    assert asked == [(wider, [place.trigger], place.direction) for place in places for wider in WINDOW.wider()]
    assert [pool.family for pool in pools] == WINDOW.wider()
    for pool in pools:
        values = [round(float(trigger.pattern.mean()), 2) for trigger in pool.triggers]
        assert values == [0.99, 0.9] * 2
        assert torch.equal(pool.directions, torch.stack([there[0], there[0], there[1], there[1]]))
    assert [len(pool.triggers) for pool in kept(9)] == [6, 6]


def test_a_real_plan(encoder, pixels):
    localization = LocalizationConfig(top_layers=1)
    config = RemovalConfig(inversion=InversionConfig(steps=3, batch_size=4), localization=localization, seed=3)
    plan = make_plan(ZeroShotClassifier(encoder, NAMES), pixels, 1, None, config)
    assert (plan.target, plan.class_names) == (1, NAMES)
    assert {found.label for found in plan.inverted} == {1}
    triggers = [found.trigger for found in plan.inverted]
    assert plan.critical == NeuronLocalizer(encoder, localization, 3).localize(pixels, triggers)
