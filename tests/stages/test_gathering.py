"""Places where triggers gather embeddings: what is found, how it is judged, and what becomes of it in a plan."""

import dataclasses

import pytest
import torch
from tiny_plan import removal_config, scan_config
from torch.nn.functional import normalize

from hf_invertune.errors import InputError
from hf_invertune.lab.demo import demo_images, demo_victim, victim_truth
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.loading import load_model
from hf_invertune.stages.configs import Bars, GatheringConfig, RemovalConfig, ScanConfig
from hf_invertune.stages.families import WindowFamily
from hf_invertune.stages.gathering import Gatherer, Gathering, concentration, distinct
from hf_invertune.stages.identification import TargetIdentifier
from hf_invertune.stages.plan import make_plan, make_pools
from hf_invertune.stages.verdict import Evidence, Verdict, conclude
from hf_invertune.triggers import MaskedTrigger


NAMES = ["red circle", "blue square", "green ring", "white cross"]
WINDOW = WindowFamily()
SHORT = GatheringConfig((WINDOW,), starts=4, steps=3, batch_size=3)
STILL = MaskedTrigger(torch.zeros(1, 2, 2), torch.zeros(3, 2, 2))


def place(value, label=0, direction=(1.0, 0.0), family="window"):
    return Gathering(family, STILL, value, label, 1.0, 0.5, normalize(torch.tensor(direction), dim=0))


@pytest.fixture
def classifier(encoder):
    return ZeroShotClassifier(encoder, NAMES)


