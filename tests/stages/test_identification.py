import dataclasses
import math
from contextlib import nullcontext

import pytest
import torch
from torch.nn.functional import normalize

from hf_invertune.errors import InputError
from hf_invertune.models.clip import DualEncoder
from hf_invertune.models.evaluation import predict
from hf_invertune.stages import identification
from hf_invertune.stages.identification import (
    FamilyEvidence,
    ScanConfig,
    ScanResult,
    Simulation,
    TargetIdentifier,
    Verdict,
    best_of_each_label,
    combine,
    patch_areas,
    robust_z,
)
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.triggers import AdditiveTrigger


NAMES = ["red circle", "blue square", "green ring", "white cross"]
QUICK = {"simulation_steps": 2, "simulation_batch_size": 4, "steps": (2, 2), "batch_size": 2, "looks": 1}
STILL = AdditiveTrigger(torch.zeros(3, 2, 2), 0.1)


def candidate(label, objective):
    return InvertedTrigger(label, "", STILL, objective, 0.0, 0.0)


def family(verdict, label=0, lead=0.0, candidates=(), scores=None):
    return FamilyEvidence("masked", scores or {}, {}, label, lead, verdict, list(candidates))


def simulation(clean, adversarial):
    return Simulation("patch", clean, adversarial, STILL)


# Functions


def test_robust_z():
    scores = {7: math.e**2, 3: 1.0, 5: math.e}
    assert robust_z(scores) == pytest.approx({7: 1 / 1.4826, 3: -1 / 1.4826, 5: 0})
    assert list(robust_z(scores)) == [7, 3, 5]
    # logs 0, 2, 3, 7: median 2.5, deviations 2.5, 0.5, 0.5, 4.5, their median 1.5
    even = robust_z({k: math.exp(log) for k, log in enumerate([0, 2, 3, 7])})
    assert even == pytest.approx({0: -2.5 / 2.2239, 1: -0.5 / 2.2239, 2: 0.5 / 2.2239, 3: 4.5 / 2.2239})


def test_robust_z_without_spread():
    assert robust_z({0: 2.0, 1: 2.0, 2: 9.0}) == {0: 0.0, 1: 0.0, 2: 0.0}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([(Verdict.CLEAN, 1, 0.1), (Verdict.CLEAN, 2, 0.2)], (Verdict.CLEAN, None)),
        ([(Verdict.CLEAN, 1, 0.1), (Verdict.INCONCLUSIVE, 2, 0.2)], (Verdict.INCONCLUSIVE, 2)),
        ([(Verdict.BACKDOORED, 1, 0.1), (Verdict.INCONCLUSIVE, 2, 9.0)], (Verdict.BACKDOORED, 1)),
        ([(Verdict.BACKDOORED, 1, 1.0), (Verdict.BACKDOORED, 2, 3.0)], (Verdict.BACKDOORED, 2)),
        ([(Verdict.BACKDOORED, 1, 4.0), (Verdict.BACKDOORED, 2, 3.0)], (Verdict.BACKDOORED, 1)),
        ([(Verdict.INCONCLUSIVE, 0, 4.0), (Verdict.CLEAN, 2, 9.0)], (Verdict.INCONCLUSIVE, 0)),
    ],
)
def test_combine(evidence, expected):
    assert combine([family(*one) for one in evidence]) == expected


@pytest.mark.parametrize(
    ("size", "share", "side", "places"),
    [
        (32, 0.029, 5, [(26, 26), (26, 1), (1, 26), (1, 1), (13, 13)]),
        (224, 0.029, 38, [(179, 179), (179, 7), (7, 179), (7, 7), (93, 93)]),
        (32, 1e-6, 2, [(29, 29), (29, 1), (1, 29), (1, 1), (15, 15)]),
    ],
)
def test_patch_areas(size, share, side, places):
    areas = patch_areas(size, share)
    assert areas.shape == (5, 1, 1, size, size)
    for area, (top, left) in zip(areas[:, 0, 0], places, strict=True):
        assert area.sum() == side * side
        assert area[top : top + side, left : left + side].eq(1).all()


def test_best_of_each_label():
    inverted = [candidate(2, 5.0), candidate(0, 4.0), candidate(2, 3.0), candidate(1, 9.0), candidate(0, 4.5)]
    best = best_of_each_label(inverted)
    assert [(one.label, one.objective) for one in best] == [(2, 3.0), (0, 4.0), (1, 9.0)]


def test_simulation():
    one = simulation([0.5, 0.25, 0.25], [0.25, 0.0, 0.75])
    assert one.shift == [-0.25, -0.25, 0.5]
    assert one.suspect == 2


# Lead and shortlist


