"""Audit reports whose figures are made up and agree with each other, as those of a real run do."""

import dataclasses

import torch

from hf_invertune.data.prompts import TEMPLATES
from hf_invertune.models.evaluation import Measurement, Metrics, Rate
from hf_invertune.report.content import Examples, Removal
from hf_invertune.report.report import AuditReport
from hf_invertune.stages.configs import RemovalConfig
from hf_invertune.stages.identification import ScanResult
from hf_invertune.stages.inputs import DataIdentity, Inputs, ModelIdentity
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.localization import CriticalNeurons
from hf_invertune.stages.simulation import Simulation
from hf_invertune.stages.verdict import Evidence, Verdict
from hf_invertune.triggers import AdditiveTrigger, BlendTrigger, MaskedTrigger
from hf_invertune.utils.seeds import stream


NAMES = [f"{colour} {shape}" for colour in ("red", "green", "blue") for shape in ("circle", "square", "ring")]
TARGET = 4
SIZE = 16
IMAGES = 200
CASES = {
    "scanned clean": ("scanned", Verdict.CLEAN),
    "scanned backdoored": ("scanned", Verdict.BACKDOORED),
    "unchanged clean": ("unchanged", Verdict.CLEAN),
    "unchanged inconclusive": ("unchanged", Verdict.INCONCLUSIVE),
    "cleaned": ("cleaned", Verdict.BACKDOORED),
    "reduced": ("reduced", Verdict.BACKDOORED),
    "not cleaned": ("not cleaned", Verdict.BACKDOORED),
}


def make_triggers(generator, objective=1.5):
    mask, pattern, delta = (torch.rand(channels, SIZE, SIZE, generator=generator) for channels in (1, 3, 3))
    triggers = MaskedTrigger(mask, pattern), AdditiveTrigger((delta - 0.5) / 16, 8 / 255), BlendTrigger(pattern, 0.12)
    found = [
        InvertedTrigger(TARGET, trigger.kind, trigger, objective, 0.01, float(trigger.coverage()))
        for trigger in triggers
    ]
    return [*found, dataclasses.replace(found[0], family="keyed", word="zebra")]


def make_shares(generator, count):
    """Shares of `IMAGES` pictures over labels, each in float32, as a scan counts them."""
    drawn = torch.randint(count, (IMAGES,), generator=generator)
    return (torch.bincount(drawn, minlength=count) / IMAGES).tolist()


def make_scan(generator, names, verdict, config, seed):
    count, suspect = len(names), verdict is not Verdict.CLEAN
    others = {k: 9.0 + float(torch.rand(1, generator=generator)) for k in range(count)}
    rival = min(others.keys() - {TARGET}, key=others.__getitem__)
    clean = make_shares(generator, count)
    simulations = [
        Simulation(kind, clean, make_shares(generator, count), candidate.trigger)
        for kind, candidate in zip(
            ("patch", "full image", "blended picture"), make_triggers(generator)[:3], strict=True
        )
    ]
    evidence = []
    for place, (family, bars) in enumerate(config.bars.items()):
        inconclusive = (bars.quiet + bars.suspicious) / 2
        lead = {Verdict.BACKDOORED: 5.0, Verdict.INCONCLUSIVE: inconclusive, Verdict.CLEAN: 0.01}[verdict]
        scores = others | {TARGET: others[rival] / (1 + lead)}
        found = [make_triggers(generator, scores[TARGET])[place]] if suspect else []
        evidence.append(Evidence(family, scores, rival, found))
    return ScanResult(
        verdict=verdict,
        target=TARGET if suspect else None,
        class_names=list(names),
        templates=list(TEMPLATES),
        config=config,
        seed=seed,
        simulations=simulations,
        shortlist=list(range(count)),
        evidence=evidence,
        images=IMAGES,
        seconds=12.5,
    )


def make_metrics(success, labelled, after=False):
    quality = {"clean_accuracy": Rate(113, 127)} if labelled else {"agreement": Rate(113 if after else 127, 127)}
    return Metrics(
        **quality,
        attack_success_rate=Rate(success, 109),
        attack_success_rate_all=Rate(success + 3, 127),
        target_rate=Rate(2, 109),
        poisoned_accuracy=Rate(min(91, 125 - success), 127) if labelled else None,
    )


def make_removal(generator, names, config, success, labelled):
    """What a tuning did, after which the first trigger still fools the model `success` times of 109."""
    inverted = make_triggers(generator)[:2]
    clean = torch.randint(256, (3, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    triggered = (inverted[0].trigger(clean / 255) * 255).round().to(torch.uint8)
    return Removal(
        target=TARGET,
        inverted=inverted,
        critical=CriticalNeurons([0.1, 0.1, 0.1, 0.1, 0.8, 0.9], {4: [1, 5], 5: [0, 7, 9]}, [64] * 6),
        measurements=[
            Measurement(
                f"inverted, {found.family}",
                make_metrics(before, labelled),
                make_metrics(after, labelled, after=True),
                found.trigger.digest(),
            )
            for found, before, after in zip(inverted, (107, 80), (success, 5), strict=True)
        ],
        second_scan=make_scan(generator, names, Verdict.CLEAN, config.scan, stream(config.seed, "second scan")),
        examples=Examples(clean, triggered, [0, 1, 2], [TARGET] * 3, [0, 1, 2], [0, 1, 2]),
        training=[
            *({"step": float(step), "loss": 3.0 / step, "loss_align": 2.0 / step} for step in (1, 2, 3)),
            {"step": 3.0, "eval_clean_accuracy": 0.9, "eval_attack_success_rate": float("nan")},
        ],
        held_out_sha256="dd" * 32,
        sha256="cc" * 32,
    )


def make_report(outcome="cleaned", verdict=Verdict.BACKDOORED, labelled=True, names=NAMES, seed=0):
    """An audit report as a run with this outcome leaves it."""
    generator = torch.Generator().manual_seed(seed)
    config, success = RemovalConfig(), {"cleaned": 1, "reduced": 24, "not cleaned": 84}.get(outcome)
    scan = make_scan(generator, names, verdict, config.scan, config.seed)
    scan.inputs = Inputs(
        ModelIdentity("org/suspicious-clip", "ab" * 20, "float32", 151277313, "aa" * 32),
        DataIdentity("pictures", 127, labelled, "bb" * 32, skipped=["broken.png: not an image"]),
    )
    return AuditReport(
        outcome=outcome,
        scan=scan,
        removal=None if success is None else make_removal(generator, names, config, success, labelled),
        config=config,
        seconds={} if success is None else {"tuning": 20.25, "proof": 4.0},
        created="2026-01-02T03:04:05+00:00",
    )


def same(one, other):
    """Equality of nested values, with tensors, triggers and NaN."""
    if isinstance(one, torch.nn.Module):
        scalars = all(getattr(one, name) == getattr(other, name) for name in one.scalars)
        return type(one) is type(other) and scalars and same(one.state_dict(), other.state_dict())
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and same(vars(one), vars(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other or (one != one and other != other)
