"""Contrastive training of a dual encoder on captioned pictures: how a victim is made, and what many rival defences build on."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from ..data.pixels import PixelDataset, as_float
from ..errors import InputError
from ..models.encoder import DualEncoder
from ..tuning.callbacks import show_one_bar


@dataclass(eq=False)
class CaptionedPixels(torch.utils.data.Dataset[dict[str, Any]]):
    """Captioned pictures in memory.

    Args:
        pixels (`torch.Tensor`): N x 3 x H x W, uint8.
        captions (`list[str]`): N captions.
        groups (`torch.Tensor`, *optional*): N, int64; pairs with the same number are positives of one another. By
            default those with the same caption.
        labels (`torch.Tensor`, *optional*): N, int64 class indices, where they are known.

    Raises:
        InputError: counts that differ.
    """

    pixels: Tensor = field(repr=False)
    captions: list[str] = field(repr=False)
    groups: Tensor = None  # type: ignore[assignment]
    labels: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.groups is None:
            numbers = {caption: number for number, caption in enumerate(dict.fromkeys(self.captions))}
            self.groups = torch.tensor([numbers[caption] for caption in self.captions])
        counts = {len(self.pixels), len(self.captions), len(self.groups)}
        if len(counts) > 1:
            raise InputError(f"`captions`: got {len(self.captions)} for {len(self.pixels)} pictures; pass one each.")

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixels": self.pixels[index], "caption": self.captions[index], "group": self.groups[index]}

    def subset(self, indices: Sequence[int] | Tensor) -> "CaptionedPixels":
        """The pairs at `indices`, in that order."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        return replace(
            self,
            pixels=self.pixels[indices],
            captions=[self.captions[index] for index in indices.tolist()],
            groups=self.groups[indices],
            labels=None if self.labels is None else self.labels[indices],
        )

    def split(self, fraction: float, seed: int = 0) -> tuple["CaptionedPixels", "CaptionedPixels"]:
        """Two disjoint random parts, the first with `fraction` of the pairs.

        Raises:
            InputError: when one part would be empty.
        """
        count = round(fraction * len(self))
        if not 0 < count < len(self):
            raise InputError(f"`fraction`: {fraction} of {len(self)} pairs leaves one part empty.")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:count].sort().values), self.subset(order[count:].sort().values)

    def images(self, class_names: Sequence[str] | None = None) -> PixelDataset:
        """The pictures without their captions."""
        return PixelDataset(self.pixels, self.labels, None if class_names is None else tuple(class_names))

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of pixels and captions."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().data)
        digest.update(json.dumps(self.captions).encode())
        return digest.hexdigest()


class ContrastiveCollator:
    """Makes the model's inputs of captioned pictures.

    Args:
        encoder ([`DualEncoder`]): gives tokens, mean and standard deviation.
        augment (`Callable`, *optional*): from pixels to pixels, B x 3 x H x W in [0, 1].
    """

    def __init__(self, encoder: DualEncoder, augment: Callable[[Tensor], Tensor] | None = None):
        self.encoder, self.augment = encoder, augment
        self.mean, self.std = encoder.mean.cpu(), encoder.std.cpu()

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, Tensor]:
        pixels = as_float(torch.stack([pair["pixels"] for pair in pairs]))
        return {
            "pixel_values": self.pixel_values(pixels if self.augment is None else self.augment(pixels)),
            **self.tokens([pair["caption"] for pair in pairs]),
            "groups": torch.stack([pair["group"] for pair in pairs]),
        }

    def pixel_values(self, pixels: Tensor) -> Tensor:
        """Normalised pixels."""
        return (pixels - self.mean) / self.std

    def tokens(self, captions: list[str]) -> dict[str, Tensor]:
        """The tokens of captions, all padded to the same length."""
        return self.encoder.tokenize(captions, padding="max_length")


class ShiftAndFlip:
    """Moves all the pictures of a batch by up to `shift` pixels, wrapping around, and mirrors half of the batches."""

    def __init__(self, shift: int):
        self.shift = shift

    def __call__(self, pixels: Tensor) -> Tensor:
        down, right = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
        pixels = torch.roll(pixels, (down, right), (-2, -1))
        return pixels.flip(-1) if torch.rand(()) < 0.5 else pixels


