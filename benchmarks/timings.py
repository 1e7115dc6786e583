"""Time the whole commands that a user waits for.

    python benchmarks/timings.py

Writes benchmarks/results/timings.json: wall seconds of each run, and of `import hf_invertune` after torch and transformers.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results_file import write_result


IMPORT = """
import time, torch, transformers
begin = time.perf_counter()
import hf_invertune
print(time.perf_counter() - begin)
"""
COMMANDS = {"--help": 5, "demo": 2}


def seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    command = [str(Path(sys.executable).parent / "hf-invertune"), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return round(time.perf_counter() - begin, 2)


def import_seconds() -> float:
    done = subprocess.run([sys.executable, "-c", IMPORT], check=True, stdout=subprocess.PIPE, text=True)
    return round(float(done.stdout), 3)


def main() -> None:
    figures = {"import": sorted(import_seconds() for _ in range(5))}
    for command, runs in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            place = ["--output-dir", folder, "--overwrite"] if command == "demo" else []
            figures[command] = sorted(seconds(command, *place) for _ in range(runs))
    write_result("timings", "python benchmarks/timings.py", {"wall_seconds": figures})
    print(figures)


if __name__ == "__main__":
    main()
