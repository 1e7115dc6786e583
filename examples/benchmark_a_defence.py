# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-invertune"]
# ///
"""A defence of one's own in the arena's table, beside doing nothing, by one call.

    hf-invertune zoo benchmarks/zoos/drawings-quick.yaml --output-dir zoo/
    python examples/benchmark_a_defence.py --zoo zoo/

The defence here adds noise to all weights: it needs no captions, no search for a trigger, and it does not work well. The
strength of the noise stands where others have a learning rate; to have it searched on the zoo's validation victims, give
the class a `grid` and pass no `learning_rates`.
"""

import argparse
import sys

import torch

from hf_invertune import ArenaSettings, Defence, Defended, HubError, InputError, benchmark


class NoDefence(Defence):
    """The model as it came."""

    name = "none"

    def treat(self, clip, data, class_names, found):
        return Defended(clip.model)


class WeightNoise(Defence):
    """Gaussian noise on every matrix of the vision tower, in proportion to its own spread."""

    name = "weight noise"

    def treat(self, clip, data, class_names, found):
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for weight in clip.model.vision_model.parameters():
                if weight.ndim > 1:
                    noise = torch.randn(weight.shape, generator=generator)
                    weight += (self.learning_rate or 0.1) * weight.std() * noise.to(weight.device)
        return Defended(clip.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--zoo", required=True, help="folder that `hf-invertune zoo` made")
    parser.add_argument("--output", help="a .jsonl file that keeps the runs, so that a second call goes on")
    parser.add_argument("--victims", nargs="+", help="some of the zoo's; all when not given")
    parser.add_argument("--images", type=int, default=500, help="clean pictures that a defence gets")
    parser.add_argument("--test-images", type=int, default=2000, help="pictures that everything is measured on")
    parser.add_argument("--strength", type=float, default=0.1, help="of the noise")
    options = parser.parse_args()
    table = benchmark(
        {"none": NoDefence, "weight-noise": WeightNoise},
        options.zoo,
        options.output,
        victims=options.victims,
        learning_rates={"weight-noise": options.strength},
        settings=ArenaSettings(options.images, options.test_images),
    )
    print(table.markdown())


if __name__ == "__main__":
    try:
        main()
    except (InputError, HubError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