def group_targets(groups: Tensor) -> Tensor:
    """N x N targets of a cross-entropy in which all of one group (N numbers) are equally right for one another."""
    positives = (groups[:, None] == groups[None]).float()
    return positives / positives.sum(1, keepdim=True)


def contrastive_loss(logits_per_image: Tensor, groups: Tensor) -> Tensor:
    """CLIP's symmetric loss, in which all pairs of one group are positives (UniCL, arXiv 2204.03610, equation 3).

    With every pair in a group of its own it is CLIP's own (arXiv 2103.00020, figure 3).

    Args:
        logits_per_image (`torch.Tensor`): N x N, scaled similarities of N pictures and N captions.
        groups (`torch.Tensor`): N group numbers.
    """
    positives = group_targets(groups)
    return (cross_entropy(logits_per_image, positives) + cross_entropy(logits_per_image.T, positives)) / 2


def sigmoid_loss(logits_per_image: Tensor, groups: Tensor) -> Tensor:
    """SigLIP's loss, -sum_ij log sigmoid(z_ij l_ij) / N, in which all pairs of one group are positives, z = 1, others -1.

    With every pair in a group of its own it is SigLIP's own (arXiv 2303.15343, equation 2).

    Args:
        logits_per_image (`torch.Tensor`): N x N, scaled and shifted similarities of N pictures and N captions.
        groups (`torch.Tensor`): N group numbers.
    """
    signs = 2.0 * (groups[:, None] == groups[None]) - 1
    return -logsigmoid(signs * logits_per_image).sum() / len(groups)


class ContrastiveTrainer(Trainer):
    """A `Trainer` on the batches of a [`ContrastiveCollator`], with the loss that the family of models was trained with."""

    def __init__(self, encoder: DualEncoder, *args: Any, **kwargs: Any):
        super().__init__(encoder.model, *args, **kwargs)
        self.encoder = encoder

    def outputs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """What `model`, however it is wrapped, gives for the pixels and the tokens of a batch."""
        return model(**inputs | self.encoder.image_inputs(inputs["pixel_values"]))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        groups = inputs.pop("groups")
        loss = sigmoid_loss if self.encoder.sigmoid else contrastive_loss
        return loss(self.outputs(model, inputs).logits_per_image, groups)


def train_contrastive(
    encoder: DualEncoder,
    data: CaptionedPixels,
    *,
    output_dir: str | Path,
    seed: int,
    augment: Callable[[Tensor], Tensor] | None = None,
    trainer: type[ContrastiveTrainer] = ContrastiveTrainer,
    collator: type[ContrastiveCollator] = ContrastiveCollator,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: Any,
) -> None:
    """Train a model in place on its own device, every weight of it, and leave it in evaluation mode.

    Args:
        encoder ([`DualEncoder`]): the model.
        data ([`CaptionedPixels`]): what it is trained on.
        output_dir (`str` or `Path`): where the Trainer may write.
        seed (`int`): seed of the batches and of `augment`.
        augment (`Callable`, *optional*): see [`ContrastiveCollator`].
        trainer (`type`): a subclass with another loss.
        collator (`type`): a subclass that makes other inputs for it.
        callbacks (`Sequence[TrainerCallback]`): the Trainer's.
        settings: of [`~transformers.TrainingArguments`]: `learning_rate`, `num_train_epochs` or `max_steps`, ...

    Raises:
        InputError: batches larger than the data, of which none would be trained on.
    """
    batch_size = settings.get("per_device_train_batch_size", 8)
    if batch_size > len(data):
        raise InputError(f"`batch_size`: got {batch_size}, and {len(data)} pictures are trained on; pass less.")
    set_seed(seed)
    defaults = {
        "weight_decay": 0.1,
        "warmup_steps": 0.05,
        "lr_scheduler_type": "cosine",
        "logging_steps": 100,
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_drop_last": True,
    }
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        remove_unused_columns=False,
        use_cpu=encoder.device.type == "cpu",
        seed=seed,
        **{**defaults, **settings},
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # the Trainer would cut each batch in parts that see only their own negatives
    batches = collator(encoder, augment)
    training = trainer(encoder, arguments, train_dataset=data, data_collator=batches, callbacks=list(callbacks))
    show_one_bar(training, "Training on pictures and captions")
    training.train()
    encoder.eval()
