"""A model's processor, read with PIL for its pictures and without any code of the model's own."""

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, ProcessorMixin

from ..errors import InputError
from .stored import refusing


SETTINGS = ("processor_config.json", "preprocessor_config.json")
TOKENIZERS = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


def read_processor(folder: Path, kind: type[ProcessorMixin], name: str) -> ProcessorMixin:
    """The processor in `folder`, of the class `kind`; errors call its model `name`.

    Raises:
        InputError: when it is not there, is damaged, or needs a package that is not installed.
    """
    if not says_how_to_read_pictures(folder):
        raise InputError(
            f"`processor`: {name} holds neither {' nor '.join(SETTINGS)}; save its {kind.__name__} there."
        )
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise InputError(f"`processor`: {name} holds no {TOKENIZERS[0]}; save its {kind.__name__} there.")
    with refusing(f"`processor`: the {', '.join(SETTINGS)} or tokenizer of {name} cannot be used"):
        try:
            processor = kind.from_pretrained(folder, trust_remote_code=False)  # or it asks at the terminal
        except ImportError as error:
            reason = str(error).strip().partition("\n")[0].partition(". ")[0]
            raise InputError(
                f"`processor`: that of {name} needs a package that is not here ({reason}); for SigLIP's and other tokenizers "
                "of SentencePiece: pip install 'hf_invertune[sentencepiece]'."
            ) from error
        processor.image_processor = read_image_processor(folder)
    return processor


def says_how_to_read_pictures(folder: Path) -> bool:
    """Whether `folder` has one of the [`SETTINGS`]."""
    return any((folder / file).is_file() for file in SETTINGS)


def read_image_processor(folder: Path) -> Any:
    """The image processor in `folder`."""
    return AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
