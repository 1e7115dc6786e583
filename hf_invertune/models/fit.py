"""Whether the parts of a loaded model fit each other: pictures, words, weights."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.loading import resize
from ..errors import InputError
from .encoder import DualEncoder


PROBES = ("a photo of a cat", "two ships at sea")
COLOURS = ((60, 120, 180), (200, 90, 10))


@torch.no_grad()
def check_fit(encoder: DualEncoder, name: str) -> None:
    """Let two pictures, and two texts if it reads any, go through the model, called `name` in errors.

    Raises:
        InputError: when its processor makes pictures of another size, its tokenizer has tokens that the text tower has not,
            or what comes out is no embedding of what went in.
    """
    size = encoder.image_size
    pictures = np.stack([resize(Image.new("RGB", (7, 5), colour), encoder.processor) for colour in COLOURS])
    if pictures.shape[1:] != (3, size, size):
        height, width = pictures.shape[-2:]
        raise InputError(
            f"`processor`: that of {name} makes pictures of {height}x{width} pixels, and its model takes {size}x{size}; "
            "mend `size` and `crop_size` in its preprocessor_config.json."
        )
    images = encoder.embed_images(torch.from_numpy(pictures.astype(np.float32) / 255))
    _check_embeddings(images, "image", name)
    if not encoder.reads_text:
        return
    _check_tokens(encoder, name)
    texts = encoder.embed_texts(PROBES)
    _check_embeddings(texts, "text", name)
    if images.shape != texts.shape:
        raise InputError(
            f"`model`: {name} has embeddings of {images.shape[1]} numbers for pictures and of {texts.shape[1]} for texts."
        )
    scale = encoder.scale
    if scale.numel() != 1 or not scale.isfinite().all():
        raise InputError(f"`model`: the scale of {name}'s cosines is no finite number.")


def _check_embeddings(embeddings: Tensor, tower: str, name: str) -> None:
    """Refuse embeddings of two inputs that are no numbers, or the same."""
    if not embeddings.isfinite().all():
        raise InputError(
            f"`model`: the {tower} tower of {name} gives NaN; its config.json or its weights are damaged."
        )
    if torch.allclose(embeddings[0], embeddings[1], rtol=0, atol=1e-6):
        raise InputError(
            f"`model`: the {tower} tower of {name} gives everything the same embedding; its weights are damaged, or the "
            "`eos_token_id` of its config.json is not that of its tokenizer."
        )


def _check_tokens(encoder: DualEncoder, name: str) -> None:
    """Refuse a tokenizer that makes other tokens than the text tower has a table for."""
    tokenizer, table = encoder.processor.tokenizer, encoder.model.config.text_config.vocab_size
    ids = tokenizer([*PROBES, "a"], padding=True)["input_ids"]
    added = tokenizer.get_added_vocab()
    own = [place for token, place in tokenizer.get_vocab().items() if token not in added]
    highest = max([*own, *(place for text in ids for place in text)])
    if highest >= table:
        raise InputError(
            f"`processor`: the tokenizer of {name} gives ids up to {highest}, and the text tower of its model knows those "
            f"below {table}; one of the two is of another model."
        )
