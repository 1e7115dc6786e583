"""Kill a removal at random moments, start the same command again, and hold what it ends with against an undisturbed run.

    python benchmarks/killed.py

The demo's victim, with short settings. SIGKILL comes at a moment drawn evenly from an undisturbed run's time; the command says
`--resume` from the start. Equal are model, adapter, trigger and report, bit for bit but for times. Writes
benchmarks/results/killed.json.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from results_file import write_result

from hf_invertune import demo_images, demo_victim
from hf_invertune.utils.files import json_digest


SETTINGS = {
    "scan": {
        "families": ["masked"], "simulation_steps": 10, "restarts": 1, "steps": [10, 10], "finalists": 3, "looks": 1,
        "words": [], "gathering": {"families": ["window"], "starts": 4, "steps": 10, "trial": 5},
    },
    "inversion": {"steps": 10, "batch_size": 8},
    "tuning": {"max_steps": 120, "per_device_train_batch_size": 8, "search_steps": 70, "pool_size": 2},
}  # fmt: skip
FILES = ("model/model.safetensors", "adapter/adapter_model.safetensors", "audit/trigger.safetensors")
TIMED = {"seconds", "created"}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: item for name, item in value.items() if name not in TIMED}
        return {k: without_times(v) for k, v in kept.items() if not k.endswith(("runtime", "_per_second"))}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def outcome(folder: Path) -> list[str]:
    """What a removal ended with, as digests."""
    report = json.loads((folder / "audit" / "report.json").read_text())
    return [
        json_digest(without_times(report)),
        *(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES),
    ]


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    words = [*command, "--output-dir", str(folder)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
        data = demo_images(128)
        for index, pixels in enumerate(data.pixels):
            (place / "pictures").mkdir(exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / "pictures" / f"{index:03}.png")
        command = [sys.executable, "-m", "hf_invertune", "remove", str(demo_victim("poisoned"))]
        command += ["--images", str(place / "pictures"), "--class-names", ",".join(data.class_names or [])]
        command += ["--config", str(place / "settings.yaml"), "--target", "purple triangle", "--resume"]
        begin = time.perf_counter()
        if start(command, place / "undisturbed").wait() not in (0, 4):
            raise RuntimeError("The undisturbed removal failed.")
        whole, expected = time.perf_counter() - begin, outcome(place / "undisturbed")
        rows = []
        for number in range(options.kills):
            folder, moment = place / str(number), draw.uniform(0, whole)
            run = start(command, folder)
            try:
                run.wait(moment)
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
            killed = run.wait() == -signal.SIGKILL
            reached = sorted(str(path.relative_to(folder)) for path in folder.glob("checkpoints/*/*checkpoint-*"))
            reached += sorted(path.name for path in folder.glob("checkpoints/*"))
            code = start(command, folder).wait()
            rows.append(
                {
                    "second": round(moment, 1),
                    "killed": killed,
                    "reached": reached,
                    "exit_code": code,
                    "equal": code in (0, 4) and outcome(folder) == expected,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    write_result("killed", "python benchmarks/killed.py", {"undisturbed_seconds": round(whole, 1), "kills": rows})


if __name__ == "__main__":
    main()
