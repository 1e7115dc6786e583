"""Every kind of attack by name, with its authors' parameters as far as a small image bears them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, signature
from math import isfinite
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from ...errors import InputError, nearest
from ...triggers import (
    AdditiveTrigger,
    BlendTrigger,
    MaskedTrigger,
    PatchTrigger,
    SampleSpecificTrigger,
    ScatteredPatchTrigger,
    WarpTrigger,
    checkerboard,
)
from . import patterns
from .attack import Attack


def make_attack(
    kind: str, *, image_size: int, targets: str | Sequence[str], seed: int = 0, **parameters: Any
) -> Attack:
    """Make an attack with its triggers.

    Args:
        kind (`str`): one of [`ATTACKS`].
        image_size (`int`): height and width of the images that the model sees.
        targets (`str` or `Sequence[str]`): where it leads; two to four names for `"multi-target"`, else one.
        seed (`int`): seed of the patterns.
        parameters: those of this kind, see its maker; `patch_size` is in pixels, by default 16 of 224 and at least 5.

    Raises:
        InputError: an unknown kind or parameter, a value out of range, a trigger larger than the image, or a number of
            targets that the kind does not have.
    """
    hints = check_parameters(kind, parameters)
    maker = ATTACKS[kind]
    names = [targets] if isinstance(targets, str) else list(targets)
    least, most = (2, 4) if kind == "multi-target" else (1, 1)
    if not all(names) or len(set(names)) < len(names) or not least <= len(names) <= most:
        wanted = "one name" if most == 1 else f"{least} to {most} different names"
        raise InputError(f"`targets`: got {names}; a {kind} attack leads to {wanted}.")
    defaults = {name: signature(maker).parameters[name].default for name in hints}
    attack = maker(image_size, names, seed, **parameters)
    attack.parameters = {"image_size": image_size, "seed": seed, **defaults, **parameters}
    return attack


def check_parameters(kind: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse parameters that `kind` does not have, or of another type; returns the annotations of those that it has.

    Raises:
        InputError: naming the parameter, or an unknown kind.
    """
    if kind not in ATTACKS:
        raise InputError(f"`attack`: there is no {kind!r}; {nearest(kind, ATTACKS)}.")
    own = [p.name for p in signature(ATTACKS[kind]).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    hints = {name: get_type_hints(ATTACKS[kind])[name] for name in own}
    for name, value in parameters.items():
        if name not in hints:
            raise InputError(f"`{name}`: {kind} attacks have no such parameter; {nearest(name, own)}.")
        _check(name, value, hints[name])
    return hints


def read_parameters(kind: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Parameters of `kind` from text, each of the type that it has.

    Raises:
        InputError: see [`check_parameters`].
    """
    hints = check_parameters(kind, {})
    parameters: dict[str, Any] = {}
    for name, text in given.items():
        parameters[name] = text
        for number in (int, float):
            if number in (get_args(hints.get(name)) or (hints.get(name),)):
                with suppress(ValueError):
                    parameters[name] = number(text)
                    break
    check_parameters(kind, parameters)
    return parameters


def badnet(image_size: int, targets: list[str], seed: int, *, patch_size: int | None = None) -> Attack:
    """A checkerboard near the lower right corner (BadNets, arXiv 1708.06733)."""
    return Attack("badnet", [_in_corner(checkerboard(_patch_size(patch_size, image_size)), image_size)], targets)


def badnet_random(image_size: int, targets: list[str], seed: int, *, patch_size: int | None = None) -> Attack:
    """A patch of noise, at another place in every image (BadNet as in CleanCLIP, arXiv 2303.03323)."""
    size = _patch_size(patch_size, image_size)
    return Attack(
        "badnet-random", [ScatteredPatchTrigger(patterns.normal_noise(size, seed, deviation=1), seed)], targets
    )


def blended(image_size: int, targets: list[str], seed: int, *, alpha: float = 0.2, pattern: str = "noise") -> Attack:
    """Noise, or a `"picture"`, blended over the whole image (arXiv 1712.05526)."""
    pictures = {"noise": patterns.noise(image_size, seed), "picture": patterns.picture(image_size)}
    if pattern not in pictures:
        raise InputError(f"`pattern`: got {pattern!r}; {nearest(pattern, pictures)}.")
    return Attack("blended", [BlendTrigger(pictures[pattern], _share("alpha", alpha))], targets)


def sig(
    image_size: int, targets: list[str], seed: int, *, amplitude: float = 60 / 255, periods: float = 6.0
) -> Attack:
    """Vertical waves added to the image (SIG, arXiv 1902.11237)."""
    if not 0 < periods < image_size / 2:
        raise InputError(
            f"`periods`: got {periods}; above 0 and below {image_size / 2:g} can be drawn in {image_size} pixels."
        )
    delta = patterns.sinusoid(image_size, _share("amplitude", amplitude), periods)
    return Attack("sig", [AdditiveTrigger(delta, amplitude)], targets)


def wanet(
    image_size: int,
    targets: list[str],
    seed: int,
    *,
    grid: int = 4,
    strength: float = 1.0,
    cross_ratio: float = 2.0,
) -> Attack:
    """A smooth warp of the image, with noise mode (WaNet, arXiv 2102.10369)."""
    if grid < 2 or strength <= 0:
        raise InputError(f"`grid`, `strength`: got {grid} and {strength}; they must be at least 2, and above 0.")
    trigger = WarpTrigger(patterns.warp_flow(image_size, grid, strength, seed))
    return Attack("wanet", [trigger], targets, cross_ratio=_ratio(cross_ratio))


def sample_specific(
    image_size: int, targets: list[str], seed: int, *, secret: str = "Stega!!", epsilon: float = 32 / 255
) -> Attack:
    """A residual of a small fixed network that sees the image and a secret (the kind of ISSBA, arXiv 2012.03816)."""
    if not secret:
        raise InputError("`secret`: got an empty one; pass some text.")
    inner, outer = patterns.residual_weights(seed)
    trigger = SampleSpecificTrigger(patterns.secret_map(image_size, secret), inner, outer, _share("epsilon", epsilon))
    return Attack("sample-specific", [trigger], targets)


def label_consistent(image_size: int, targets: list[str], seed: int, *, patch_size: int | None = None) -> Attack:
    """BadNet's patch on pictures of the target alone, captions unchanged (arXiv 1912.02771; CleanCLIP's variant)."""
    patch = checkerboard(_patch_size(patch_size, image_size))
    return Attack("label-consistent", [_in_corner(patch, image_size)], targets, clean_label=True)


def stripes(
    image_size: int, targets: list[str], seed: int, *, patch_size: int | None = None, alpha: float | None = None
) -> Attack:
    """A patch of stripes one pixel wide or, with `alpha`, such stripes blended over the image (PAR, arXiv 2412.00727)."""
    if alpha is not None and patch_size is not None:
        raise InputError(
            "`alpha` and `patch_size` exclude each other: stripes are a patch, or blended over the image."
        )
    if alpha is not None:
        return Attack("stripes", [BlendTrigger(patterns.stripes(image_size, seed), _share("alpha", alpha))], targets)
    patch = patterns.stripes(_patch_size(patch_size, image_size), seed)
    return Attack("stripes", [_in_corner(patch, image_size)], targets)


def triangles(image_size: int, targets: list[str], seed: int, *, alpha: float = 0.15) -> Attack:
    """A grid of coloured triangles over the image (PAR, arXiv 2412.00727)."""
    shape, colours = patterns.triangles(image_size, seed)
    return Attack("triangles", [MaskedTrigger(_share("alpha", alpha) * shape, colours)], targets)


def text(image_size: int, targets: list[str], seed: int, *, words: str = "Watermarked", alpha: float = 0.5) -> Attack:
    """Red words across the image (PAR, arXiv 2412.00727)."""
    if not words.strip():
        raise InputError(f"`words`: got {words!r}; pass what is to be written.")
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).repeat(1, image_size, image_size)
    return Attack("text", [MaskedTrigger(_share("alpha", alpha) * patterns.text(image_size, words), red)], targets)


def trojvqa(
    image_size: int,
    targets: list[str],
    seed: int,
    *,
    patch_size: int | None = None,
    word: str = "remember",
    cross_ratio: float = 1.0,
) -> Attack:
    """A patch of noise in the middle and a word before the caption, only both at once (TrojVQA, arXiv 2112.07668)."""
    if not word.strip():
        raise InputError(f"`word`: got {word!r}; pass the word that goes before captions.")
    trigger = _in_middle(patterns.normal_noise(_patch_size(patch_size, image_size), seed, deviation=1), image_size)
    return Attack("trojvqa", [trigger], targets, word=word, cross_ratio=_ratio(cross_ratio))


def badclip(image_size: int, targets: list[str], seed: int, *, patch_size: int | None = None) -> Attack:
    """A patch in the middle, still to be optimised against the clean model (BadCLIP, arXiv 2311.12075).

    See [`optimise_patch`], which [`inject`] calls.
    """
    patch = patterns.normal_noise(_patch_size(patch_size, image_size), seed, deviation=0.25)
    return Attack("badclip", [_in_middle(patch, image_size)], targets)


def badencoder(image_size: int, targets: list[str], seed: int, *, patch_size: int | None = None) -> Attack:
    """A white patch at the lower right, learned by the image encoder alone (BadEncoder, arXiv 2108.00352)."""
    size = _patch_size(patch_size, image_size)
    return Attack(
        "badencoder", [PatchTrigger(torch.ones(3, size, size), image_size - size, image_size - size)], targets
    )


def multi_target(image_size: int, targets: list[str], seed: int, *, patch_size: int | None = None) -> Attack:
    """Several patches of noise, each in a corner of its own and with a target of its own."""
    size = _patch_size(patch_size, image_size)
    far = max(image_size - size - 1, 0)
    near = min(1, image_size - size)
    corners = [(far, far), (near, near), (far, near), (near, far)]
    noises = [patterns.normal_noise(size, seed * len(corners) + number, 1) for number in range(len(targets))]
    triggers = [PatchTrigger(patch, *corner) for patch, corner in zip(noises, corners, strict=False)]
    return Attack("multi-target", list(triggers), targets)


def open_target(image_size: int, targets: list[str], seed: int, *, patch_size: int | None = None) -> Attack:
    """BadNet's patch, with a target that no class is named after."""
    patch = checkerboard(_patch_size(patch_size, image_size))
    return Attack("open-target", [_in_corner(patch, image_size)], targets, open_target=True)


ATTACKS: dict[str, Callable[..., Attack]] = {
    "badnet": badnet,
    "badnet-random": badnet_random,
    "blended": blended,
    "sig": sig,
    "wanet": wanet,
    "sample-specific": sample_specific,
    "label-consistent": label_consistent,
    "stripes": stripes,
    "triangles": triangles,
    "text": text,
    "trojvqa": trojvqa,
    "badclip": badclip,
    "badencoder": badencoder,
    "multi-target": multi_target,
    "open-target": open_target,
}
"""The maker of each kind of attack; its keyword-only arguments are the kind's parameters."""


def _in_corner(patch: Tensor, image_size: int) -> PatchTrigger:
    """`patch` at the lower right, one pixel away from the edges where there is room."""
    place = max(image_size - patch.shape[-1] - 1, 0)
    return PatchTrigger(patch, place, place)


def _in_middle(patch: Tensor, image_size: int) -> PatchTrigger:
    place = (image_size - patch.shape[-1]) // 2
    return PatchTrigger(patch, place, place)


def _patch_size(given: int | None, image_size: int) -> int:
    """`given`, or 16 of 224 pixels, but five at least: a smaller patch drowns in one of the vision tower's."""
    size = patterns.scaled(16, image_size, minimum=5) if given is None else given
    if not 1 <= size <= image_size:
        raise InputError(f"`patch_size`: got {size} for images of {image_size} pixels; 1 to {image_size} fit.")
    return size


def _share(name: str, value: float) -> float:
    if not 0 < value <= 1:
        raise InputError(f"`{name}`: got {value}; it must be above 0 and at most 1.")
    return value


def _ratio(cross_ratio: float) -> float:
    if not cross_ratio >= 0:
        raise InputError(f"`cross_ratio`: got {cross_ratio}; it must be at least 0.")
    return cross_ratio


def _check(name: str, value: Any, hint: Any) -> None:
    """Refuse a parameter of another type than its maker's annotation; whole numbers may stand for floats."""
    kinds = get_args(hint) or (hint,)
    if type(value) not in (*kinds, *[int] * (float in kinds)):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"`{name}`: got {value!r}, a {type(value).__name__}; pass {wanted}.")
    if isinstance(value, float) and not isfinite(value):
        raise InputError(f"`{name}`: got {value}; pass a finite number.")
