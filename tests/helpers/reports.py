"""Audit reports whose figures are made up and agree with each other, as those of a real run do."""

import dataclasses

import torch

from hf_invertune.models.evaluation import Metrics, Rate
from hf_invertune.report.audit import missed_bars
from hf_invertune.report.report import AuditReport, DataIdentity, Examples, Measurement, ModelIdentity
from hf_invertune.stages.identification import FamilyEvidence, ScanConfig, ScanResult, Simulation, Verdict, robust_z
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.localization import CriticalNeurons
from hf_invertune.triggers import AdditiveTrigger, MaskedTrigger
from hf_invertune.tuning.arguments import RemovalConfig


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
    "not cleaned": ("not cleaned", Verdict.BACKDOORED),
}
BARS = ScanConfig()
LEADS = {
    family: {
        Verdict.BACKDOORED: 5.0,
        Verdict.INCONCLUSIVE: (BARS.quiet[family] + BARS.suspicious[family]) / 2,
        Verdict.CLEAN: 0.01,
    }
    for family in ("masked", "additive")
}


def make_triggers(generator, names, objective=1.5):
    mask, pattern, delta = (torch.rand(channels, SIZE, SIZE, generator=generator) for channels in (1, 3, 3))
    masked, additive = MaskedTrigger(mask, pattern), AdditiveTrigger((delta - 0.5) / 16, 8 / 255)
    coverages = float(mask.mean()), float(additive.delta.abs().mean() / additive.epsilon)
    return [
        InvertedTrigger(TARGET, names[TARGET], trigger, objective, 0.01, coverage, history=[3.0, 2.0, objective])
        for trigger, coverage in zip((masked, additive), coverages, strict=True)
    ]


def make_shares(generator, count):
    """Shares of `IMAGES` pictures over labels, each in float32, as a scan counts them."""
    drawn = torch.randint(count, (IMAGES,), generator=generator)
    return (torch.bincount(drawn, minlength=count) / IMAGES).tolist()


def make_scan(generator, names, verdict, seed):
    count, suspect = len(names), verdict is not Verdict.CLEAN
    others = {k: 9.0 + float(torch.rand(1, generator=generator)) for k in range(count)}
    nearest = min(score for label, score in others.items() if label != TARGET)
    clean = make_shares(generator, count)
    simulations = [
        Simulation(kind, clean, make_shares(generator, count), candidate.trigger)
        for kind, candidate in zip(("patch", "full image"), make_triggers(generator, names), strict=True)
    ]
    evidence = []
    for place, family in enumerate(LEADS):
        scores = others | {TARGET: nearest / (1 + LEADS[family][verdict])}
        lead = (nearest - scores[TARGET]) / scores[TARGET]
        found = [make_triggers(generator, names, scores[TARGET])[place]] if suspect else []
        evidence.append(FamilyEvidence(family, scores, robust_z(scores), TARGET, lead, verdict, found))
    target = TARGET if suspect else None
    return ScanResult(verdict, target, names, simulations, list(range(count)), evidence, IMAGES, 12.5, seed)


def make_metrics(success, labelled, after=False):
    quality = {"clean_accuracy": Rate(113, 127)} if labelled else {"agreement": Rate(113 if after else 127, 127)}
    if success is None:
        return Metrics(**quality)
    return Metrics(
        **quality,
        attack_success_rate=Rate(success, 109),
        attack_success_rate_all=Rate(success + 3, 127),
        target_rate=Rate(2, 109),
        poisoned_accuracy=Rate(min(91, 125 - success), 127) if labelled else None,
    )


def make_report(outcome="cleaned", verdict=Verdict.BACKDOORED, labelled=True, names=NAMES, seed=0):
    """An audit report as a run with this outcome leaves it."""
    generator = torch.Generator().manual_seed(seed)
    config, tuned = RemovalConfig(), outcome in ("cleaned", "not cleaned")
    scan = make_scan(generator, names, verdict, config.scan.seed)
    after = {"scanned": None, "unchanged": "aa" * 32}.get(outcome, "cc" * 32)
    before = make_metrics(107 if scan.target is not None else None, labelled)
    settings = dataclasses.asdict(config)
    report = AuditReport(
        verdict=verdict,
        outcome=outcome,
        model=ModelIdentity("org/suspicious-clip", "ab" * 20, "float32", 151277313, "aa" * 32, after),
        data=DataIdentity("pictures", IMAGES, 127, labelled, "bb" * 32, skipped=["broken.png: not an image"]),
        scan=scan,
        target=scan.target,
        target_name=scan.target_name,
        measurements=[Measurement("none" if scan.target is None else "inverted, masked", before)],
        settings={"scan": settings["scan"]} if outcome == "scanned" else {**settings, "templates": ["{}", "a {}."]},
        seconds={"scan": 12.5},
        created="2026-01-02T03:04:05+00:00",
    )
    if outcome == "unchanged":
        report.reasons = [f"The scan's verdict is {verdict}, and no `target` was named."]
    if tuned:
        report.inverted = make_triggers(generator, names)
        report.trigger = report.inverted[0].trigger
        report.verification = make_scan(generator, names, Verdict.CLEAN, config.scan.seed + 1)
        report.critical = CriticalNeurons([0.1, 0.1, 0.1, 0.1, 0.8, 0.9], {4: [1, 5], 5: [0, 7, 9]}, 64)
        clean = torch.randint(256, (3, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        triggered = (report.trigger(clean / 255) * 255).round().to(torch.uint8)
        report.examples = Examples(clean, triggered, names[:3], [names[TARGET]] * 3, names[:3], names[:3])
        report.measurements[0].after = make_metrics(1 if outcome == "cleaned" else 24, labelled, after=True)
        report.measurements.append(
            Measurement("inverted, additive", make_metrics(80, labelled), make_metrics(5, labelled, after=True))
        )
        digests = [inverted.trigger.digest() for inverted in report.inverted]
        for measurement, digest in zip(report.measurements, digests, strict=True):
            measurement.trigger_sha256 = digest
        report.trigger_sha256 = digests[0]
        report.data.held_out_sha256 = "dd" * 32
        report.training = [{"step": float(s), "loss": 3.0 / s, "loss_align": 2.0 / s} for s in (1, 2, 3)]
        report.training.append({"step": 3.0, "eval_clean_accuracy": 0.9, "eval_attack_success_rate": float("nan")})
        report.reasons = missed_bars(report, config)
    return report


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