def lead(scores, **settings):
    """The lead among four labels, of which 0 and 1 are kin: cosine 0.98 when centred; 2 and 3 are not."""
    head = torch.tensor([[1.0, 0.0], [0.8, 0.0], [-1.0, -0.2], [-0.8, 0.2]])
    return TargetIdentifier(None, head, NAMES, ScanConfig(**settings))._lead(scores)


def test_lead_passes_over_kin():
    scores = {3: 3.0, 1: 1.1, 0: 1.0, 2: 2.5}
    assert lead(scores) == (0, pytest.approx(1.5))
    assert lead(scores, kinship=1.01) == (0, pytest.approx(0.1))


def test_lead_when_all_are_kin():
    assert lead({0: 2.0, 1: 3.0}) == (0, pytest.approx(0.5))
    assert lead({0: 2.0, 1: 3.0, 2: 8.0}, kinship=-1.01) == (0, pytest.approx(3.0))


def test_kin_are_measured_after_centring():
    """All four embeddings point nearly the same way, as those of a CLIP do."""
    head = torch.tensor([[10.0, 1.0], [10.0, 0.8], [10.0, -1.0], [10.0, -0.8]])
    label, value = TargetIdentifier(None, head, NAMES)._lead({0: 1.0, 1: 1.5, 2: 3.0, 3: 4.0})
    assert (label, value) == (0, pytest.approx(2.0))


@pytest.mark.parametrize(("size", "expected"), [(2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (64, [0, 1, 2, 3])])
def test_shortlist(size, expected):
    """By the larger of a label's two shifts: 0.1, 0.4, 0.0, 0.5."""
    flat = [0.0] * 4
    simulations = [simulation(flat, [0.1, -0.3, -0.6, 0.5]), simulation(flat, [0.1, 0.4, 0.0, -0.5])]
    identifier = TargetIdentifier(None, torch.eye(4), NAMES, ScanConfig(shortlist_size=size))
    assert identifier._shortlist(simulations) == expected


# Verification


@pytest.fixture
def race(monkeypatch):
    """Verify labels 0 to 3 with inversions whose objectives are given, round by round; the calls made."""
    calls = []

    def run(rounds, **settings):
        def invert(self, pixels, labels, *, start=None, target_pixels=None):
            objectives = rounds[len(calls)]
            calls.append((self.config.steps, self.config.batch_size, list(labels), list(start)))
            return [candidate(label, objectives[i]) for i, label in enumerate(labels)]

        monkeypatch.setattr(identification.TriggerInverter, "invert", invert)
        config = ScanConfig(
            **{"restarts": 2, "finalists": 2, "steps": (5, 7), "batch_size": 3, "looks": 1, **settings}
        )
        identifier = TargetIdentifier(None, torch.eye(4), NAMES, config)
        suspect = simulation([0.25] * 4, [0.0, 0.0, 1.0, 0.0])
        return identifier._verify(torch.zeros(1), [0, 1, 2, 3], "masked", suspect)

    run.calls = calls
    return run


FIRST = [8.0, 7.0, 5.0, 9.0, 8.0, 6.0, 5.0, 9.0, 4.0]


def test_verification_races(race):
    evidence = race([FIRST, [3.0, 2.0], [9.0, 9.0, 9.0, 2.8]])
    assert race.calls[0] == (5, 3, [0, 1, 2, 3, 0, 1, 2, 3, 2], [None] * 8 + [STILL])
    assert race.calls[1] == (7, 3, [2, 1], [STILL] * 2)
    assert race.calls[2] == (7, 3, [1, 1, 2, 2], [STILL] * 4)
    assert evidence.scores == {2: 2.8, 1: 2.0, 0: 8.0, 3: 9.0}
    assert (evidence.family, evidence.label, evidence.lead) == ("masked", 1, pytest.approx(0.4))
    assert [(one.label, one.objective) for one in evidence.candidates] == [(1, 2.0), (2, 2.8)]
    assert evidence.z_scores == robust_z(evidence.scores)


def test_the_first_stranger_behind_the_rivals_goes_on_too(race):
    """Labels 1 and 2 lead; label 0 is the best of those behind them, and none is kin of another."""
    evidence = race([FIRST, [3.0, 2.0, 7.0, 8.0], [9.0, 9.0, 9.0, 9.0, 2.5]], finalists=4, rivals=2)
    assert race.calls[1][2] == [2, 1, 0, 3]
    assert race.calls[2][2] == [1, 1, 2, 2, 0]
    assert evidence.scores == {0: 2.5, 1: 2.0, 2: 3.0, 3: 8.0}
    assert evidence.lead == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (2.0, Verdict.CLEAN),
        (2.9, Verdict.CLEAN),
        (3.0, Verdict.INCONCLUSIVE),
        (3.9, Verdict.INCONCLUSIVE),
        (4.0, Verdict.BACKDOORED),
        (20.0, Verdict.BACKDOORED),
    ],
)
def test_verdict_of_a_lead(race, second, verdict):
    rounds = [FIRST, [2.0, second], [30.0] * 4]
    evidence = race(rounds, suspicious={"masked": 1.0}, quiet={"masked": 0.5}, finalists=2)
    assert evidence.lead == pytest.approx(min(second, 8.0) / 2 - 1)
    assert evidence.verdict is verdict


