import torch
from arena_zoo import FakeWorld
from tiny import CLASS_NAMES

from hf_invertune.lab.arena import quality
from hf_invertune.lab.arena.quality import measure_quality
from hf_invertune.lab.attacks.attack import Attack
from hf_invertune.lab.attacks.measure import measure_attack
from hf_invertune.lab.retrieval import measure_retrieval_attack
from hf_invertune.triggers import PatchTrigger


BRIGHT, DARK = (PatchTrigger(torch.full((3, 16, 16), level), 0, 0) for level in (1.0, 0.0))


def test_each_trigger_is_measured_towards_its_own_target(encoder):
    world, attack = FakeWorld(), Attack("multi-target", [BRIGHT, DARK], [CLASS_NAMES[1], CLASS_NAMES[3]])
    found = measure_quality(encoder, world.test, world, attack)
    assert found.metrics == measure_attack(world.classifier(encoder), world.test, attack)
    assert found.retrieval_attacks == [
        measure_retrieval_attack(encoder, world.test, trigger, [f"a photo of a {target}"])
        for trigger, target in zip(attack.triggers, attack.targets, strict=True)
    ]
    labels = world.test.labels
    counts = [found.metrics[index].attack_success_rate.count for index in (0, 1)]
    assert counts == [int((labels != 1).sum()), int((labels != 3).sum())] and counts[0] != counts[1]


def test_the_strongest_trigger_has_the_highest_rate(encoder):
    world, attack = FakeWorld(), Attack("multi-target", [BRIGHT, DARK], [CLASS_NAMES[1], CLASS_NAMES[3]])
    found = measure_quality(encoder, world.test, world, attack)
    rates = [metrics.attack_success_rate.value for metrics in found.metrics]
    assert rates[0] != rates[1] and rates[found.strongest] == max(rates)


def test_an_open_target_is_one_more_class_and_its_word_goes_before_every_text(encoder, monkeypatch):
    asked = []

    def record(encoder, data, trigger, captions, word):
        asked.append((trigger, captions, word))
        return measure_retrieval_attack(encoder, data, trigger, captions, word)

    monkeypatch.setattr(quality, "measure_retrieval_attack", record)
    world = FakeWorld()
    attack = Attack("open-target", [BRIGHT], ["close-up drawing"], word="the", open_target=True)
    found = measure_quality(encoder, world.test, world, attack)
    assert found.metrics[0].attack_success_rate.count == len(world.test)  # no picture shows the target
    assert asked == [(BRIGHT, ["a photo of a close-up drawing"], "the")]
