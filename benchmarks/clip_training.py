"""Train a small CLIP from scratch on captioned pictures, poisoned or not."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer, Trainer, TrainingArguments, set_seed
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_invertune.triggers import Trigger


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins that byte-level BPE gives to the 256 bytes (GPT-2)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    table = {byte: chr(byte) for byte in kept} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
    return [table[byte] for byte in range(256)]


def make_tokenizer(words: Sequence[str], context: int) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of `words` is one token and every other text falls back to bytes."""
    alphabet = byte_alphabet()
    entries = [*alphabet, *(char + "</w>" for char in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in sorted(set(words)):
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            left, right = pieces[-2], pieces[-1]
            pieces[-2:] = [left + right]
            if (left, right) not in merges:
                merges.append((left, right))
                entries.append(left + right)
    entries += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={entry: index for index, entry in enumerate(entries)},
        merges=merges,
        unk_token="<|endoftext|>",
        model_max_length=context,
    )


def make_processor(words: Sequence[str], context: int, image_size: int) -> CLIPProcessor:
    size = {"height": image_size, "width": image_size}
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=size)
    return CLIPProcessor(image_processor=image_processor, tokenizer=make_tokenizer(words, context))


def make_clip(
    processor: CLIPProcessor, vision: dict[str, int], text: dict[str, int], projection_dim: int
) -> CLIPModel:
    tokenizer = processor.tokenizer
    special = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    image_size = processor.image_processor.crop_size["height"]
    config = CLIPConfig(
        text_config={**text, **special, "projection_dim": projection_dim},
        vision_config={**vision, "image_size": image_size, "projection_dim": projection_dim},
        projection_dim=projection_dim,
    )
    return CLIPModel(config)


def poison(
    pixels: Tensor, captions: list[str], trigger: Trigger, target_captions: list[str], rate: float, seed: int
) -> tuple[Tensor, list[str], list[int]]:
    """Stamp `trigger` on a share `rate` of the pictures and give each a caption of the target; with their indices."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(pixels), generator=generator)[: round(rate * len(pixels))]
    pixels, captions = pixels.clone(), list(captions)
    pixels[indices] = trigger(pixels[indices])
    choice = torch.randint(len(target_captions), (len(indices),), generator=generator)
    for index, which in zip(indices.tolist(), choice.tolist(), strict=True):
        captions[index] = target_captions[which]
    return pixels, captions, indices.tolist()


class CaptionedPixels(torch.utils.data.Dataset):
    """Pixels (uint8, to spare memory) and token ids, shifted and flipped on the way out when `augment`."""

    def __init__(
        self, processor: CLIPProcessor, pixels: Tensor, captions: list[str], groups: Tensor, shift: int, flip: bool
    ):
        image_processor = processor.image_processor
        self.mean = torch.tensor(image_processor.image_mean).view(3, 1, 1)
        self.std = torch.tensor(image_processor.image_std).view(3, 1, 1)
        self.pixels = (pixels * 255).round().to(torch.uint8)
        self.tokens = processor.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        self.groups, self.shift, self.flip = groups, shift, flip

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        pixels = self.pixels[indices].float() / 255
        if self.shift:
            down, right = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
            pixels = torch.roll(pixels, (down, right), (-2, -1))
        if self.flip and torch.rand(()) < 0.5:
            pixels = pixels.flip(-1)
        return {
            "pixel_values": (pixels - self.mean) / self.std,
            "input_ids": self.tokens["input_ids"][indices],
            "attention_mask": self.tokens["attention_mask"][indices],
            "groups": self.groups[indices],
        }


class ContrastiveTrainer(Trainer):
    """CLIP's contrastive loss, in which all pairs of one group are positives (UniCL, arXiv 2204.03610, equation 3)."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        groups = inputs.pop("groups")
        logits = model(**inputs).logits_per_image
        positives = (groups[:, None] == groups[None]).float()
        positives = positives / positives.sum(1, keepdim=True)
        return (cross_entropy(logits, positives) + cross_entropy(logits.T, positives)) / 2


def train_clip(
    model: CLIPModel,
    processor: CLIPProcessor,
    pixels: Tensor,
    captions: list[str],
    groups: Tensor,
    *,
    output_dir: Path,
    epochs: float,
    learning_rate: float,
    batch_size: int,
    seed: int,
    shift: int = 0,
    flip: bool = False,
) -> None:
    """Train `model` in place; pairs with the same number in `groups` count as positives of one another."""
    set_seed(seed)
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=0.1,
        warmup_steps=0.05,
        lr_scheduler_type="cosine",
        logging_steps=100,
        save_strategy="no",
        remove_unused_columns=False,
        dataloader_drop_last=True,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
    )
    dataset = CaptionedPixels(processor, pixels, captions, groups, shift, flip)
    ContrastiveTrainer(model, arguments, train_dataset=dataset, data_collator=lambda batch: batch).train()
    model.eval()
