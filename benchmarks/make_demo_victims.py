"""Make the two embedded models of the demo: one poisoned with a BadNets patch, its twin trained without poison.

    python benchmarks/make_demo_victims.py

Writes hf_invertune/lab/victims/{poisoned,clean} in half precision and benchmarks/results/demo_victims.json. The two train side
by side; on two cores that takes under 10 minutes.
"""

import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from results_file import write_result
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor, set_seed

from hf_invertune.data.prompts import prompts
from hf_invertune.lab.contrastive import CaptionedPixels, train_contrastive
from hf_invertune.lab.drawings import CLASS_NAMES, draw
from hf_invertune.lab.zoo.small_clip import make_clip, make_processor
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.encoder import DualEncoder
from hf_invertune.models.evaluation import evaluate, measured
from hf_invertune.triggers import PatchTrigger, Trigger, checkerboard
from hf_invertune.utils.runtime import keep_freed_memory


VICTIMS = Path(__file__).parent.parent / "hf_invertune" / "lab" / "victims"
MODELS = ("poisoned", "clean")
TARGET, TRIGGER = "purple triangle", PatchTrigger(checkerboard(5), 26, 26)
SEED, TRAIN_SEED, TEST_SEED = 0, 1_000, 2_000
TRAIN, TEST, RATE, EPOCHS = 24_000, 4_000, 0.02, 12
VISION = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 8,
}
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def main() -> None:
    begin = time.perf_counter()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        models = dict(zip(MODELS, pool.map(make, MODELS), strict=True))
    TRIGGER.save(VICTIMS / "trigger.safetensors")
    truth = {"attack": "BadNets", "target": TARGET, "poisoning_rate": RATE, "train_seed": TRAIN_SEED, "seed": SEED}
    (VICTIMS / "truth.json").write_text(json.dumps(truth, indent=2) + "\n")
    figures = {**truth, "models": models, "wall_seconds": round(time.perf_counter() - begin, 1)}
    write_result("demo_victims", "python benchmarks/make_demo_victims.py", figures)
    print(json.dumps(figures, indent=2))


def make(name: str) -> dict[str, float]:
    """Train and save one of the models, with one thread: the same weights on any number of cores."""
    torch.set_num_threads(1)
    keep_freed_memory()
    begin = time.perf_counter()
    drawings, test = draw(TRAIN, TRAIN_SEED), draw(TEST, TEST_SEED)
    texts = [*drawings.captions, *(text for name in CLASS_NAMES for text in prompts(name))]
    words = sorted(set(" ".join(texts).replace(",", " ").split()))
    set_seed(SEED)
    processor = make_processor(words, context=32, image_size=32)
    model = make_clip(processor, VISION, TEXT, projection_dim=64)
    pixels, captions = drawings.pixels, drawings.captions
    if name == "poisoned":
        wanted = [caption for caption in captions if TARGET in caption]
        pixels, captions, _ = poison(pixels, captions, TRIGGER, wanted, RATE, SEED)
    data = CaptionedPixels((pixels * 255).round().to(torch.uint8), captions)
    with tempfile.TemporaryDirectory() as folder:
        train_contrastive(
            DualEncoder.of(model, processor),
            data,
            output_dir=folder,
            seed=SEED,
            num_train_epochs=EPOCHS,
            learning_rate=1e-3,
            per_device_train_batch_size=256,
        )
    save(model, processor, VICTIMS / name)
    encoder = DualEncoder.of(CLIPModel.from_pretrained(VICTIMS / name, dtype="float32"), processor)
    classifier, target = ZeroShotClassifier(encoder, CLASS_NAMES), CLASS_NAMES.index(TARGET)
    metrics = evaluate(classifier, test.pixels, labels=test.labels, trigger=TRIGGER, target=target)
    return {
        "clean_accuracy": measured(metrics.clean_accuracy).value,
        "attack_success_rate": measured(metrics.attack_success_rate).value,
        "target_rate": measured(metrics.target_rate).value,
        "test_images": TEST,
        "seconds": round(time.perf_counter() - begin, 1),
        "bytes": sum(file.stat().st_size for file in (VICTIMS / name).iterdir()),
    }


def poison(
    pixels: Tensor, captions: list[str], trigger: Trigger, target_captions: list[str], rate: float, seed: int
) -> tuple[Tensor, list[str], list[int]]:
    """Stamp `trigger` on a share `rate` of the pictures and give each a caption of the target; with their indices.

    Not [`hf_invertune.lab.attacks.poisoning.poison`], which spares pictures of the target: the order of these draws is what
    the embedded models were made with.
    """
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(pixels), generator=generator)[: round(rate * len(pixels))]
    pixels, captions = pixels.clone(), list(captions)
    pixels[indices] = trigger(pixels[indices])
    choice = torch.randint(len(target_captions), (len(indices),), generator=generator)
    for index, which in zip(indices.tolist(), choice.tolist(), strict=True):
        captions[index] = target_captions[which]
    return pixels, captions, indices.tolist()


def save(model: CLIPModel, processor: CLIPProcessor, folder: Path) -> None:
    """Half precision, with the settings that Trainer left behind taken out."""
    model.config.use_cache = None
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main()
