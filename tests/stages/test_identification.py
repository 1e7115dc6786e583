import dataclasses
from functools import partial

import pytest
import torch

from hf_invertune.errors import InputError
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.stages import race as races
from hf_invertune.stages.configs import Bars, GatheringConfig, InversionConfig, ScanConfig
from hf_invertune.stages.families import AdditiveFamily, BlendFamily, MaskedFamily, WindowFamily
from hf_invertune.stages.families.masked import patch_areas
from hf_invertune.stages.identification import ScanResult, TargetIdentifier
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.race import best_of_each_label
from hf_invertune.stages.simulation import Simulation
from hf_invertune.stages.verdict import Evidence, Verdict, conclude, judge, robust_z
from hf_invertune.triggers import AdditiveTrigger


NAMES = ["red circle", "blue square", "green ring", "white cross"]
UNGATHERED = GatheringConfig(families=())
QUICK = {
    "families": (MaskedFamily(), AdditiveFamily()),
    "gathering": UNGATHERED,
    "simulation_steps": 2,
    "simulation_batch_size": 4,
    "steps": (2, 2),
    "batch_size": 2,
    "looks": 1,
    "words": (),
}
STILL = AdditiveTrigger(torch.zeros(3, 2, 2), 0.1)
ALWAYS, NEVER = -1e12, 1e12


def candidate(label, objective):
    return InvertedTrigger(label, "masked", STILL, objective, 0.0, 0.0)


def simulation(clean, adversarial):
    return Simulation("patch", clean, adversarial, STILL)


class Strangers:
    """Four labels, none of them kin of another."""

    def __len__(self):
        return 4

    def kinship(self, label):
        return torch.eye(4)[label].tolist()

    def after(self, word):
        return self


def test_best_of_each_label():
    inverted = [candidate(2, 5.0), candidate(0, 4.0), candidate(2, 3.0), candidate(1, 9.0), candidate(0, 4.5)]
    best = best_of_each_label(inverted)
    assert [(one.label, one.objective) for one in best] == [(2, 3.0), (0, 4.0), (1, 9.0)]


# The shortlist


