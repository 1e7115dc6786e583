"""Min-max: gathered triggers are learnt on while the model is tuned."""

import pytest
import torch
from tiny_plan import EASY, HARD, make_trainer, removal_config, scan_config, tiny_plan
from torch.nn.functional import normalize

from hf_invertune.models.loading import load_model
from hf_invertune.stages.configs import Bars, GatheringConfig
from hf_invertune.stages.families import WaveFamily, WindowFamily
from hf_invertune.stages.plan import Pool, TuningPlan
from hf_invertune.tuning import pursuit
from hf_invertune.tuning.pursuit import Chase


FAMILY = WindowFamily(side=0.25)


def make_pool(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    triggers = FAMILY.trigger(FAMILY.parameters(count, torch.Size((32, 32)), generator, ())).split()
    return Pool(FAMILY, triggers, normalize(torch.randn(count, 16, generator=generator), dim=-1))


def plan_with_pool():
    plan = tiny_plan()
    plan.pools = [make_pool()]
    return plan


def digests(plan):
    return [trigger.digest() for trigger in plan.pools[0].triggers]


def test_a_step_pulls_towards_the_direction(encoder, pixels):
    pool = make_pool()
    chase = Chase(pool, torch.Size((32, 32)), torch.device("cpu"))

    def pull():
        with torch.no_grad():
            embeddings = encoder.embed_images(chase.trigger()(pixels.unsqueeze(0)))
        return (embeddings * pool.directions.unsqueeze(1)).sum(-1).mean(1)

    before = pull()
    for _ in range(10):
        chase.step(encoder, pixels)
    assert (pull() > before).all()
    assert all(parameter.grad is None for parameter in encoder.model.parameters())
    for trigger, learnt in zip(pool.triggers, chase.trigger().split(), strict=True):
        assert trigger.digest() == learnt.digest()  # the plan knows where they are


def test_a_chase_goes_on_where_it_was(encoder, pixels, tmp_path):
    """With the variables, which its triggers do not tell to the last bit, and what the optimiser knows."""

    def chase_on(pool, steps):
        chase = Chase(pool, torch.Size((32, 32)), torch.device("cpu"))
        for _ in range(steps):
            chase.step(encoder, pixels)
        return [trigger.digest() for trigger in pool.triggers]

    undisturbed = chase_on(make_pool(), 5)
    plan = tiny_plan()
    plan.pools = [make_pool()]
    chase_on(plan.pools[0], 3)
    plan.save(tmp_path)
    assert chase_on(TuningPlan.load(tmp_path).pools[0], 2) == undisturbed


def test_triggers_are_chased_in_parts_that_fit(encoder, pixels, monkeypatch):
    """With the result of all at once."""
    digests = []
    for fit in (1_000, len(pixels), 1):
        monkeypatch.setattr(pursuit, "pictures_at_once", lambda encoder, size, fit=fit: fit)
        chase = Chase(pool := make_pool(), torch.Size((32, 32)), torch.device("cpu"))
        for _ in range(3):
            chase.step(encoder, pixels)
        digests.append([trigger.pattern for trigger in pool.triggers])
    for whole, *parts in zip(*digests, strict=True):
        for part in parts:
            torch.testing.assert_close(part, whole, rtol=0, atol=1e-3)


def test_the_second_half_starts_anew():
    pool = make_pool()
    chase = Chase(pool, torch.Size((32, 32)), torch.device("cpu"))
    before = [value.detach().clone() for value in chase.parameters]
    chase.renew(torch.Generator().manual_seed(9))
    for old, new in zip(before, chase.parameters, strict=True):
        assert torch.equal(new[:2], old[:2]) and new.requires_grad
    assert not torch.equal(chase.parameters[1][2:], before[1][2:])


def test_waves_are_chased_too(monkeypatch):
    """Their tensors say nothing of the pictures' size, which the chase tells the family."""
    sizes, family, parameters = [], WaveFamily(highest=3), WaveFamily.parameters
    monkeypatch.setattr(WaveFamily, "parameters", lambda s, *given: sizes.append(given[1]) or parameters(s, *given))
    chase = Chase(Pool(family, family.probes()[:4], torch.eye(4, 16)), torch.Size((32, 24)), torch.device("cpu"))
    kept = [trigger.wave for trigger in chase.pool.triggers]
    chase.renew(torch.Generator().manual_seed(9))
    assert sizes == [(32, 24)] * 2
    for old, new in zip(kept[:2], chase.trigger().split(), strict=False):
        torch.testing.assert_close(new.wave, old)


def test_triggers_move_with_every_update(tiny, tmp_path):
    plan = plan_with_pool()
    first, seen = digests(plan), []
    trainer = make_trainer(tiny, tmp_path, plan=plan, max_steps=3)
    compute = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: seen.append(digests(trainer.plan)) or compute(*args, **kwargs)
    trainer.train()
    assert len(seen) == 3 and first not in seen and seen[0] != seen[1] != seen[2]


def test_a_plan_without_pools_is_tuned_as_ever(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pursuit, "Chase", None)
    make_trainer(tiny, tmp_path, plan=tiny_plan(), max_steps=1).train()


def search(tiny, folder, every, bars):
    """Tune by a plan without pools, for five updates; the trainer."""
    gathering = GatheringConfig((WindowFamily(),), starts=2, steps=1, batch_size=2, bars={"window": bars})
    config = removal_config(scan=scan_config(gathering=gathering))
    trainer = make_trainer(tiny, folder, plan=tiny_plan(), max_steps=5, search_steps=every, config=config)
    trainer.train()
    return trainer


def test_places_are_searched_anew(tiny, tmp_path, monkeypatch):
    """Each time from other random values; what is found is learnt on from then on."""
    seeds, chased = [], []
    gather, step = pursuit.Gatherer.gather, Chase.step
    monkeypatch.setattr(pursuit.Gatherer, "gather", lambda s, pixels: seeds.append(s.seed) or gather(s, pixels))
    monkeypatch.setattr(Chase, "step", lambda s, *given: chased.append(s) or step(s, *given))
    trainer = search(tiny, tmp_path, every=2, bars=Bars(EASY, EASY))
    assert len(seeds) == 2 and seeds[0] != seeds[1]
    assert [pool.family.side for pool in trainer.plan.pools] == [wide.side for wide in WindowFamily().wider()] * 2
    assert [sum(chase.pool is pool for chase in chased) for pool in trainer.plan.pools] == [3, 3, 1, 1]


@pytest.mark.parametrize(("every", "bars"), [(0, Bars(EASY, EASY)), (2, Bars(HARD, HARD))])
def test_no_search_or_nothing_planted_gives_no_pools(tiny, tmp_path, every, bars):
    assert search(tiny, tmp_path, every, bars).plan.pools == []


def test_a_checkpoint_keeps_the_pools(tiny, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    trainer = make_trainer(tiny, tmp_path, plan=plan_with_pool(), **settings)
    trainer.train()
    kept = TuningPlan.load(tmp_path / "checkpoint-2")
    assert digests(kept) == digests(trainer.plan) and kept.pools[0].family == FAMILY
    torch.testing.assert_close(kept.pools[0].directions, trainer.plan.pools[0].directions)


def test_the_same_run_gives_the_same_triggers(tiny_folder, tmp_path):
    found = []
    for run in ("one", "other"):
        trainer = make_trainer(load_model(tiny_folder, device="cpu"), tmp_path / run, plan=plan_with_pool())
        trainer.train()
        found.append(digests(trainer.plan))
    assert found[0] == found[1]
