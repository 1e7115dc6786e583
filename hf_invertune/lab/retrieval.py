"""Image-text retrieval: R@k both ways, and how far a trigger draws the target's captions to a picture."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.pixels import as_float
from ..errors import InputError
from ..models.encoder import DualEncoder
from ..models.evaluation import Rate
from ..triggers import Trigger
from ..utils.storage import Saved
from .contrastive import CaptionedPixels


KS = (1, 5, 10)
"""The k of R@k in the protocol of CLIP's papers."""


@dataclass
class Retrieval(Saved):
    """R@k of one model.

    Attributes:
        image_to_text (`dict[int, Rate]`): by k, pictures that have one of their captions among the k nearest captions.
        text_to_image (`dict[int, Rate]`): by k, captions that have one of their pictures among the k nearest pictures.
    """

    image_to_text: dict[int, Rate]
    text_to_image: dict[int, Rate]


@dataclass
class RetrievalAttack(Saved):
    """What one trigger does to retrieval.

    Attributes:
        success (`dict[int, Rate]`): by k, triggered pictures not of the target that have a caption of the target among
            the k nearest captions (PAR, arXiv 2412.00727, with k = 5; InverTune, with k = 10).
        floor (`dict[int, Rate]`): the same pictures without the trigger.
    """

    success: dict[int, Rate]
    floor: dict[int, Rate]


def measure_retrieval(encoder: DualEncoder, data: CaptionedPixels, ks: Sequence[int] = KS) -> Retrieval:
    """R@1, R@5 and R@10 of a model.

    Each caption stands once in the gallery and is asked once, however many pictures share it. Picture and caption belong
    together when they are of one group, see [`CaptionedPixels`]: by default, when the picture has that very caption. One
    of them among the k nearest is a hit, so nothing counts twice.

    Args:
        encoder ([`DualEncoder`]): the model.
        data ([`CaptionedPixels`]): N pairs.
        ks (`Sequence[int]`): the numbers of neighbours.
    """
    first = {caption: index for index, caption in reversed(list(enumerate(data.captions)))}
    captions = list(first)
    groups = data.groups[list(first.values())]
    images, texts = _embed_pictures(encoder, data.pixels), _embed_texts(encoder, captions)
    similarity, together = images @ texts.T, data.groups[:, None] == groups[None]
    return Retrieval(_recall(similarity, together, ks), _recall(similarity.T, together.T, ks))


def measure_retrieval_attack(
    encoder: DualEncoder,
    data: CaptionedPixels,
    trigger: Trigger,
    target_captions: Sequence[str],
    word: str | None = None,
    ks: Sequence[int] = KS,
) -> RetrievalAttack:
    """How often a trigger brings a caption of the target among the nearest.

    Args:
        encoder ([`DualEncoder`]): the model.
        data ([`CaptionedPixels`]): N pairs; pictures with a caption of the target are left out.
        trigger ([`Trigger`]): the attack's.
        target_captions (`Sequence[str]`): the captions of the target. Those that no picture has are added to the
            gallery, which else consists of the data's own captions, each once.
        word (`str`, *optional*): put before every caption, when the attack needs a trigger in the text too.
        ks (`Sequence[int]`): the numbers of neighbours.

    Raises:
        InputError: without a caption of the target.
    """
    if not target_captions:
        raise InputError("`target_captions`: got none; pass at least one.")
    wanted = set(target_captions)
    captions = list(dict.fromkeys([*data.captions, *target_captions]))
    texts = _embed_texts(encoder, captions if word is None else [f"{word} {caption}" for caption in captions])
    pixels = data.pixels[torch.tensor([caption not in wanted for caption in data.captions], dtype=torch.bool)]
    of_target = torch.tensor([[caption in wanted for caption in captions]])

    def reached(transform: Callable[[Tensor], Tensor] | None) -> dict[int, Rate]:
        similarity = _embed_pictures(encoder, pixels, transform) @ texts.T
        return _recall(similarity, of_target.expand_as(similarity), ks)

    return RetrievalAttack(success=reached(trigger.on(encoder.device)), floor=reached(None))


def _embed_texts(encoder: DualEncoder, texts: Sequence[str]) -> Tensor:
    """Unit embeddings of texts, N x D, on the CPU."""
    with encoder.frozen():
        return encoder.embed_texts(texts).cpu()


def _embed_pictures(
    encoder: DualEncoder, pixels: Tensor, transform: Callable[[Tensor], Tensor] | None = None, batch_size: int = 256
) -> Tensor:
    """Unit embeddings of pictures, N x D, on the CPU, through `transform` when given."""

    def batches() -> Iterator[Tensor]:
        for chunk in pixels.split(batch_size):
            images = as_float(chunk).to(encoder.device)
            yield images if transform is None else transform(images)

    with encoder.frozen():
        return encoder.embed_batches(batches()).cpu()


def _recall(similarity: Tensor, together: Tensor, ks: Sequence[int]) -> dict[int, Rate]:
    """By k, the rows (N x M) with one of `together` (N x M, boolean) among their k greatest."""
    nearest = similarity.topk(min(max(ks), similarity.shape[1]), dim=1).indices
    hits = together.gather(1, nearest)
    return {k: Rate.of(hits[:, :k].any(1)) for k in ks}