def test_concentration_is_the_mean_pairwise_cosine():
    embeddings = normalize(torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    expected = (embeddings @ embeddings.mT).mean((-1, -2))
    torch.testing.assert_close(concentration(embeddings, torch.zeros(5)), expected)
    torch.testing.assert_close(concentration(embeddings[:, :1].expand(-1, 7, -1), torch.zeros(5)), torch.ones(2))


def test_a_narrow_cone_is_no_gathering():
    """Embeddings that are all near each other, as those of many models are, are seen from their middle."""
    cone = normalize(
        torch.tensor([9.0, 0, 0]) + torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    assert concentration(cone, torch.zeros(3)) > 0.9
    assert concentration(cone, cone.mean(0)) < 0.01


def test_one_of_each_place():
    """Of two that lead nearly the same way the more concentrated stays."""
    near, far = place(0.9), place(0.8, direction=(0.0, 1.0))
    assert distinct([far, place(0.7, direction=(1.0, 0.1)), near]) == [near, far]


@pytest.fixture
def found(monkeypatch):
    """What the starts of each family find."""
    found = {
        "window": [place(0.4), place(0.6), place(0.5, direction=(0.0, 1.0))],
        "wave": [place(0.75, family="wave"), place(0.85, label=1, direction=(0.0, 1.0), family="wave")],
    }
    monkeypatch.setattr(Gatherer, "starts", lambda self, pixels, family: found[family.kind])
    return found


def test_places_come_family_by_family(found, classifier, pixels):
    """Two families may find the same place."""
    window, wave = found["window"], found["wave"]
    assert Gatherer(classifier.encoder, classifier.head).gather(pixels) == [window[1], window[2], wave[1], wave[0]]


@pytest.mark.parametrize(
    ("wave", "kept", "verdict", "target"),
    [
        (Bars(0.9, 0.95), [0.6, 0.85], Verdict.CLEAN, None),
        (Bars(0.8, 0.9), [0.6, 0.85], Verdict.INCONCLUSIVE, 1),
        (Bars(0.7, 0.8), [0.6, 0.85, 0.75], Verdict.BACKDOORED, 1),
    ],
)
def test_each_family_is_judged_by_its_own_bars(found, classifier, pixels, wave, kept, verdict, target):
    """A scan keeps the first place of each, and whatever is not clean."""
    gathering = GatheringConfig(bars={"window": Bars(0.65, 0.7), "wave": wave})
    scan = TargetIdentifier(classifier, scan_config("clean", gathering=gathering)).identify(pixels)
    assert [one.concentration for one in scan.gatherings] == kept
    assert (scan.verdict, scan.target) == (verdict, target)
    assert all(one.family == "wave" for one in scan.planted)


# The window


def test_a_window_is_a_square_where_its_centre_is():
    family = WindowFamily(side=0.25)
    centre = (torch.tensor([[[0.25, 0.75]]]) - 0.5) * 15
    mask = family.trigger([centre, torch.zeros(1, 1, 3, 32, 32)]).split()[0].mask[0]
    assert mask[6:10, 22:26].min() > 0.9 and mask[:2].max() < 0.01 and mask[:, :18].max() < 0.01
    assert mask.mean() == pytest.approx(0.25**2, abs=0.005)
    assert family.trigger([centre * 100, torch.zeros(1, 1, 3, 32, 32)]).mask.mean() > 0.03  # it stays inside


def test_windows_start_on_a_grid_and_go_on_from_a_trigger():
    family, size = WindowFamily(), torch.Size((32, 32))
    centre, pattern = family.parameters(16, size, torch.Generator().manual_seed(1), ())
    assert len({tuple(one) for one in centre[:, 0].tolist()}) == 16 and pattern.shape == (16, 1, 3, 32, 32)
    moved = family.trigger([torch.full((1, 1, 2), 3.0), pattern[:1]]).split()
    again = family.trigger(family.parameters(1, size, torch.Generator(), moved)).split()[0]
    torch.testing.assert_close(again.mask, moved[0].mask, atol=0.02, rtol=0)
    torch.testing.assert_close(again.pattern, moved[0].pattern.clamp(0.02, 0.98), atol=1e-4, rtol=0)


def test_what_erases_is_wider():
    assert [wide.side for wide in WindowFamily(side=0.2).wider()] == pytest.approx([0.25, 0.32])
    assert [wide.side for wide in WindowFamily(side=0.9).wider()] == [1.0, 1.0]


# The search


def test_gatherings_are_measured_on_other_pictures(classifier, pixels):
    found = Gatherer(classifier.encoder, classifier.head, SHORT).starts(pixels, WINDOW)
    assert len(found) == 4
    for one in found:
        embeddings = classifier.encoder.embed_images(one.trigger(pixels)).detach()
        assert 0 < one.concentration <= 1 and one.family == "window" and one.trigger.mask.shape == (1, 32, 32)
        assert one.direction.norm() == pytest.approx(1, abs=1e-5) and one.direction @ embeddings.mean(0) > 0
        assert one.share in (0.5, 1.0)  # of the two pictures that are a sixth of twelve
        clean = classifier.encoder.embed_images(pixels).detach()
        assert one.nearest == pytest.approx(float((clean @ one.direction).max()), abs=1e-5)


def test_the_seed_decides(classifier, pixels):
    first, again, other = (
        [
            one.concentration
            for one in Gatherer(classifier.encoder, classifier.head, SHORT, seed).starts(pixels, WINDOW)
        ]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_pictures_come_together(classifier, pixels):
    """The more steps, the more so; and the model is left as it was."""
    weights = {name: tensor.clone() for name, tensor in classifier.encoder.model.state_dict().items()}
    values = [
        max(one.concentration for one in Gatherer(classifier.encoder, classifier.head, config).starts(pixels, WINDOW))
        for config in (dataclasses.replace(SHORT, steps=steps) for steps in (1, 30))
    ]
    assert values[1] > values[0] + 0.02
    assert all(torch.equal(tensor, weights[name]) for name, tensor in classifier.encoder.model.state_dict().items())


def test_a_planted_patch_gathers_and_nature_does_not(victim):
    """Without a label; the place is read as the target."""
    truth, _ = victim_truth()
    data, found = demo_images(128, seed=41), []
    for model in (victim, load_model(demo_victim("clean"), device="cpu")):
        classifier = ZeroShotClassifier(model.encoder, data.class_names)
        config = GatheringConfig((WINDOW,), starts=9, steps=60, batch_size=8)
        found.append(Gatherer(classifier.encoder, classifier.head, config).gather(data.pixels)[0])
    poisoned, clean = found
    bars = GatheringConfig().bars["window"]
    assert poisoned.concentration > bars.suspicious and clean.concentration < bars.quiet
    assert data.class_names[poisoned.label] == truth["target"] and poisoned.share > 0.9


def test_a_start_goes_on(classifier, pixels):
    still = dataclasses.replace(SHORT, steps=1, learning_rate=1e-6)
    (first, *_) = Gatherer(classifier.encoder, classifier.head, SHORT, 3).starts(pixels, WINDOW)
    (again, *others) = Gatherer(classifier.encoder, classifier.head, still).starts(pixels, WINDOW, [first.trigger])
    torch.testing.assert_close(again.trigger.mask, first.trigger.mask, atol=0.02, rtol=0)
    assert len(others) == 3


def test_no_family_no_gathering(classifier, pixels):
    assert Gatherer(classifier.encoder, classifier.head, GatheringConfig(families=())).gather(pixels) == []


@pytest.mark.parametrize(("name", "value"), [("starts", 0), ("steps", 0), ("batch_size", 1), ("learning_rate", 0.0)])
def test_wrong_settings(name, value):
    with pytest.raises(InputError, match=f"^`{name}`: got {value!r}"):
        GatheringConfig(**{name: value})


# The verdict


RACED = [Evidence("masked", {1: 1.0, 0: 9.0}, 0, []), Evidence("additive", {2: 1.0, 0: 1.1}, 0, [])]


@pytest.mark.parametrize(
    ("values", "raced", "expected"),
    [
        ([0.69], RACED[1:], (Verdict.CLEAN, None)),
        ([0.7], RACED[1:], (Verdict.INCONCLUSIVE, 5)),
        ([0.8], RACED[1:], (Verdict.BACKDOORED, 5)),
        ([0.8, 0.9], RACED, (Verdict.BACKDOORED, 6)),
        ([0.75], RACED, (Verdict.BACKDOORED, 1)),
        ([], RACED, (Verdict.BACKDOORED, 1)),
    ],
)
def test_the_gravest_verdict_counts_and_of_equals_the_place(values, raced, expected):
    places = [place(value, label=5 + index) for index, value in enumerate(values)]
    config = ScanConfig(gathering=GatheringConfig(bars={"window": Bars(0.7, 0.8), "wave": Bars(1, 1)}))
    assert conclude(places, raced, config) == expected


def test_places_of_two_families_are_compared_by_their_bars():
    """A window at .90 is beyond its bar of .70 by two thirds of the way to 1, a wave at .94 beyond .84 by less."""
    places = [place(0.94, label=5, family="wave"), place(0.90, label=6)]
    assert conclude(places, [], ScanConfig()) == (Verdict.BACKDOORED, 6)
    places[0].concentration = 0.96
    assert conclude(places, [], ScanConfig()) == (Verdict.BACKDOORED, 5)


def identify(classifier, pixels, bars):
    config = scan_config("clean", gathering=dataclasses.replace(SHORT, bars={"window": bars}))
    return TargetIdentifier(classifier, config).identify(pixels)


def test_a_scan_keeps_what_is_not_clean(classifier, pixels):
    planted = identify(classifier, pixels, Bars(0.0, 0.0))
    assert planted.verdict is Verdict.BACKDOORED and planted.planted == planted.gatherings
    assert planted.target == planted.gatherings[0].label
    clean = identify(classifier, pixels, Bars(1.5, 1.5))
    assert clean.verdict is Verdict.CLEAN and clean.planted == [] and len(clean.gatherings) == 1
    assert clean.judged(clean.gatherings[0]) is Verdict.CLEAN


def test_a_scan_with_places_is_saved_whole(classifier, pixels, tmp_path):
    scan = identify(classifier, pixels, Bars(0.0, 0.0))
    scan.save(tmp_path)
    again = type(scan).load(tmp_path)
    assert torch.equal(again.gatherings[0].direction, scan.gatherings[0].direction)
    assert again.gatherings[0].trigger.digest() == scan.gatherings[0].trigger.digest()


# The plan


def test_pools_lead_to_the_planted_places(classifier, pixels):
    scan = identify(classifier, pixels, Bars(0.0, 0.0))
    config = removal_config(scan=scan.config, tuning={"pool_size": 2})
    pools = make_pools(classifier, pixels, scan.planted, config)
    assert [pool.family.side for pool in pools] == pytest.approx([0.25, 0.32])
    places = torch.stack([one.direction for one in scan.planted])
    for pool in pools:
        assert 1 <= len(pool.triggers) == len(pool.directions) <= 2 * len(places)
        assert all((places @ direction).max() >= 0.7 for direction in pool.directions)
    assert make_pools(classifier, pixels, [], RemovalConfig()) == []


def test_a_plan_stamps_the_triggers_of_its_pools_too(classifier, pixels):
    scan = identify(classifier, pixels, Bars(0.0, 0.0))
    plan = make_plan(classifier, pixels, scan.target, scan, removal_config(scan=scan.config))
    triggers = [found.trigger for found in plan.inverted] + [one for pool in plan.pools for one in pool.triggers]
    assert len(triggers) > len(plan.inverted)
    stamped = plan.stamp(pixels, 0)
    for index in range(len(pixels)):
        torch.testing.assert_close(stamped[index], triggers[index % len(triggers)](pixels[index]))
