"""The tables of the README and the docs say what the committed result files say."""

import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parent.parent


def test_the_tables_are_those_of_the_result_files():
    done = subprocess.run(
        [sys.executable, "benchmarks/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
