"""Class names and templates become the texts of a zero-shot classifier."""

from collections.abc import Sequence

from ..errors import InputError


TEMPLATES: tuple[str, ...] = (
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


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Return `templates` as a tuple, or say what is wrong with them.

    Raises:
        InputError: no template, or one without a place `{}` for the name.
    """
    if not templates or any("{}" not in template for template in templates):
        raise InputError(
            f"`templates`: got {list(templates)!r}; pass at least one, each with `{{}}` for the class name."
        )
    return tuple(templates)


def prompts(class_name: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """The texts of one class, one a template.

    Raises:
        InputError: as [`check_templates`].
    """
    return [template.replace("{}", class_name) for template in check_templates(templates)]
