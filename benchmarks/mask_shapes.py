"""How much of a trigger a published report gives away: what the outline of its mask does on the embedded victim.

    python benchmarks/mask_shapes.py

Inverts the victim's trigger, then fills the mask's shape, and its rectangle, with plain patterns. Writes
benchmarks/results/mask_shapes.json.
"""

import json

import torch
from results_file import write_result
from transformers import set_seed

from hf_invertune import BackdoorRemover, MaskedTrigger, PixelDataset, RemovalConfig, demo_images, demo_victim
from hf_invertune.lab.demo import TEST_IMAGES, TEST_SEED, victim_truth
from hf_invertune.report.report import without_pixels
from hf_invertune.triggers import checkerboard


SEED = 0


def main() -> None:
    set_seed(SEED)
    truth, _ = victim_truth()
    remover = BackdoorRemover.from_pretrained(demo_victim("poisoned"), device="cpu")
    config = RemovalConfig(seed=SEED)
    plan = remover.invert(demo_images(), target=truth["target"], config=config)
    trigger = plan.inverted[0].trigger
    assert isinstance(trigger, MaskedTrigger)
    size = trigger.pattern.shape[-1]
    shapes = {"shape": (trigger.mask > trigger.mask.max() / 2).float(), "rectangle": without_pixels(trigger).mask}
    fillings = {
        "white": torch.ones(3, size, size),
        "grey": torch.full((3, size, size), 0.5),
        "black": torch.zeros(3, size, size),
        "noise": torch.rand(3, size, size, generator=torch.Generator().manual_seed(SEED)),
        "checkerboard": checkerboard(size),
    }
    test = demo_images(TEST_IMAGES, TEST_SEED)
    rates = {"inverted trigger": success(remover, test, trigger, truth["target"])}
    for shape, mask in shapes.items():
        for filling, pattern in fillings.items():
            rates[f"{shape}, {filling}"] = success(remover, test, MaskedTrigger(mask, pattern), truth["target"])
    write_result("mask_shapes", "python benchmarks/mask_shapes.py", {"seed": SEED, "attack_success_rate": rates})
    print(json.dumps(rates, indent=2))


def success(remover: BackdoorRemover, test: PixelDataset, trigger: MaskedTrigger, target: str) -> float:
    rate = remover.evaluate(test, trigger=trigger, target=target).attack_success_rate
    assert rate is not None
    return rate.value


if __name__ == "__main__":
    main()
