"""Rows of the arena with figures that a table's reader can follow."""

from hf_invertune.lab.arena.cost import Cost
from hf_invertune.lab.arena.quality import Quality
from hf_invertune.lab.arena.rows import Row
from hf_invertune.lab.retrieval import Retrieval, RetrievalAttack
from hf_invertune.models.evaluation import Metrics, Rate


def quality(ca, *attacks):
    """Of (ASR, floor, PA) in percent, one for each trigger; PA stands for retrieval as well."""
    by_k = {1: Rate(50, 100), 5: Rate(70, 100), 10: Rate(80, 100)}
    metrics = [
        Metrics(Rate(ca, 100), None, Rate(asr, 100), Rate(asr, 100), Rate(floor, 100), Rate(pa, 100))
        for asr, floor, pa in attacks
    ]
    reached = [RetrievalAttack({5: Rate(pa, 100)}, {5: Rate(floor, 100)}) for _, floor, pa in attacks]
    return Quality(metrics or [Metrics(Rate(ca, 100))], Retrieval(by_k, by_k), reached)


def row(victim, defence, seed=0, after=None, **fields):
    attack = None if victim.startswith("clean") else victim.rpartition("-")[0]
    before = quality(90, *[(98, 1, 5)] * bool(attack))
    known = {
        "key": f"{victim} {defence} {seed}",
        "world": "drawings",
        "victim": victim,
        "attack": attack,
        "targets": ["red ring"] if attack else [],
        "victim_seed": int(victim.rpartition("-")[2]),
        "recipe": "r",
        "sha256": victim,
        "defence": defence,
        "revision": 0,
        "seed": seed,
        "learning_rate": 1e-3 if defence == "shake" else None,
        "images": 500,
        "test_images": 100,
        "status": "done" if after else "failed",
        "before": before,
        "after": after,
        "cost": Cost(1000, 500, 12.5, 64 << 20) if after else None,
    }
    return Row(**{**known, **fields})
