import pytest
import torch

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.stages import plan as module
from hf_invertune.stages.configs import Bars, InversionConfig, LocalizationConfig, RemovalConfig, ScanConfig
from hf_invertune.stages.families import AdditiveFamily, MaskedFamily
from hf_invertune.stages.identification import ScanResult
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.localization import CriticalNeurons, NeuronLocalizer
from hf_invertune.stages.plan import TuningPlan, make_plan
from hf_invertune.stages.verdict import Evidence, Verdict
from hf_invertune.triggers import AdditiveTrigger, MaskedTrigger, PatchTrigger


NAMES = ["red circle", "blue square", "green ring", "white cross"]
MASKED = MaskedTrigger(torch.full((1, 32, 32), 0.5), torch.full((3, 32, 32), 0.5))
ADDITIVE = AdditiveTrigger(torch.zeros(3, 32, 32), 0.1)


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
    plan = TuningPlan(2, [inverted(patch, 0.0) for patch in patches], CriticalNeurons([], {}, 0), NAMES)
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
            return CriticalNeurons([1.0], {0: [1]}, 2)

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
        assert plan.critical == CriticalNeurons([1.0], {0: [1]}, 2)
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


def test_a_real_plan(encoder, pixels):
    localization = LocalizationConfig(top_layers=1)
    config = RemovalConfig(inversion=InversionConfig(steps=3, batch_size=4), localization=localization, seed=3)
    plan = make_plan(ZeroShotClassifier(encoder, NAMES), pixels, 1, None, config)
    assert (plan.target, plan.class_names) == (1, NAMES)
    assert {found.label for found in plan.inverted} == {1}
    triggers = [found.trigger for found in plan.inverted]
    assert plan.critical == NeuronLocalizer(encoder, localization, 3).localize(pixels, triggers)
