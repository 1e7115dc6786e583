"""What a scan says that it will cost, and what it did cost: a ViT-B/32 with random weights and 1,000 names.

    python benchmarks/cost_line.py

Few updates, so that it takes minutes on two cores; the line says so many pictures and texts, minutes and bytes. Writes
benchmarks/results/cost_line.json.
"""

import argparse
import itertools
import tempfile

import torch
from results_file import write_result

from hf_invertune import BackdoorRemover, RemovalConfig
from hf_invertune.data.pixels import PixelDataset
from hf_invertune.lab.arena.cost import measure_cost
from hf_invertune.lab.zoo.small_clip import make_clip, make_processor
from hf_invertune.utils.runtime import keep_freed_memory


SETTINGS = {
    "scan": {
        "families": ["masked"], "simulation_steps": 2, "simulation_batch_size": 4, "shortlist_size": 64, "restarts": 1,
        "batch_size": 2, "steps": [3, 3], "finalists": 4, "looks": 1, "words": [], "max_chance": 1.0,
        "gathering": {"families": ["window"], "starts": 8, "steps": 6, "trial": 3, "kept": 3, "batch_size": 4},
    }
}  # fmt: skip
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 32,
}
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
WORDS = [f"{first}{second}o" for first, second in itertools.product("bdfgklmnprstvz", "aeiou")]
IMAGES = 64


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    keep_freed_memory()
    names = [" ".join(pair) for pair in itertools.islice(itertools.product(WORDS, repeat=2), 1000)]
    processor = make_processor(WORDS, 77, 224)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for part in (make_clip(processor, VISION, TEXT, 512), processor):
            part.save_pretrained(folder)
        remover = BackdoorRemover.from_pretrained(folder, device="cpu")
    pixels = torch.randint(256, (IMAGES, 3, 224, 224), dtype=torch.uint8)
    data, config = PixelDataset(pixels), RemovalConfig.of(SETTINGS)
    estimate = remover.estimate(data, names, config=config)
    print(estimate.describe(), flush=True)
    with measure_cost() as cost:
        scan = remover.scan(data, names, config=config)
    figures = {
        "line": estimate.describe(),
        "said": {
            "learnt": [estimate.least.learnt, estimate.most.learnt],
            "minutes": [estimate.pace.minutes(one) for one in (estimate.least, estimate.most)],
            "memory": estimate.pace.memory(estimate.most),
        },
        "was": {"learnt": cost.backward, "minutes": cost.seconds / 60, "memory": cost.peak_memory},
        "weights": estimate.pace.weights,
        "verdict": scan.verdict.value,
    }
    print(figures, flush=True)
    write_result("cost_line", "python benchmarks/cost_line.py", figures)


if __name__ == "__main__":
    main()
