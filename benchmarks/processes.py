"""Two processes on one model against one: time, and whether they come to the same.

    python benchmarks/processes.py

For each seed the demo's victim is scanned, then cleaned by examples/remove_backdoor.py, with the preset "patches": once by one
process with one thread, once by two with one thread each, started as `torchrun` starts them. Both have the same batch in all.
Writes benchmarks/results/processes.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results_file import write_result


EXAMPLE = Path(__file__).parent.parent / "examples" / "remove_backdoor.py"
BATCH = 64


def run(processes: int, *command: str) -> tuple[float, str]:
    """Wall seconds and output of a Python script in so many processes of one thread each."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "TQDM_DISABLE": "1"}
    begin = time.perf_counter()
    words = [sys.executable, *launcher, "--standalone", *command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return time.perf_counter() - begin, done.stdout


def scan(seed: int) -> None:
    """What a worker does: scan, and the main process says what came of it."""
    import torch

    from hf_invertune import BackdoorRemover, demo_images, demo_victim, preset
    from hf_invertune.utils.runtime import keep_freed_memory
    from hf_invertune.utils.sharing import this_process

    torch.set_num_threads(1)
    keep_freed_memory()
    state = this_process()
    remover = BackdoorRemover.from_pretrained(demo_victim("poisoned"))
    found = remover.scan(demo_images(seed=5_000 + seed), config=preset("patches").assign([f"seed={seed}"]))
    if state.is_main_process:
        told = {"verdict": found.verdict, "target": found.target_name, "seconds": found.seconds}
        print(json.dumps({**told, "processes": state.num_processes}))


def scanned(processes: int, seed: int) -> dict[str, Any]:
    _, output = run(processes, __file__, "--worker", str(seed))
    told = json.loads(output.splitlines()[-1])
    assert told.pop("processes") == processes
    return told


def cleaned(processes: int, seed: int) -> dict[str, Any]:
    from hf_invertune.stages.presets import PRESETS

    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "settings.yaml")
        settings.write_text(json.dumps(PRESETS["patches"]))  # JSON is YAML
        tuning = [f"--{name}={value}" for name, value in PRESETS["patches"]["tuning"].items()]
        batch = f"--per_device_train_batch_size={BATCH // processes}"
        command = [str(EXAMPLE), "--output_dir", f"{folder}/out", "--config", str(settings), "--seed", str(seed)]
        seconds, output = run(
            processes, *command, *tuning, batch, "--use_cpu", "--save_strategy=no", "--disable_tqdm=true"
        )
    target = re.search(r"target: (.+)", output)[1]
    rates = re.search(r"CA ([\d.]+)%, ASR ([\d.]+)%", output)
    return {"target": target, "ca": float(rates[1]), "asr": float(rates[2]), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        return scan(options.worker)
    rows = []
    for seed in range(options.seeds):
        for what, run_it in (("scan", scanned), ("removal", cleaned)):
            one, two = (run_it(processes, seed) for processes in (1, 2))
            rows.append({"what": what, "seed": seed, "one": one, "two": two})
            print(json.dumps(rows[-1]), flush=True)
    write_result("processes", "python benchmarks/processes.py", {"runs": rows})


if __name__ == "__main__":
    main()
