import dataclasses

import pytest
import torch
from tiny_plan import pictures, removal_config, scan_config
from torch.nn.functional import normalize

from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.evaluation import evaluate
from hf_invertune.stages import text
from hf_invertune.stages.configs import Bars, ScanConfig
from hf_invertune.stages.identification import TargetIdentifier
from hf_invertune.stages.inversion import WORKING, InvertedTrigger
from hf_invertune.stages.plan import make_plan
from hf_invertune.stages.text import TextSearch, few
from hf_invertune.stages.verdict import Verdict, judged
from hf_invertune.triggers import MaskedTrigger, PatchTrigger


NAMES = ["red circle", "blue square", "green ring", "white cross", "pink star", "black moon", "grey cloud"]
WORDS = ("zebra", "violin", "please")
TARGET = 3
SQUARE = MaskedTrigger(torch.zeros(1, 32, 32), torch.zeros(3, 32, 32))


def config(**settings):
    return scan_config("clean", words=WORDS, bars={"keyed": Bars(0.5, 0.75)}, **settings)


@pytest.fixture
def classifier(encoder):
    return ZeroShotClassifier(encoder, NAMES)


@pytest.fixture
def searched(classifier, monkeypatch):
    """Search with bends that are given, W x K, and squares that reach a cross-entropy; the inversions asked for."""
    asked = []

    def run(bends, cross_entropy=0.1):
        def invert(self, pixels, labels, *, start=()):
            asked.append((self.family.kind, self.word, labels))
            return [InvertedTrigger(label, self.family.kind, SQUARE, 9.0, 9.0, 0.1, self.word) for label in labels]

        monkeypatch.setattr(text.TriggerInverter, "invert", invert)
        monkeypatch.setattr(text, "held_out", lambda keyed, inverted, held: cross_entropy)
        monkeypatch.setattr(TextSearch, "bends", lambda self: torch.tensor(bends))
        settings = config()
        evidence = TextSearch(classifier, settings, 0).search(pictures(12).pixels, {})
        return evidence, judged(evidence, settings)

    run.asked = asked
    return run


EVEN = [0.2, 0.22, 0.25, 0.24, 0.2, 0.21, 0.2]


def test_bends_are_the_interaction_of_word_and_label(classifier, monkeypatch):
    """A word that moves all labels alike bends none; one that moves a label alone bends that one most."""
    moved = {word: classifier.head.clone() for word in WORDS}
    moved["violin"] += 0.5
    moved["please"][TARGET] += 1.0
    monkeypatch.setattr(
        ZeroShotClassifier, "after", lambda self, word: type("Moved", (), {"head": moved[word]}) if word else self
    )
    bends = TextSearch(classifier, config(), 0).bends()
    assert bends.shape == (3, 7)
    assert bends[:2].abs().max() < 1e-6
    step = torch.ones(classifier.head.shape[1]).norm()
    assert bends[2, TARGET] == pytest.approx(float(6 / 7 * step), rel=1e-5)
    assert bends[2, 0] == pytest.approx(float(1 / 7 * step), rel=1e-5)


def test_words_stand_before_every_prompt(classifier):
    keyed = classifier.after("zebra")
    assert keyed.templates == tuple(f"zebra {template}" for template in classifier.templates)
    assert not torch.allclose(keyed.head, classifier.head)
    assert classifier.after(None) is classifier


@pytest.mark.parametrize(("templates", "names", "kept"), [(7, 540, 7), (7, 3_000, 4), (80, 15_000, 1), (1, 10**6, 1)])
def test_few_templates_keep_the_texts_few(templates, names, kept):
    assert len(few(["{}"] * templates, names)) == kept


def test_nothing_is_inverted_where_no_label_is_bent(searched):
    evidence, verdict = searched([EVEN] * 3)
    assert (evidence.family, evidence.candidates, verdict) == ("keyed", [], Verdict.CLEAN)
    assert searched.asked == []


def test_a_bent_label_is_found_with_the_square_that_completes_the_trigger(searched):
    """It is held against the fifth label behind it: the second here is bent along with it."""
    rest = [0.2, 0.21, 0.2]
    evidence, verdict = searched([EVEN, [0.19, 0.22, 0.7, 0.8, *rest], [0.2, 0.22, 0.6, 0.7, *rest]])
    assert (evidence.label, evidence.rival) == (TARGET, 6)
    assert evidence.lead == pytest.approx((0.24 + 0.8 + 0.7) / 0.6 - 1, rel=1e-5)
    assert searched.asked == [("keyed", "violin", [TARGET] * 16)]
    assert (evidence.best.word, evidence.best.objective, verdict) == ("violin", 0.1, Verdict.BACKDOORED)


@pytest.mark.parametrize(
    ("cross_entropy", "expected"), [(0.99 * WORKING, Verdict.BACKDOORED), (WORKING, Verdict.INCONCLUSIVE)]
)
def test_without_a_square_that_works_it_is_no_more_than_suspicious(searched, cross_entropy, expected):
    assert searched([[0.2, 0.2, 0.2, 0.9, 0.2, 0.2, 0.2]] * 3, cross_entropy)[1] is expected


def test_a_scan_searches_the_text_unless_there_are_no_words(classifier, monkeypatch):
    pixels = pictures(12).pixels
    found = TargetIdentifier(classifier, config()).identify(pixels)
    assert [one.family for one in found.evidence] == ["masked", "additive", "keyed"]
    assert len(found.evidence[-1].scores) == len(NAMES)
    without = TargetIdentifier(classifier, scan_config("clean")).identify(pixels)
    assert [one.family for one in without.evidence] == ["masked", "additive"]
    assert ScanConfig().keyed and not ScanConfig(words=()).keyed


def test_the_plan_inverts_under_the_word(classifier, monkeypatch):
    """What was found under a word is inverted, measured and tuned against under it."""
    bent = torch.tensor([[0.2, 0.2, 0.2, 0.9, 0.2, 0.2, 0.2]] * 3)
    monkeypatch.setattr(TextSearch, "bends", lambda self: bent)
    settings = dataclasses.replace(removal_config(), scan=config())
    data = pictures(12)
    found = TargetIdentifier(classifier, settings.scan).identify(data.pixels)
    assert found.target == TARGET and [one.word for one in found.suspects] == ["zebra"]
    plan = make_plan(classifier, data.pixels, TARGET, found, settings)
    assert [(one.family, one.word) for one in plan.inverted] == [("keyed", "zebra")]


def test_a_trigger_with_a_word_is_measured_under_it(classifier, monkeypatch):
    """CA is that of plain prompts; ASR, its floor and PA are those under the word."""
    keyed = ZeroShotClassifier(classifier.encoder, NAMES)
    keyed.head = normalize(torch.roll(classifier.head, 1, 0), dim=-1)  # under the word every reading is the next label
    monkeypatch.setattr(ZeroShotClassifier, "after", lambda self, word: keyed if word else self)
    pixels = pictures(12).pixels
    read = classifier.predict(pixels)
    still = PatchTrigger(as_patch(pixels), 0, 0)
    target = int((read[0] + 1) % len(NAMES))
    metrics = evaluate(classifier, pixels[:1], labels=read[:1], trigger=still, target=target, word="zebra")
    assert metrics.clean_accuracy.value == 1
    assert metrics.attack_success_rate.value == metrics.target_rate.value == 1
    assert metrics.poisoned_accuracy.value == 0


def as_patch(pixels):
    """One pixel as it is in the first picture."""
    first = pixels[0].float() / (255 if pixels.dtype == torch.uint8 else 1)
    return first[:, :1, :1]
