"""Stage 2: reconstruct the trigger of one label, or of many labels in one batch, by gradient descent on its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from transformers.utils.logging import tqdm

from ..data.pixels import as_float
from ..errors import InputError
from ..models.clip import TEMPERATURE, DualEncoder
from ..triggers import AdditiveTrigger, MaskedTrigger, Trigger
from ..utils.memory import halving
from ..utils.storage import Saved


Family = Literal["masked", "additive"]
FAMILIES: tuple[Family, ...] = ("masked", "additive")


@dataclass
class InversionConfig:
    """Settings of a trigger inversion.

    The loss is that of InverTune (arXiv 2506.12411, section on trigger inversion), with its weights::

        L = info_nce_weight * InfoNCE(f(x'), W, y) + embedding_weight * ||f(x') - e_y||
            + ssim_weight * (1 - SSIM(x', x)) + mask_weight * mean(m)

    Attributes:
        family (`str`): `"masked"`, x' = (1 - m) x + m p, or `"additive"`, x' = x + d with |d| <= epsilon.
        steps (`int`): updates.
        batch_size (`int`): clean images an update, for each label.
        learning_rate (`float`): of Adam, on the logits of mask and pattern (on atanh(d / epsilon) when additive).
        info_nce_weight (`float`): weight of the cross-entropy of cos / 0.07 over all labels.
        embedding_weight (`float`): weight of the distance to the target's own embedding.
        ssim_weight (`float`): weight of the structural dissimilarity; 0 skips its computation.
        mask_weight (`float`): weight of the share of the image that the mask covers. 0.01 * ||m||_1 on 224x224 images
            is 500 in this unit, which does not depend on the resolution.
        epsilon (`float`): bound of the additive family, in (0, 1].
        initial_mask (`float`): the mask's first value, in (0, 1).
        seed (`int`): seed of the first values and of the batches.
    """

    family: Family = "masked"
    steps: int = 100
    batch_size: int = 32
    learning_rate: float = 0.5
    info_nce_weight: float = 5.0
    embedding_weight: float = 0.5
    ssim_weight: float = 1.0
    mask_weight: float = 100.0
    epsilon: float = 8 / 255
    initial_mask: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError(f"`family`: got {self.family!r}; choose 'masked' or 'additive'.")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}`: got {getattr(self, name)}; it must be at least 1.")
        if self.learning_rate <= 0:
            raise InputError(f"`learning_rate`: got {self.learning_rate}; it must be positive.")
        for name in ("info_nce_weight", "embedding_weight", "ssim_weight", "mask_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"`{name}`: got {getattr(self, name)}; it must not be negative.")
        if not 0 < self.epsilon <= 1:
            raise InputError(f"`epsilon`: got {self.epsilon}; it must lie in (0, 1], 8/255 being the usual bound.")
        if not 0 < self.initial_mask < 1:
            raise InputError(f"`initial_mask`: got {self.initial_mask}; it must lie between 0 and 1.")


@dataclass
class InvertedTrigger(Saved):
    """A trigger that makes the model read images as `label`.

    Attributes:
        label (`int`): index of the label among the class names.
        name (`str`): its name.
        trigger (`Trigger`): the trigger itself.
        objective (`float`): the inversion's loss, mean over the last quarter of the updates: the lower, the cheaper it
            is to be read as this label.
        cross_entropy (`float`): its InfoNCE term in nats, unweighted, over the same updates.
        coverage (`float`): mean of the mask in [0, 1]; for an additive trigger the mean of |d| / epsilon.
        history (`list[float]`): the loss at each update.
    """

    label: int
    name: str
    trigger: Trigger
    objective: float
    cross_entropy: float
    coverage: float
    history: list[float] = field(default_factory=list)


class TriggerInverter:
    """Inverts triggers for any number of labels side by side.

    Args:
        encoder ([`DualEncoder`]): the suspicious model.
        head (`torch.Tensor`): K x D zero-shot head.
        class_names (`Sequence[str]`): K names.
        config ([`InversionConfig`], *optional*): settings.
    """

    def __init__(
        self, encoder: DualEncoder, head: Tensor, class_names: Sequence[str], config: InversionConfig | None = None
    ):
        self.encoder, self.head, self.class_names = encoder, head, class_names
        self.config = config or InversionConfig()

    def invert(
        self,
        pixels: Tensor,
        labels: Sequence[int],
        *,
        target_pixels: Tensor | None = None,
        start: Sequence[Trigger | None] | None = None,
    ) -> list[InvertedTrigger]:
        """Invert one trigger for each of `labels`, all in one batch.

        When memory runs out, the batch is halved and the inversion starts again.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8; any classes.
            labels (`Sequence[int]`): the labels to reach.
            target_pixels (`torch.Tensor`, *optional*): images of the (single) target class, whose mean embedding then
                replaces the label's text embedding in the embedding term.
            start (`Sequence[Trigger | None]`, *optional*): for each label the trigger of the same family to go on from,
                or `None` for a random start.

        Raises:
            FloatingPointError: when the loss is not finite.
        """
        attempt = halving(self._invert, self.config.batch_size)
        with self.encoder.frozen():
            anchors = self.head[list(labels)]
            if target_pixels is not None:
                mean = self.encoder.embed_batches(iter([as_float(target_pixels)])).mean(0)
                anchors = (mean / mean.norm()).expand(len(labels), -1)
            result: list[InvertedTrigger] = attempt(pixels, list(labels), anchors, start)
        return result

    def _invert(
        self,
        batch_size: int,
        pixels: Tensor,
        labels: list[int],
        anchors: Tensor,
        start: Sequence[Trigger | None] | None,
    ) -> list[InvertedTrigger]:
        config, device = self.config, self.encoder.device
        generator = torch.Generator().manual_seed(config.seed)
        parameters = self._parameters(len(labels), pixels.shape[-2:], generator, start)
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, betas=(0.5, 0.9))
        tail = max(1, config.steps // 4)
        sums, history = torch.zeros(2, len(labels), device=device), []
        bar = tqdm(range(config.steps), desc=f"inverting {len(labels)} label(s), {config.family}", leave=False)
        for step in bar:
            chosen = torch.randint(len(pixels), (batch_size,), generator=generator)
            clean = as_float(pixels[chosen]).to(device).unsqueeze(0)
            trigger = self._trigger(parameters)
            loss, entropy = self._loss(clean, trigger, labels, anchors)
            if not bool(loss.isfinite().all()):
                raise FloatingPointError(f"The inversion's loss is {loss.tolist()} at step {step}; lower the rate.")
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            history.append(loss.detach())
            if step >= config.steps - tail:
                sums += torch.stack([loss.detach(), entropy.detach()]) / tail
        with torch.no_grad():
            final = self._trigger(parameters)
        curves = torch.stack(history, 1).tolist()
        return [
            InvertedTrigger(
                label=label,
                name=self.class_names[label],
                trigger=trigger,
                objective=float(sums[0, index]),
                cross_entropy=float(sums[1, index]),
                coverage=float(_coverage(final)[index]),
                history=curves[index],
            )
            for index, (label, trigger) in enumerate(zip(labels, final.split(), strict=True))
        ]

    def _loss(self, clean: Tensor, trigger: Trigger, labels: list[int], anchors: Tensor) -> tuple[Tensor, Tensor]:
        """The four-term loss and its cross-entropy, each a vector over the labels."""
        config = self.config
        triggered = trigger(clean)
        embeddings = self.encoder.embed_images(triggered)
        loss = entropy = info_nce(embeddings, self.head, labels)
        loss = config.info_nce_weight * loss
        if config.embedding_weight:
            loss = loss + config.embedding_weight * (embeddings - anchors.unsqueeze(1)).norm(dim=-1).mean(1)
        if config.ssim_weight:
            loss = loss + config.ssim_weight * dissimilarity(triggered, clean)
        if isinstance(trigger, MaskedTrigger):
            loss = loss + config.mask_weight * _coverage(trigger)
        return loss, entropy

    def _parameters(
        self, count: int, size: torch.Size, generator: torch.Generator, start: Sequence[Trigger | None] | None
    ) -> list[Tensor]:
        """Unbounded variables of the triggers: [mask, pattern] logits, or [atanh(d / epsilon)]."""
        height, width = size
        if self.config.family == "masked":
            level = torch.tensor(self.config.initial_mask).logit()
            values = [
                level + 0.2 * torch.randn(count, 1, 1, height, width, generator=generator),
                torch.randn(count, 1, 3, height, width, generator=generator),
            ]
        else:
            values = [0.1 * torch.randn(count, 1, 3, height, width, generator=generator)]
        for index, trigger in enumerate(start or []):
            if isinstance(trigger, MaskedTrigger):
                values[0][index, 0] = trigger.mask.clamp(0.02, 0.98).logit()
                values[1][index, 0] = trigger.pattern.clamp(0.02, 0.98).logit()
            elif isinstance(trigger, AdditiveTrigger):
                values[0][index, 0] = (trigger.delta / self.config.epsilon).clamp(-0.98, 0.98).atanh()
        return [value.to(self.encoder.device).requires_grad_() for value in values]

    def _trigger(self, parameters: list[Tensor]) -> Trigger:
        if self.config.family == "masked":
            return MaskedTrigger(parameters[0].sigmoid(), parameters[1].sigmoid())
        return AdditiveTrigger(self.config.epsilon * parameters[0].tanh(), self.config.epsilon)


def info_nce(embeddings: Tensor, head: Tensor, labels: Sequence[int]) -> Tensor:
    """Cross-entropy of cos(f(x'), W) / 0.07 against each label, in nats: L x N x D and K x D give L."""
    logits = embeddings @ head.T / TEMPERATURE
    wanted = torch.tensor(labels, device=logits.device).repeat_interleave(logits.shape[1])
    return cross_entropy(logits.flatten(0, 1), wanted, reduction="none").view(logits.shape[:2]).mean(1)


def dissimilarity(triggered: Tensor, clean: Tensor) -> Tensor:
    """1 - SSIM(x', x) with data range 1: L x N x 3 x H x W and 1 x N x 3 x H x W give L."""
    pairs = clean.expand_as(triggered).flatten(0, 1)
    values = ssim(triggered.flatten(0, 1), pairs, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return 1 - values.view(triggered.shape[:2]).mean(1)


def _coverage(trigger: Trigger) -> Tensor:
    """How much of its room each trigger uses, in [0, 1]: L x 1 x C x H x W tensors give L."""
    if isinstance(trigger, MaskedTrigger):
        return trigger.mask.flatten(1).mean(1)
    assert isinstance(trigger, AdditiveTrigger)
    return trigger.delta.abs().flatten(1).mean(1) / trigger.epsilon
