"""Clean the embedded victim, and leave its twin alone, with five seeds each.

    python benchmarks/demo_seeds.py

Every run is `hf-invertune demo --json` in a process of its own. Writes benchmarks/results/demo_seeds.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile

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
    seeds = range(parser.parse_args().seeds)
    runs = []
    for victim in ("poisoned", "clean"):
        for seed in seeds:
            runs.append(run(victim, seed))
            print(json.dumps(runs[-1]), flush=True)
    write_result("demo_seeds", "python benchmarks/demo_seeds.py", {"runs": runs})


if __name__ == "__main__":
    main()
