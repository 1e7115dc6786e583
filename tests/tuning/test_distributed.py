import re
from pathlib import Path

import pytest
from forked import run_two_ranks


TESTS = Path(__file__).parents[1] / "helpers"
AGREEMENT = """
import sys
sys.path[:0] = [sys.argv[3], sys.argv[4]]
import accelerate
import torch
from tiny_plan import INVERSION, make_trainer, tiny_plan
from test_pursuit import make_pool
from hf_invertune.stages.plan import TuningPlan
from hf_invertune.tuning.callbacks import ReinversionCallback
from hf_invertune.models.loading import load_model

source = load_model(sys.argv[1], device="cpu")
callbacks = [ReinversionCallback(INVERSION, lead=1e9)]
settings = {"per_device_train_batch_size": 4, "reinversion_steps": 2, "max_steps": 3, "learning_rate": 0.01}
settings |= {"save_strategy": "steps", "save_steps": 3}
plan = tiny_plan()
plan.pools = [make_pool(5)]
before = [trigger.digest() for trigger in plan.pools[0].triggers]
trainer = make_trainer(source, sys.argv[2], plan=plan, callbacks=callbacks, **settings)
accelerator = trainer.accelerator
assert accelerator.num_processes == 2, accelerator.num_processes

local, shares = [], []
compute = trainer.compute_loss
def record(*args, **kwargs):
    loss = compute(*args, **kwargs)
    local.append(loss.detach())
    shares.append(len(trainer.plan.pools[0].triggers))
    return loss
trainer.compute_loss = record
trainer.train()
assert trainer.state.global_step == len(local) == 3

losses = accelerator.gather(torch.stack(local)).view(2, -1)
assert losses.isfinite().all()
assert (losses[0] != losses[1]).all(), "each process must see images of its own"
weights = {n: p.detach() for n, p in trainer.model.named_parameters() if "lora_" in n}
for name, weight in weights.items():
    first, second = accelerator.gather(weight.unsqueeze(0).contiguous())
    assert torch.equal(first, second), name
assert all(weight.any() for name, weight in weights.items() if "lora_B" in name)
triggers = [inverted.trigger for inverted in trainer.plan.inverted]
assert len(triggers) == 3
first, second = accelerator.gather(triggers[2].mask.unsqueeze(0))
assert torch.equal(first, second)
assert shares == [3 - accelerator.process_index] * 3, shares
after = [trigger.digest() for trigger in trainer.plan.pools[0].triggers]
assert len(after) == 5 and not set(before) & set(after), "each trigger is learnt on by one of the two"
assert accelerate.utils.gather_object(after) == 2 * after
kept = TuningPlan.load(f"{sys.argv[2]}/checkpoint-3").pools[0]
assert [trigger.digest() for trigger in kept.triggers] == after and len(kept.directions) == 5
logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
torch.testing.assert_close(torch.tensor(logged), losses.mean(0), atol=1e-3, rtol=0)
accelerator.print("both ranks agree")
"""


INTERRUPTION = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
import torch
from tiny_plan import make_trainer, tiny_plan
from transformers import TrainerCallback
from hf_invertune.models.loading import load_model
from hf_invertune.tuning.trainer import last_whole_checkpoint

class Interrupt(TrainerCallback):
    # Ctrl-C in one process only, after it has looked for one at this step
    def __init__(self, at):
        self.at = at

    def on_step_end(self, args, state, control, **kwargs):
        if args.process_index == 1 and state.global_step == self.at:
            os.kill(os.getpid(), signal.SIGINT)

for at, expected in (2, 3), (5, 5):  # 5 is the last step
    source = load_model(sys.argv[1], device="cpu")
    folder = Path(f"{sys.argv[2]}-{at}")
    settings = {"per_device_train_batch_size": 4, "max_steps": 5, "save_strategy": "steps", "save_steps": 50}
    trainer = make_trainer(source, folder, plan=tiny_plan(), callbacks=[Interrupt(at)], **settings)
    accelerator = trainer.accelerator
    assert accelerator.num_processes == 2, accelerator.num_processes
    stopped = 0
    try:
        trainer.train()
    except KeyboardInterrupt:
        stopped = trainer.state.global_step
    steps = accelerator.gather(torch.tensor([stopped])).tolist()
    assert steps == [expected, expected], steps
    assert last_whole_checkpoint(folder) == str(folder / f"checkpoint-{expected}")
accelerator.print("both ranks stopped")
"""


@pytest.fixture(scope="module")
def printed(tiny_folder, tmp_path_factory):
    """What two processes print that run both scripts, one after the other."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "train.py"
    script.write_text(AGREEMENT + INTERRUPTION)
    ranks = run_two_ranks(script, tiny_folder, folder / "out", TESTS, Path(__file__).parent)
    for rank in ranks:
        assert rank.returncode == 0, rank.stderr[-3000:]
    return "".join(rank.stdout for rank in ranks)


def test_two_processes_stay_in_step(printed):
    """Gradients are shared: after three updates on different images both ranks hold the same adapter."""
    assert re.findall("both ranks agree", printed) == ["both ranks agree"]


def test_interruption_of_one_process_stops_both(printed):
    """They stop after the same step, with a checkpoint; neither waits for the other in vain."""
    assert re.findall("both ranks stopped", printed) == ["both ranks stopped"]
