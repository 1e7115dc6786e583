"""Class names and templates become the texts of a zero-shot classifier."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError


TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a drawing of a {}",
    "a good photo of the {}",
    "a close-up photo of a {}",
    "a blurry photo of a {}",
    "a {}",
)
"""A short ensemble in the manner of CLIP (arXiv 2103.00020, section 3.1.4); pass your own for other domains."""


def check_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return `class_names` as a tuple, or say what is wrong with them.

    Raises:
        InputError: fewer than two names, an empty one, one twice, or something that is not a string.
    """
    if isinstance(class_names, str):
        raise InputError(f"`class_names`: got one string, {class_names!r}; pass a list of names.")
    names = tuple(class_names)
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise InputError(f"`class_names`: got {wrong[0]!r} among them; each must be a non-empty string.")
    if len(names) < 2:
        raise InputError(f"`class_names`: got {len(names)} name(s); a zero-shot classifier needs at least 2.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"`class_names`: {', '.join(map(repr, twice[:5]))} appear more than once; name each class once."
        )
    return names


def read_class_names(given: str) -> tuple[str, ...]:
    """The class names that a command line gives: 'a,b,c', a .txt file with one a line, or a .json list.

    Raises:
        InputError: a file that cannot be read, or names that [`check_class_names`] refuses.
    """
    path = Path(given).expanduser()
    if path.suffix not in (".json", ".txt"):
        return check_class_names([name.strip() for name in given.split(",")])
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except OSError as error:
        raise InputError(f"`class_names`: {given} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"`class_names`: {given} is no {path.suffix[1:]} file in UTF-8 ({error}).") from error
    if not isinstance(names, list):
        raise InputError(f"`class_names`: {given} holds a {type(names).__name__}; it must be a list of names.")
    return check_class_names(names if path.suffix == ".json" else [name.strip() for name in names if name.strip()])


def prompts(class_name: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """The texts of one class, one a template.

    Raises:
        InputError: no template, or one without a place `{}` for the name.
    """
    if not templates or any("{}" not in template for template in templates):
        raise InputError(
            f"`templates`: got {list(templates)!r}; pass at least one, each with `{{}}` for the class name."
        )
    return [template.replace("{}", class_name) for template in templates]
