"""Stage 3a: which layers and which neurons carry the backdoor? Layer scores and k-means."""

from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from ..data.pixels import as_float
from ..models.encoder import DualEncoder
from ..triggers import Trigger
from ..utils.seeds import stream
from ..utils.storage import Saved
from .configs import LocalizationConfig


@dataclass
class CriticalNeurons(Saved):
    """Where the backdoor lives.

    Attributes:
        layer_scores (`list[float]`): ||mean_act(x') - mean_act(x)|| / ||mean_act(x)|| of each vision layer.
        neurons (`dict[int, list[int]]`): critical layer -> indices of its critical neurons (hidden units).
        widths (`list[int]`): hidden units of each vision layer.
    """

    layer_scores: list[float]
    neurons: dict[int, list[int]]
    widths: list[int]

    @property
    def layers(self) -> list[int]:
        """The critical layers, in order."""
        return sorted(self.neurons)


def layer_score(triggered: Tensor, clean: Tensor) -> float:
    """Relative change of a layer's mean activation (tokens x width), ||a' - a|| / ||a||."""
    return float((triggered - clean).norm() / clean.norm())


def critical_layers(scores: list[float], config: LocalizationConfig) -> list[int]:
    """Layers whose score exceeds mean + deviations * standard deviation, or the `top_layers` highest ones."""
    values = torch.tensor(scores, dtype=torch.float64)
    if config.top_layers is not None:
        return sorted(values.topk(min(config.top_layers, len(scores))).indices.tolist())
    threshold = values.mean() + config.deviations * values.std(correction=0)
    chosen = (values > threshold).nonzero().flatten().tolist()
    return chosen or [int(values.argmax())]


def critical_neurons(change: Tensor, seed: int) -> list[int]:
    """k-means with k = 2 over the neurons' change (width): the members of the cluster with the larger centre."""
    clusters = KMeans(n_clusters=2, n_init=10, random_state=seed).fit(change.cpu().numpy().reshape(-1, 1))
    larger = int(clusters.cluster_centers_.argmax())
    members: list[int] = (clusters.labels_ == larger).nonzero()[0].tolist()
    return members


class NeuronLocalizer:
    """Finds critical layers and neurons from clean images and an inverted trigger.

    Args:
        encoder ([`DualEncoder`]): the suspicious model.
        config ([`LocalizationConfig`], *optional*): settings.
        seed (`int`): that of the run.
    """

    def __init__(self, encoder: DualEncoder, config: LocalizationConfig | None = None, seed: int = 0):
        self.encoder, self.config, self.seed = encoder, config or LocalizationConfig(), seed

    @torch.no_grad()
    def localize(self, pixels: Tensor, triggers: list[Trigger]) -> CriticalNeurons:
        """Compare mean activations on clean pixels (N x 3 x H x W) with those on the same, triggered."""
        sums: list[list[list[Tensor]]] = []
        images = pixels[: self.config.images]
        with self.encoder.frozen():
            for chunk in images.split(64):
                plain = as_float(chunk).to(self.encoder.device)
                variants = [plain, *(trigger.on(plain.device)(plain) for trigger in triggers)]
                sums.append([[layer.sum(0) for layer in self.encoder.activations(v)] for v in variants])
        means = [
            [torch.stack(parts).sum(0) / len(images) for parts in zip(*variant, strict=True)]
            for variant in zip(*sums, strict=True)
        ]
        clean, triggered = means[0], [torch.stack(parts).mean(0) for parts in zip(*means[1:], strict=True)]
        scores = [layer_score(a, b) for a, b in zip(triggered, clean, strict=True)]
        neurons = {
            layer: critical_neurons((triggered[layer] - clean[layer]).abs().mean(0), stream(self.seed, "neurons"))
            for layer in critical_layers(scores, self.config)
        }
        return CriticalNeurons(scores, neurons, [layer.shape[-1] for layer in clean])
