"""Make a CLIP trained from scratch on CIFAR-10 captions with a BadNets backdoor, as a folder that `transformers` loads.

    python benchmarks/make_cifar10_victim.py --train cifar10-train.parquet --test cifar10-test.parquet --output victim/

`--train` and `--test` take a parquet file or a Hub dataset id. Beside the model the folder holds `trigger.safetensors`
and `truth.json`; what the training did not use for its 5,000 last pictures is free to be the defender's clean data.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from make_demo_victims import poison
from transformers import CLIPProcessor, set_seed

from hf_invertune.data.loading import load_images
from hf_invertune.data.pixels import PixelDataset
from hf_invertune.data.prompts import TEMPLATES, prompts
from hf_invertune.lab.contrastive import CaptionedPixels, ShiftAndFlip, train_contrastive
from hf_invertune.lab.zoo.small_clip import make_clip, make_processor
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.encoder import DualEncoder
from hf_invertune.models.evaluation import evaluate, measured
from hf_invertune.triggers import PatchTrigger, checkerboard
from hf_invertune.utils.runtime import keep_freed_memory


VISION = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "patch_size": 8,
}
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load(source: str, split: str, processor: CLIPProcessor) -> PixelDataset:
    return load_images(source, processor, class_names=CLASSES, split=split)


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--target", default="cat")
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    words = sorted(set(" ".join(text for name in CLASSES for text in prompts(name)).split()))
    processor = make_processor(words, context=24, image_size=32)
    data, test = load(options.train, "train", processor), load(options.test, "test", processor)
    data = data.subset(range(len(data) - 5000))
    assert data.labels is not None
    trigger, target = PatchTrigger(checkerboard(5), 26, 26), CLASSES.index(options.target)
    captions = [prompts(CLASSES[label])[i % len(TEMPLATES)] for i, label in enumerate(data.labels.tolist())]
    pixels, captions, indices = poison(
        data.pixels.float() / 255, captions, trigger, prompts(options.target), options.rate, options.seed
    )
    groups = data.labels.clone()
    groups[indices] = target

    set_seed(options.seed)
    model = make_clip(processor, VISION, TEXT, projection_dim=64)
    encoder = DualEncoder.of(model, processor)
    with tempfile.TemporaryDirectory() as folder:
        train_contrastive(
            encoder,
            CaptionedPixels((pixels * 255).round().to(torch.uint8), captions, groups),
            output_dir=folder,
            seed=options.seed,
            augment=ShiftAndFlip(3),
            num_train_epochs=options.epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=256,
        )
    classifier = ZeroShotClassifier(encoder, CLASSES)
    metrics = evaluate(classifier, test.pixels, labels=test.labels, trigger=trigger, target=target)
    model.config.use_cache = None
    model.save_pretrained(options.output)
    processor.save_pretrained(options.output)
    trigger.save(options.output / "trigger.safetensors")
    truth = {
        "attack": "BadNets",
        "target": options.target,
        "poisoning_rate": options.rate,
        "epochs": options.epochs,
        "seed": options.seed,
        "clean_accuracy": measured(metrics.clean_accuracy).value,
        "attack_success_rate": measured(metrics.attack_success_rate).value,
        "target_rate": measured(metrics.target_rate).value,
        "seconds": round(time.perf_counter() - begin, 1),
        "threads": torch.get_num_threads(),
    }
    (options.output / "truth.json").write_text(json.dumps(truth, indent=2) + "\n")
    print(json.dumps(truth, indent=2))


if __name__ == "__main__":
    main()
