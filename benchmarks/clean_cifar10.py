"""Clean a CIFAR-10 victim (see make_cifar10_victim.py) through the command line, with 500 clean pictures.

    python benchmarks/clean_cifar10.py --victim victim/ --clean cifar10-train.parquet --test cifar10-test.parquet

The clean pictures come from the 5,000 that the victim was not trained on; the figures from the whole test set, with the
attack's own trigger. Writes benchmarks/results/cifar10.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
from make_cifar10_victim import CLASSES
from results_file import write_result


def invertune(*arguments: str) -> tuple[int, dict]:
    command = [sys.executable, "-m", "hf_invertune", *arguments, "--class-names", ",".join(CLASSES), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return done.returncode, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victim", type=Path, required=True)
    parser.add_argument("--clean", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    truth = json.loads((options.victim / "truth.json").read_text())
    trigger = str(options.victim / "trigger.safetensors")
    measured = ("--images", options.test, "--trigger", trigger, "--target", truth["target"])
    _, before = invertune("evaluate", str(options.victim), *measured)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        held_back = datasets.load_dataset("parquet", data_files=options.clean, split="train")
        held_back.select(range(len(held_back) - 5000, len(held_back))).to_parquet(f"{folder}/clean.parquet")
        for seed in range(options.seeds):
            out = f"{folder}/out{seed}"
            cleaning = ("--images", f"{folder}/clean.parquet", "--limit", "500", "--seed", str(seed))
            code, removed = invertune("remove", str(options.victim), *cleaning, "--output-dir", out)
            _, after = invertune("evaluate", f"{out}/model", *measured)
            keys = ("verdict", "target", "outcome", "reasons", "seconds")
            runs.append({"seed": seed, "exit_code": code, **{key: removed[key] for key in keys}, "after": after})
            print(json.dumps(runs[-1]), flush=True)
    command = (
        "hf-invertune remove victim/ --images clean.parquet --limit 500 --seed SEED --output-dir out/ --class-names "
        f"{','.join(CLASSES)}"
    )
    write_result("cifar10", command, {"truth": truth, "before": before, "runs": runs})


if __name__ == "__main__":
    main()