BETWEEN = {"suspicious": {"masked": 1.0}, "quiet": {"masked": 0.5}}


def test_the_labels_race_again_while_the_lead_decides_nothing(race):
    """A second race finds a better trigger of label 2, which both races are then judged by."""
    first, second = [FIRST, [3.0, 2.0], [30.0] * 4], [FIRST, [2.2, 2.5], [30.0] * 4]
    evidence = race([*first, *second], looks=3, **BETWEEN)
    assert len(race.calls) == 6
    assert evidence.scores == {2: 2.2, 1: 2.0, 0: 8.0, 3: 9.0}
    assert [(one.label, one.objective) for one in evidence.candidates] == [(1, 2.0), (2, 2.2)]
    assert (evidence.lead, evidence.verdict) == (pytest.approx(0.1), Verdict.CLEAN)


def test_the_labels_race_so_often_at_most(race):
    evidence = race([FIRST, [3.0, 2.0], [30.0] * 4] * 2, looks=2, **BETWEEN)
    assert (len(race.calls), evidence.lead, evidence.verdict) == (6, pytest.approx(0.5), Verdict.INCONCLUSIVE)


# The whole scan


def scan(encoder, pixels, **settings):
    head = encoder.zero_shot_head(NAMES)
    return TargetIdentifier(encoder, head, NAMES, ScanConfig(**{**QUICK, **settings})).identify(pixels)


def test_scan(encoder, pixels):
    encoder.model.train()
    encoder.model.logit_scale.requires_grad_(False)
    weights = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    result = scan(encoder, pixels, finalists=3)

    assert (result.class_names, result.shortlist, result.images, result.seed) == (NAMES, [0, 1, 2, 3], 12, 0)
    assert result.seconds > 0
    clean = torch.bincount(predict(encoder, encoder.zero_shot_head(NAMES), pixels), minlength=4) / 12
    assert [one.kind for one in result.simulations] == ["patch", "full image"]
    for one in result.simulations:
        assert one.clean == pytest.approx(clean.tolist())
        read = predict(encoder, encoder.zero_shot_head(NAMES), pixels, one.trigger)
        assert one.adversarial == pytest.approx((torch.bincount(read, minlength=4) / 12).tolist())
    patch, full = (one.trigger for one in result.simulations)
    assert any(torch.equal(patch.mask, area[0]) for area in patch_areas(32, 0.029))
    assert full.delta.shape == (3, 32, 32) and full.delta.abs().max() <= 8 / 255
    for one, name in zip(result.evidence, ["masked", "additive"], strict=True):
        assert (one.family, set(one.scores), set(one.z_scores)) == (name, {0, 1, 2, 3}, {0, 1, 2, 3})
        assert len(one.candidates) == len({found.label for found in one.candidates}) == 3
        assert [found.trigger.kind for found in one.candidates] == [name] * 3
        assert [found.objective for found in one.candidates] == sorted(found.objective for found in one.candidates)
        assert all(one.scores[found.label] == found.objective for found in one.candidates)
        assert one.label == min(one.scores, key=one.scores.get)
    assert (result.verdict, result.target) == combine(result.evidence)

    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.model.state_dict().items())
    assert encoder.model.training
    assert [n for n, p in encoder.model.named_parameters() if not p.requires_grad] == ["logit_scale"]
    assert all(parameter.grad is None for parameter in encoder.model.parameters())


def test_the_seed_decides(encoder, pixels, tmp_path):
    texts = []
    for name, seed in [("first", 1), ("again", 1), ("other", 2)]:
        result = dataclasses.replace(scan(encoder, pixels, seed=seed), seconds=0.0, seed=0)
        result.save(tmp_path / name)
        texts.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_bytes_and_a_short_list(encoder, pixels):
    result = scan(encoder, (pixels * 255).byte(), shortlist_size=2, finalists=2)
    assert len(result.shortlist) == 2
    for one, simulated in zip(result.evidence, result.simulations, strict=True):
        assert set(one.scores) == {*result.shortlist, simulated.suspect}


