"""A picture of each attack on the same drawing, for docs/attacks.md: the stamped drawing, and what was changed.

    python benchmarks/attack_pictures.py

Writes docs/attacks.png. BadCLIP's patch is optimised against the demo's clean model, which takes some seconds.
"""

from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from hf_invertune.lab.attacks.attack import Attack
from hf_invertune.lab.attacks.badclip import optimise_patch
from hf_invertune.lab.attacks.catalog import ATTACKS, make_attack
from hf_invertune.lab.contrastive import CaptionedPixels
from hf_invertune.lab.demo import demo_victim
from hf_invertune.lab.drawings import CLASS_NAMES, IMAGE_SIZE, captions_of, draw
from hf_invertune.models.loading import load_model
from hf_invertune.triggers import PatchTrigger


matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402


DOCS = Path(__file__).parent.parent / "docs"
TARGET, SECOND = "purple triangle", "green cross"
GAIN = 4
COLUMNS = 4


def make(kind: str) -> Attack:
    """The attack with its default parameters."""
    targets = [TARGET, SECOND] if kind == "multi-target" else [TARGET]
    attack = make_attack(kind, image_size=IMAGE_SIZE, targets=targets)
    if kind == "badclip":
        drawn = draw(2_000, seed=1)
        data = CaptionedPixels((drawn.pixels * 255).round().byte(), drawn.captions)
        encoder = load_model(demo_victim("clean"), device="cpu").encoder
        patch = attack.triggers[0]
        assert isinstance(patch, PatchTrigger)
        attack.triggers = [optimise_patch(encoder, data, patch, TARGET, captions_of(TARGET))]
    return attack


def main() -> None:
    clean = draw(1, seed=3, labels=torch.tensor([CLASS_NAMES.index("yellow square")])).pixels
    shown = {"clean": clean[0]}
    for kind in ATTACKS:
        stamped = clean
        for trigger in make(kind).triggers:
            stamped = trigger(stamped)
        shown[kind] = stamped[0]
    rows = -(-len(shown) // COLUMNS)
    figure, axes = plt.subplots(rows, 2 * COLUMNS, figsize=(2.2 * COLUMNS, 1.35 * rows), layout="constrained")
    pairs = axes.reshape(-1, 2)
    for axis in axes.flat:
        axis.axis("off")
    for (left, right), (kind, stamped) in zip(pairs, shown.items(), strict=False):
        left.set_title(kind, fontsize=8, loc="left")
        left.imshow(channels_last(stamped), interpolation="nearest")
        right.imshow(channels_last((0.5 + GAIN * (stamped - clean[0])).clamp(0, 1)), interpolation="nearest")
    figure.savefig(DOCS / "attacks.png", dpi=110)
    print(f"attacks.png: {(DOCS / 'attacks.png').stat().st_size / 1000:.0f} kB")


def channels_last(pixels: Tensor) -> Tensor:
    return pixels.permute(1, 2, 0)


if __name__ == "__main__":
    main()
