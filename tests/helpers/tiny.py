"""A CLIP small enough to be built for every test session: random weights, the real processor and tokenizer."""

from pathlib import Path

from transformers import set_seed

from hf_invertune.lab.zoo.small_clip import make_clip, make_processor


CLASS_NAMES = ("red circle", "blue square", "green ring", "white cross")
WORDS = sorted(
    {*" ".join(CLASS_NAMES).split(), *["a", "photo", "picture", "drawing", "good", "close-up", "blurry", "of", "the"]}
)
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_tiny(folder: Path) -> None:
    """Write the model and its processor into `folder`, as `save_pretrained` does."""
    set_seed(0)
    processor = make_processor(WORDS, context=24, image_size=32)
    make_clip(processor, VISION, TEXT, projection_dim=16).save_pretrained(folder)
    processor.save_pretrained(folder)
