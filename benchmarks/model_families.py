"""Every family of models, tiny and with random weights, from a Hub on 127.0.0.1 through scan and removal, and back to it.

python benchmarks/model_families.py
"""

import os
import sys
import tempfile
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

from loopback_environment import HUB


# isort: split
import huggingface_hub
import torch
from family_checks import check_on_the_hub
from results_file import write_result
from tiny_families import FAMILIES


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name in FAMILIES:
        HUB.reset()
        with tempfile.TemporaryDirectory() as folder:
            huggingface_hub.constants.HF_HUB_CACHE = f"{folder}/cache"
            rows.append(check_on_the_hub(HUB, Path(folder), name))
        print(rows[-1])
    write_result("model_families", "python benchmarks/model_families.py", {"families": rows})


if __name__ == "__main__":
    main()