@pytest.mark.parametrize(("size", "expected"), [(2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (64, [0, 1, 2, 3])])
def test_shortlist(size, expected):
    """By the larger of a label's two shifts: 0.1, 0.4, 0.0, 0.5."""
    flat = [0.0] * 4
    simulations = [simulation(flat, [0.1, -0.3, -0.6, 0.5]), simulation(flat, [0.1, 0.4, 0.0, -0.5])]
    identifier = TargetIdentifier(Strangers(), ScanConfig(shortlist_size=size))
    assert identifier._shortlist(simulations) == expected


# The race


@pytest.fixture
def race(monkeypatch):
    """Race labels 0 to 3 with inversions whose objectives are given, round by round; the calls made."""
    calls = []

    def run(rounds, classifier=None, **settings):
        def invert(self, pixels, labels, *, start=()):
            objectives = rounds[len(calls)]
            calls.append((self.config.steps, self.config.batch_size, list(labels), list(start)))
            return [candidate(label, objectives[i]) for i, label in enumerate(labels)]

        monkeypatch.setattr(races.TriggerInverter, "invert", invert)
        small = {"restarts": 2, "finalists": 2, "steps": (5, 7), "batch_size": 3, "looks": 1}
        config = ScanConfig(**{"families": (MaskedFamily(),), **small, **settings})
        identifier = TargetIdentifier(classifier or Strangers(), config)
        suspect = simulation([0.25] * 4, [0.0, 0.0, 1.0, 0.0])
        return identifier._search(torch.zeros(1), [0, 1, 2, 3], config.families[0], suspect)

    run.calls = calls
    return run


FIRST = [8.0, 7.0, 5.0, 9.0, 8.0, 6.0, 5.0, 9.0, 4.0]


def test_the_labels_race(race):
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


BETWEEN = {"masked": Bars(0.5, 1.0)}


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
    evidence = race(rounds, bars=BETWEEN, finalists=2)
    assert evidence.lead == pytest.approx(min(second, 8.0) / 2 - 1)
    assert judge(evidence.lead, BETWEEN["masked"]) is verdict


def test_the_labels_race_again_while_the_lead_decides_nothing(race):
    """A second race finds a better trigger of label 2, which both races are then judged by."""
    first, second = [FIRST, [3.0, 2.0], [30.0] * 4], [FIRST, [2.2, 2.5], [30.0] * 4]
    evidence = race([*first, *second], looks=3, bars=BETWEEN)
    assert len(race.calls) == 6
    assert evidence.scores == {2: 2.2, 1: 2.0, 0: 8.0, 3: 9.0}
    assert [(one.label, one.objective) for one in evidence.candidates] == [(1, 2.0), (2, 2.2)]
    assert evidence.lead == pytest.approx(0.1)


def test_the_labels_race_so_often_at_most(race):
    evidence = race([FIRST, [3.0, 2.0], [30.0] * 4] * 2, looks=2, bars=BETWEEN)
    assert (len(race.calls), evidence.lead) == (6, pytest.approx(0.5))


# The race at one budget


@pytest.fixture
def blends(race, monkeypatch):
    """The race of the blends, each as good on other pictures as where it was learnt."""
    monkeypatch.setattr(races, "held_out", lambda classifier, inverted, pixels: inverted.objective)
    fixed = InversionConfig(steps=6, batch_size=5)
    return partial(race, families=(BlendFamily(),), fixed=fixed, fixed_restarts=2)


ONCE = [8.0, 7.0, 5.0, 9.0, 8.0, 6.0, 5.5, 9.0]


def test_blends_race_in_one_round(blends, race):
    evidence = blends([ONCE], finalists=3)
    assert race.calls == [(6, 5, [0, 1, 2, 3, 0, 1, 2, 3], [])]
    assert evidence.scores == {2: 5.0, 1: 6.0, 0: 8.0, 3: 9.0}
    assert (evidence.family, evidence.label, evidence.lead) == ("blend", 2, pytest.approx(0.2))
    assert [(one.label, one.objective) for one in evidence.candidates] == [(2, 5.0), (1, 6.0), (0, 8.0)]


def test_after_a_trial_of_all_starts_the_best_of_each_finalist_goes_on(blends, race):
    """Label 3 gets better than what it is behind at the trial, but it does not take part any more."""
    evidence = blends([ONCE, [3.0, 7.0]], finalists=2, fixed_trial=2)
    assert race.calls == [(2, 5, [0, 1, 2, 3, 0, 1, 2, 3], []), (4, 5, [2, 1], [STILL] * 2)]
    assert evidence.scores == {2: 3.0, 1: 6.0, 0: 8.0, 3: 9.0}


def test_blends_race_again_while_the_lead_decides_nothing(blends, race):
    evidence = blends([ONCE, [9.0, 4.0, *ONCE[2:]], ONCE], looks=3, bars={"blend": Bars(0.1, 0.25)})
    assert len(race.calls) == 2
    assert evidence.scores == {1: 4.0, 2: 5.0, 0: 8.0, 3: 9.0}
    assert evidence.lead == pytest.approx(0.25)


class Relatives(Strangers):
    """The same, but that label 1 is kin of label 2."""

    def __init__(self, kinship):
        self.cosine = kinship

    def kinship(self, label):
        return [0.0, self.cosine, 1.0, 0.0]


@pytest.mark.parametrize(("kinship", "rival"), [(0.5, 1), (0.9, 0)])
def test_only_synonyms_are_kin_of_a_blend(blends, kinship, rival):
    assert blends([ONCE], Relatives(kinship)).rival == rival


def test_kin_of_what_is_refined_are_passed_over(race):
    assert race([FIRST, [2.0, 2.5], [30.0] * 4], Relatives(0.5)).rival == 0


# The whole scan


def scan(encoder, pixels, seed=0, **settings):
    classifier = ZeroShotClassifier(encoder, NAMES)
    return TargetIdentifier(classifier, ScanConfig(**{**QUICK, **settings}), seed).identify(pixels)


def test_scan(encoder, pixels):
    encoder.model.train()
    encoder.model.logit_scale.requires_grad_(False)
    weights = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    result = scan(encoder, pixels, finalists=3)

    assert (result.class_names, result.shortlist, result.images, result.seed) == (NAMES, [0, 1, 2, 3], 12, 0)
    assert result.seconds > 0
    classifier = ZeroShotClassifier(encoder, NAMES)
    assert [one.kind for one in result.simulations] == ["patch", "full image"]
    for one in result.simulations:
        assert one.clean == pytest.approx(classifier.shares(encoder.embed_pixels(pixels)))
        assert one.adversarial == pytest.approx(classifier.shares(encoder.embed_pixels(pixels, one.trigger)))
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
    assert (result.verdict, result.target) == conclude([], result.evidence, result.config)

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
        Verdict.BACKDOORED: Bars(ALWAYS, ALWAYS),
        Verdict.INCONCLUSIVE: Bars(ALWAYS, NEVER),
        Verdict.CLEAN: Bars(NEVER, NEVER),
    }[verdict]
    result = scan(encoder, pixels, bars=dict.fromkeys(("masked", "additive"), bars))
    assert result.verdict is verdict
    if verdict is Verdict.CLEAN:
        assert result.target is None and result.target_name is None
    else:
        leading = max(result.evidence, key=lambda evidence: evidence.lead)
        assert result.target == leading.label
        assert result.target_name == NAMES[leading.label]


