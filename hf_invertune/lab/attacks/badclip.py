"""BadCLIP (arXiv 2311.12075): a patch that already leads the clean model towards the target."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, triplet_margin_loss

from ...data.pixels import as_float
from ...errors import InputError
from ...models.encoder import DualEncoder
from ...triggers import PatchTrigger
from ..contrastive import CaptionedPixels
from .poisoning import naming


TRIPLET_WEIGHT = 500.0


def optimise_patch(
    encoder: DualEncoder,
    data: CaptionedPixels,
    trigger: PatchTrigger,
    target: str,
    target_captions: Sequence[str],
    *,
    class_names: Sequence[str] | None = None,
    steps: int = 200,
    learning_rate: float = 0.02,
    batch_size: int = 64,
    margin: float = 1.0,
    seed: int = 0,
) -> PatchTrigger:
    """Optimise a patch against a frozen clean model, so that poisoning has less to change.

    The loss is the CLIP loss of patched pictures, with the mean of the target's captions, as a unit vector, for the
    positive and the captions of the batch for negatives, plus 500 times a triplet margin loss that draws patched pictures to embeddings of the target's
    pictures and away from their own. The authors' code runs 50 epochs over 10,000 pairs with Adam at 1e-3 and augments
    images and texts; here there are fewer and larger steps and no augmentation.

    Args:
        encoder ([`DualEncoder`]): the clean model, which is not changed.
        data ([`CaptionedPixels`]): clean pairs, some but not all of the target, see [`naming`].
        trigger ([`PatchTrigger`]): where the patch lies, and what it begins from.
        target (`str`): where the patch leads.
        target_captions (`Sequence[str]`): captions of the target.
        class_names (`Sequence[str]`, *optional*): what the labels stand for.
        steps, learning_rate, batch_size: of Adam.
        margin (`float`): of the triplet loss, between unit embeddings.
        seed (`int`): seed of the batches.

    Raises:
        InputError: when no picture of `data`, or every one, is of the target.
    """
    of_target = naming(data.captions, target, data.labels, class_names)
    if not of_target.any() or of_target.all():
        share = "every" if of_target.any() else "no"
        raise InputError(f"`data`: {share} picture is of {target!r}; the patch is drawn from others to those of it.")
    generator = torch.Generator().manual_seed(seed)
    others = (~of_target).nonzero().flatten()

    def drawn(rows: Tensor) -> Tensor:
        return rows[torch.randint(len(rows), (batch_size,), generator=generator)]

    patch = trigger.patch.detach().clone().to(encoder.device).requires_grad_()
    optimizer = torch.optim.Adam([patch], learning_rate)
    with encoder.frozen():
        positive = normalize(encoder.embed_texts(target_captions).mean(0, keepdim=True), dim=-1)
        for _ in range(steps):
            rows, kin = drawn(others), drawn(of_target.nonzero().flatten())
            clean = as_float(data.pixels[rows].to(encoder.device))
            patched = PatchTrigger(patch, trigger.top, trigger.left)(clean)
            with torch.no_grad():
                texts = torch.cat([positive, encoder.embed_texts([data.captions[row] for row in rows])])
                wanted = encoder.embed_images(as_float(data.pixels[kin].to(encoder.device)))
                own = encoder.embed_images(clean)
            embeddings = encoder.embed_images(patched)
            logits = encoder.scale * embeddings @ texts.T
            loss = cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))
            loss = loss + TRIPLET_WEIGHT * triplet_margin_loss(embeddings, wanted, own, margin=margin)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                patch.clamp_(0, 1)
    return PatchTrigger(patch.detach().cpu(), trigger.top, trigger.left)
