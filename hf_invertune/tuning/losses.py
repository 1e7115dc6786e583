"""The terms of the tuning's loss."""

from collections.abc import Mapping, Sequence

from torch import Tensor


def alignment(triggered: Tensor, original: Tensor, neurons: Sequence[int]) -> Tensor:
    """Relative distance of critical neurons, ||m * (a' - a)|| / ||m * a||, mean over images (N x tokens x width)."""
    difference = (triggered - original)[..., neurons].flatten(1).norm(dim=-1)
    return (difference / original[..., neurons].flatten(1).norm(dim=-1)).mean()


def loss_terms(
    embeddings: Tensor,
    original: Tensor,
    hidden: Sequence[Tensor],
    untuned: Sequence[Tensor],
    neurons: Mapping[int, Sequence[int]],
) -> dict[str, Tensor]:
    """The terms *align*, *preserve* and *embedding*, each averaged over the images of the batch.

    Args:
        embeddings (`torch.Tensor`): 2N x D unit embeddings by the tuned model, of N triggered images, then of the same
            images clean.
        original (`torch.Tensor`): N x D, of the clean images by the model as it came.
        hidden (`Sequence[torch.Tensor]`): by layer, 2N x tokens x width, by the tuned model.
        untuned (`Sequence[torch.Tensor]`): by layer, N x tokens x width, of the clean images by the model as it came.
        neurons (`Mapping[int, Sequence[int]]`): critical layer -> its critical neurons.
    """
    triggered, untouched = embeddings.chunk(2)
    aligned = [alignment(hidden[layer].chunk(2)[0], untuned[layer], chosen) for layer, chosen in neurons.items()]
    return {
        "align": sum(aligned, start=original.new_zeros(())),
        "preserve": (untouched - original).norm(dim=-1).mean(),
        "embedding": (triggered - original).norm(dim=-1).mean(),
    }
