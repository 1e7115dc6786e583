"""A CLIP small enough to be trained on two cores: tokenizer, processor and model from a list of words."""

from collections.abc import Sequence
from typing import Any

from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins that byte-level BPE gives to the 256 bytes (GPT-2)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    table = {byte: chr(byte) for byte in kept} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
    return [table[byte] for byte in range(256)]


def make_tokenizer(words: Sequence[str], context: int) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of `words` is one token, whatever its case, and every other text falls back to bytes.

    CLIP's tokenizers cut texts at hyphens, apostrophes and digits first, so that a word with one takes several tokens.
    """
    alphabet = byte_alphabet()
    entries = [*alphabet, *(char + "</w>" for char in alphabet)]
    merges: list[Any] = []  # pairs, which the tokenizer takes and its signature does not know
    for word in sorted({word.lower() for word in words}):
        letters = [alphabet[byte] for byte in word.encode()]
        pieces = [*letters[:-1], letters[-1] + "</w>"]
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
    """A processor for square pictures of `image_size` pixels and texts of up to `context` tokens."""
    size = {"height": image_size, "width": image_size}
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=size)
    return CLIPProcessor(image_processor=image_processor, tokenizer=make_tokenizer(words, context))


def text_settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The settings of a text tower that come from its tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def make_clip(
    processor: CLIPProcessor, vision: dict[str, int], text: dict[str, int], projection_dim: int
) -> CLIPModel:
    """A CLIP with fresh weights; `vision` and `text` are settings of its two configs."""
    image_size = processor.image_processor.crop_size["height"]
    config = CLIPConfig(
        text_config={**text, **text_settings(processor.tokenizer), "projection_dim": projection_dim},
        vision_config={**vision, "image_size": image_size, "projection_dim": projection_dim},
        projection_dim=projection_dim,
    )
    return CLIPModel(config)
