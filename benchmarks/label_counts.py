"""What a scan costs, and whether it finds the target, as the number of labels grows.

    python benchmarks/label_counts.py

The embedded victim, its own 36 names or 10 of them, and with more labels invented names beside those. Writes
benchmarks/results/label_counts.json.
"""

import itertools

import torch
from results_file import write_result

from hf_invertune import BackdoorRemover, RemovalConfig, demo_images, demo_victim
from hf_invertune.data.pixels import PixelDataset
from hf_invertune.lab.arena.cost import measure_cost
from hf_invertune.lab.demo import victim_truth
from hf_invertune.lab.drawings import CLASS_NAMES
from hf_invertune.utils.runtime import keep_freed_memory


COUNTS = (10, 36, 100, 1000)
HOW = (
    "small big old new soft hard dark bright round flat long short thin thick wet dry warm cold loud calm clean rough"
)
WHAT = (
    "cat dog house tree car boat road river cloud stone chair table lamp book door window shoe hat coat bag cup plate fork "
    "knife spoon bottle apple pear plum bread cheese fish bird horse cow sheep goat pig duck hen frog snake bee ant fly moth"
)


def names(count: int, target: str) -> list[str]:
    """`count` names with the target among them."""
    own = [target, *(name for name in CLASS_NAMES if name != target)]
    invented = [f"{how} {what}" for what, how in itertools.product(WHAT.split(), HOW.split())]
    return sorted([*own, *invented][:count])


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    truth, _ = victim_truth()
    pixels = demo_images().pixels  # without labels: of ten names most pictures have none
    scans = []
    for count in COUNTS:
        remover = BackdoorRemover.from_pretrained(demo_victim("poisoned"), device="cpu")
        with measure_cost() as cost:
            scan = remover.scan(PixelDataset(pixels), names(count, truth["target"]), config=RemovalConfig())
        scans.append(
            {
                "labels": count,
                "raced": len(scan.shortlist),
                "verdict": scan.verdict.value,
                "target": scan.target_name,
                "true_target": truth["target"],
                "forward": cost.forward,
                "backward": cost.backward,
                "seconds": round(cost.seconds, 1),
            }
        )
        print(scans[-1], flush=True)
    write_result("label_counts", "python benchmarks/label_counts.py", {"images": len(pixels), "scans": scans})


if __name__ == "__main__":
    main()