@pytest.mark.parametrize("verdict", Verdict)
def test_verdict_and_target(encoder, pixels, verdict):
    bars = {
        Verdict.BACKDOORED: (-1, -1),
        Verdict.INCONCLUSIVE: (math.inf, -1),
        Verdict.CLEAN: (math.inf, math.inf),
    }[verdict]
    suspicious, quiet = (dict.fromkeys(("masked", "additive"), bar) for bar in bars)
    result = scan(encoder, pixels, suspicious=suspicious, quiet=quiet)
    assert result.verdict is verdict
    if verdict is Verdict.CLEAN:
        assert result.target is None and result.target_name is None
    else:
        leading = max(result.evidence, key=lambda evidence: evidence.lead)
        assert result.target == leading.label
        assert result.target_name == NAMES[leading.label]


class TopRight:
    """An encoder that sees nothing but the mean colour of a square near the top right corner."""

    device = torch.device("cpu")
    frozen = staticmethod(nullcontext)

    def embed_images(self, pixels):
        return normalize(pixels[..., 1:6, 26:31].mean((-1, -2)), dim=-1)


def test_the_simulated_patch_lies_where_it_shifts_labels_most():
    pixels = torch.tensor([0.6, 0.4, 0.3]).view(1, 3, 1, 1).repeat(8, 1, 32, 32)
    config = ScanConfig(simulation_steps=20, simulation_batch_size=2)
    found = TargetIdentifier(TopRight(), torch.eye(3), NAMES[:3], config).simulate(pixels, "masked")
    assert found.clean == [1, 0, 0]
    assert found.suspect in (1, 2) and max(found.shift) == 1
    assert torch.equal(found.trigger.mask, patch_areas(32, 0.029)[2, 0])


@pytest.mark.parametrize("name", ["masked", "additive"])
def test_the_seed_decides_the_simulation(encoder, pixels, name):
    patterns = []
    for seed in (1, 1, 2):
        identifier = TargetIdentifier(encoder, torch.eye(16), NAMES * 4, ScanConfig(seed=seed, simulation_steps=1))
        patterns.append(list(identifier.simulate(pixels, name).trigger.buffers())[-1])
    assert torch.equal(patterns[0], patterns[1])
    assert not torch.equal(patterns[0], patterns[2])


@pytest.mark.parametrize("name", ["masked", "additive"])
def test_the_simulation_moves_embeddings_away(victim, name):
    from hf_invertune.lab.drawings import CLASS_NAMES, draw

    encoder, pixels = DualEncoder(victim.model, victim.processor), draw(32, seed=31).pixels
    head = encoder.zero_shot_head(CLASS_NAMES)
    moved = []
    with encoder.frozen():
        home = encoder.embed_batches(iter([pixels]))
        for steps in (1, 15):
            config = ScanConfig(simulation_steps=steps, simulation_batch_size=8, epsilon=0.1, patch_share=0.1)
            trigger = TargetIdentifier(encoder, head, CLASS_NAMES, config).simulate(pixels, name).trigger
            moved.append(1 - (encoder.embed_batches(iter([trigger(pixels)])) * home).sum(1).mean().item())
    assert moved[1] > 1.3 * moved[0] > 0


def result_of(evidence):
    return ScanResult(Verdict.BACKDOORED, 1, NAMES, [], [], evidence, 0, 0.0, 0)


def test_triggers_of_a_label():
    first, second, other = candidate(1, 1.0), candidate(1, 2.0), candidate(2, 3.0)
    result = result_of([family(Verdict.CLEAN, 2, 0, [other, first]), family(Verdict.CLEAN, 1, 0, [second])])
    assert result.triggers(1) == [first, second]
    assert result.triggers(3) == []


def test_accomplices():
    """With a lead of 3, what is below twice the lowest score is nearer to it than to that of the first stranger."""
    best, rider, stranger = candidate(1, 1.0), candidate(0, 1.9), candidate(2, 2.1)
    riding = family(Verdict.BACKDOORED, 1, 3.0, [best, rider, stranger], {1: 1.0, 0: 1.9, 2: 2.1, 3: 4.0})
    assert result_of([riding]).accomplices(1) == [rider]
    assert result_of([riding]).accomplices(0) == []
    assert result_of([dataclasses.replace(riding, verdict=Verdict.INCONCLUSIVE)]).accomplices(1) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": (5,)}, r"`steps`: got \(5,\)"),
        ({"steps": (5, 0)}, "`steps`"),
        ({"steps": (5, 5, 5)}, "`steps`"),
        ({"finalists": 1}, "`finalists`"),
        ({"shortlist_size": 1}, "`shortlist_size`"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        ScanConfig(**settings)
