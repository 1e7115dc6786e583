"""Time each inner loop against the bare passes of the same encoder, in one run; and measure its memory.

    python benchmarks/performance.py [SHAPE...]

The limit of a step is a forward, and a backward to the pixels or to the adapter, of as many pictures, with nothing around it.
Both are run in turn, so that whatever else a machine does touches both. Weights are random, since time does not depend on
them, and so are 1,000 labels. Writes benchmarks/results/performance_<device>.json, one entry a shape; others stay.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from results_file import RESULTS, write_result
from torch.nn.functional import normalize
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel, ProcessorMixin

from hf_invertune.data.pixels import PixelDataset
from hf_invertune.lab.arena.cost import measure_cost
from hf_invertune.lab.demo import demo_victim
from hf_invertune.lab.zoo.small_clip import make_clip, make_processor
from hf_invertune.lab.zoo.small_siglip import make_siglip
from hf_invertune.models.adapter import add_adapter
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.encoder import DualEncoder
from hf_invertune.models.loading import load_model
from hf_invertune.stages.configs import GatheringConfig, InversionConfig
from hf_invertune.stages.families import MaskedFamily, WindowFamily
from hf_invertune.stages.gathering import Gatherer
from hf_invertune.stages.inversion import InvertedTrigger, TriggerInverter
from hf_invertune.stages.localization import NeuronLocalizer
from hf_invertune.stages.plan import Pool, TuningPlan
from hf_invertune.tuning.arguments import InverTuneArguments
from hf_invertune.tuning.pursuit import IMAGES
from hf_invertune.tuning.trainer import InverTuneTrainer
from hf_invertune.utils.runtime import keep_freed_memory


LABELS = 1_000


@dataclass(frozen=True)
class Shape:
    """Layers, width and patch of an image tower, and how many pictures a step has: on a CPU, and on an accelerator."""

    layers: int
    width: int
    patch: int
    pictures: tuple[int, int]
    siglip: bool = False

    def make(self) -> tuple[PreTrainedModel, ProcessorMixin]:
        """A model with random weights; its text tower is small, since no inner loop calls it."""
        processor = make_processor(["label", "other"], 16, 224)
        heads = self.width // 64
        vision = {
            "hidden_size": self.width, "intermediate_size": 4 * self.width, "num_hidden_layers": self.layers,
            "num_attention_heads": heads, "patch_size": self.patch,
        }  # fmt: skip
        text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
        if self.siglip:
            return make_siglip(processor, vision, text, self.width)
        return make_clip(processor, vision, text, 512 if self.width < 1024 else 768), processor


SHAPES = {
    "ViT-B/32": Shape(12, 768, 32, (16, 256)),
    "ViT-B/16": Shape(12, 768, 16, (4, 128)),
    "ViT-L/14": Shape(24, 1024, 14, (4, 64)),
    "SigLIP-B/16": Shape(12, 768, 16, (4, 128), siglip=True),
}
TINY = "the demo's, 32 px"


def load(name: str, device: str) -> tuple[DualEncoder, int]:
    """The model of that shape, and how many pictures a step has."""
    accelerated = device != "cpu"
    if name == TINY:
        return load_model(str(demo_victim("poisoned")), device=device).encoder, (96, 960)[accelerated]
    torch.manual_seed(0)
    shape = SHAPES[name]
    model, processor = shape.make()
    return DualEncoder.of(model.eval().to(device), processor).to(device), shape.pictures[accelerated]


class Bench:
    """The inner loops of one model.

    Args:
        encoder ([`DualEncoder`]): the model.
        pictures (`int`): how many go through it in a step, a multiple of four.
    """

    def __init__(self, encoder: DualEncoder, pictures: int):
        self.encoder, self.pictures, self.device = encoder, pictures, encoder.device
        generator = torch.Generator().manual_seed(0)
        size = (encoder.image_size,) * 2
        self.pixels = torch.randint(256, (max(12, pictures), 3, *size), generator=generator, dtype=torch.uint8)
        self.input = torch.rand(pictures, 3, *size, generator=generator).to(self.device)
        width = encoder.embed_pixels(self.pixels[:1]).shape[-1]
        self.classifier = ZeroShotClassifier(encoder, ["label", "other"])
        self.classifier.class_names = tuple(map(str, range(LABELS)))
        self.classifier.head = normalize(torch.randn(LABELS, width, generator=generator), dim=-1).to(self.device)

    def gather(self, steps: int) -> None:
        """Windows that gather pictures, four pictures a window."""
        config = GatheringConfig((WindowFamily(),), starts=self.pictures // 4, steps=steps, trial=steps, batch_size=4)
        Gatherer(self.encoder, None, config).starts(self.pixels, WindowFamily())

    def race(self, steps: int) -> None:
        """Masks towards labels, as in a race: cross-entropy over all labels, four pictures a label."""
        self._invert(steps, embedding_weight=0.0, ssim_weight=0.0)

    def invert(self, steps: int) -> None:
        """The same with the full loss of an inversion."""
        self._invert(steps)

    def _invert(self, steps: int, **weights: float) -> None:
        config = InversionConfig(steps=steps, batch_size=4, **weights)
        TriggerInverter(self.classifier, MaskedFamily(), config).invert(self.pixels, list(range(self.pictures // 4)))

    def learn_bare(self, steps: int) -> None:
        """The limit of these: forward, and backward to the pixels."""
        variable = self.input.clone().requires_grad_()
        optimizer = torch.optim.SGD([variable], lr=0.0)
        with self.encoder.frozen():
            for _ in range(steps):
                optimizer.zero_grad()
                self.encoder.embed_images(variable).sum().backward()
                optimizer.step()

    def tune(self, steps: int) -> None:
        """The whole step of a tuning: a quarter of the pictures clean, the same triggered, half of them to learn triggers on."""
        quarter, size = self.pictures // 4, self.pixels.shape[-2:]
        parameters = WindowFamily().parameters(max(1, quarter // 4), size, torch.Generator().manual_seed(0), ())
        triggers = WindowFamily().trigger(parameters).split()
        critical = NeuronLocalizer(self.encoder).localize(self.pixels[:4], triggers[:1])
        found = InvertedTrigger(0, "window", triggers[0], 0.0, 0.0, 0.0)
        pool = Pool(WindowFamily(), triggers, self.classifier.head[: len(triggers)].cpu())
        plan = TuningPlan(0, [found], critical, list(self.classifier.class_names), pools=[pool])
        with tempfile.TemporaryDirectory() as folder:
            arguments = InverTuneArguments(
                folder, max_steps=steps, per_device_train_batch_size=quarter, search_steps=0, reinversion_steps=0,
                use_cpu=self.device.type == "cpu", save_strategy="no", disable_tqdm=True,
            )  # fmt: skip
            trainer = InverTuneTrainer(
                self.encoder.model, arguments, PixelDataset(self.pixels), class_names=["label", "other"], plan=plan,
                processing_class=self.encoder.processor,
            )  # fmt: skip
            trainer.classifier = self.classifier
            trainer.train()
        self.encoder.model = trainer.model.unload().requires_grad_(False)

    def tune_bare(self, steps: int) -> None:
        """Its limit: the same passes through the same adapter."""
        quarter = self.pictures // 4
        clean, both = self.input[:quarter], self.input[: 2 * quarter]
        chased = torch.rand(max(1, quarter // 4) * IMAGES, *self.input.shape[1:], device=self.device).requires_grad_()
        adapted = add_adapter(self.encoder, range(self.encoder.layers), None, 8, 16)
        optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.0)
        for _ in range(steps):
            torch.autograd.grad(self.encoder.embed_images(chased).sum(), chased)
            with torch.no_grad(), adapted.disable_adapter():
                self.encoder.embed_images(clean)
            optimizer.zero_grad()
            self.encoder.embed_images(both).sum().backward()
            optimizer.step()
        self.encoder.model = adapted.unload().requires_grad_(False)


LOOPS = {
    "gather": ("gather", "learn_bare"),
    "race": ("race", "learn_bare"),
    "invert": ("invert", "learn_bare"),
    "tune": ("tune", "tune_bare"),
}
"""Each loop, and its limit."""


@contextmanager
def ticks(device: torch.device) -> Iterator[list[float]]:
    """When each update of the outermost optimiser ended; those of triggers inside a tuning are not its own."""
    times: dict[int, list[float]] = {}

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.setdefault(id(optimizer), []).append(time.perf_counter())

    hook, outer = register_optimizer_step_post_hook(note), []
    try:
        yield outer
    finally:
        hook.remove()
        outer += max(times.values(), key=lambda one: one[-1])


def seconds_a_step(run: Callable[[int], None], device: torch.device, steps: int) -> list[float]:
    """Of so many updates; one before them is not timed."""
    with ticks(device) as times:
        run(steps + 1)
    return [after - before for before, after in zip(times[:-1], times[1:], strict=True)]


def memory(run: Callable[[int], None]) -> int | None:
    with measure_cost() as cost:
        run(2)
    return cost.peak_memory


def measure(bench: Bench, loops: Sequence[str], steps: int, repeats: int) -> list[dict[str, Any]]:
    """Of each loop the seconds and the memory of a step, and its limit's."""
    rows = []
    for loop in loops:
        ours, bare = (getattr(bench, name) for name in LOOPS[loop])
        with measure_cost() as cost:
            ours(1)
        peaks = [memory(run) for run in (bare, ours)]
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            for run, seconds in zip((bare, ours), taken, strict=True):
                seconds += seconds_a_step(run, bench.device, steps)
        limit, own = map(median, taken)
        row = {
            "loop": loop,
            "pictures": bench.pictures,
            "forward": cost.forward,
            "seconds": own,
            "limit": limit,
            "ratio": own / limit,
            "memory": peaks[1],
            "memory_limit": peaks[0],
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [TINY, *SHAPES]
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(known)}; all when not given")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--steps", type=int, default=4, help="updates of a run")
    parser.add_argument("--repeats", type=int, default=3, help="how often ours and the bare passes take turns")
    options = parser.parse_args()
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = f"performance_{device}"
    path = RESULTS / f"{name}.json"
    shapes = json.loads(path.read_text())["shapes"] if path.is_file() else {}
    for shape in options.shapes or known:
        print(shape, flush=True)
        rows = {one["loop"]: one for one in shapes.get(shape, [])}
        for one in measure(Bench(*load(shape, device)), options.loops, options.steps, options.repeats):
            rows[one["loop"]] = one
        shapes[shape] = [rows[loop] for loop in LOOPS if loop in rows]
        ordered = {one: shapes[one] for one in known if one in shapes}
        write_result(name, "make bench", {"device": device, "labels": LABELS, "shapes": ordered})


if __name__ == "__main__":
    main()