def result_of(*evidence, bars=ALWAYS):
    config = ScanConfig(bars=dict.fromkeys(("masked", "additive", "blend"), Bars(ALWAYS, bars)))
    return ScanResult(Verdict.BACKDOORED, 1, NAMES, [], config, 0, [], [], list(evidence), 0, 0.0)


def test_triggers_of_a_label():
    first, second, other = candidate(1, 1.0), candidate(1, 2.0), candidate(2, 3.0)
    scores = {1: 1.0, 2: 2.0}
    result = result_of(
        Evidence("masked", scores, 2, [other, first]),
        Evidence("additive", scores, 2, [second]),
    )
    assert result.triggers(1) == [first, second]
    assert result.triggers(3) == []


def test_suspects_are_the_best_of_each_race_that_is_not_clean():
    first, second, other = candidate(1, 1.0), candidate(1, 2.0), candidate(2, 1.0)
    evidence = [
        Evidence("masked", {1: 1.0, 2: 2.0}, 2, [first, second]),  # leads by 1
        Evidence("additive", {2: 1.0, 1: 1.5}, 1, [other]),  # by a half
        Evidence("blend", {3: 1.0, 1: 9.0}, 1, []),
    ]

    def suspects(*bars):
        scan = result_of(*evidence)
        scan.config.bars = dict(zip(("masked", "additive", "blend"), bars, strict=True))
        return scan.suspects

    assert suspects(Bars(0, 0), Bars(0, NEVER), Bars(0, 0)) == [first, other]
    assert suspects(Bars(0, 0), Bars(0.6, 0.6), Bars(0, 0)) == [first]
    assert suspects(Bars(2, 2), Bars(2, 2), Bars(0, 0)) == []


def test_accomplices():
    """With a lead of 3, what is below twice the lowest score is nearer to it than to that of the first stranger."""
    best, rider, stranger = candidate(1, 1.0), candidate(0, 1.9), candidate(2, 2.1)
    riding = Evidence("masked", {1: 1.0, 0: 1.9, 2: 2.1, 3: 4.0}, 3, [best, rider, stranger])
    assert result_of(riding).accomplices(1) == [rider]
    assert result_of(riding).accomplices(0) == []
    assert result_of(riding, bars=NEVER).accomplices(1) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": (5,)}, "`steps`: got .5"),
        ({"steps": (5, 0)}, "`steps`"),
        ({"steps": (5, 5, 5)}, "`steps`"),
        ({"finalists": 1}, "`finalists`"),
        ({"shortlist_size": 1}, "`shortlist_size`"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        ScanConfig(**settings)


def test_families_need_bars_and_names_of_their_own():
    with pytest.raises(InputError, match="`bars`: there are none for window"):
        ScanConfig(families=(MaskedFamily(), WindowFamily()))
    with pytest.raises(InputError, match="`families`: got .'masked', 'masked'"):
        ScanConfig(families=(MaskedFamily(), MaskedFamily(mask_weight=1.0)))
    with pytest.raises(InputError, match="`quiet`: got 2.*must not exceed `suspicious`"):
        Bars(2.0, 1.0)


def test_a_family_is_looked_up_by_its_kind():
    assert ScanConfig(families=(AdditiveFamily(epsilon=0.1),)).family("additive").epsilon == 0.1
    gathering = GatheringConfig(families=(WindowFamily(side=0.3),))
    assert ScanConfig(gathering=gathering).family("window").side == 0.3
