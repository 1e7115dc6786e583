"""Clean the embedded victim, and leave its twin alone, with five seeds each.

    python benchmarks/demo_seeds.py

Every run is `hf-invertune demo --json` in a process of its own. Writes benchmarks/results/demo_seeds.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from results_file import write_result


def run(victim: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hf_invertune", "demo", "--json", "--victim", victim, "--seed", str(seed)]
        done = subprocess.run([*command, "--output-dir", f"{folder}/out"], stdout=subprocess.PIPE, text=True)
    shown = json.loads(done.stdout)
    shown.pop("report")
    return {"victim": victim, "seed": seed, "exit_code": done.returncode, **shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="runs side by side; set OMP_NUM_THREADS to match")
    options = parser.parse_args()
    todo = [(victim, seed) for victim in ("poisoned", "clean") for seed in range(options.seeds)]
    runs = []
    with ThreadPoolExecutor(options.workers) as pool:
        for done in pool.map(run, *zip(*todo, strict=True)):
            runs.append(done)
            print(json.dumps(done), flush=True)
    write_result("demo_seeds", "python benchmarks/demo_seeds.py", {"runs": runs})


if __name__ == "__main__":
    main()
