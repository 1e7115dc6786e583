"""Settings by name: ours, a quicker search, and the method of the paper."""

from typing import Any

from ..errors import InputError, nearest
from .configs import RemovalConfig


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Less than half of the work: what is no patch, and what needs a word, is not looked for.
    "patches": {
        "scan": {"families": ["masked"], "gathering": {"families": ["window"]}, "words": []},
        "tuning": {"max_steps": 75, "search_steps": 0, "pool_size": 4},
    },
    # InverTune (arXiv 2506.12411): one family, one trigger that is inverted and stays as it is, critical layers only. The
    # label is found by a race, and where the paper tunes all weights at 2e-6 to 8e-6, this is a LoRA adapter at its own rate.
    "paper": {
        "scan": {"families": [{"kind": "masked", "mask_weight": 500.0}], "gathering": {"families": []}, "words": []},
        "inversion": {"steps": 200, "batch_size": 64},
        "tuning": {
            "max_steps": 200,
            "per_device_train_batch_size": 64,
            "preserve_weight": 0.5,
            "embedding_weight": 0.0,
            "search_steps": 0,
            "reinversion_steps": 0,
            "lora_layers": "critical",
        },
    },
}
"""What each preset sets; the rest is as ever."""


def preset(name: str) -> RemovalConfig:
    """The settings of that name.

    Args:
        name (`str`): `"default"`; `"patches"`, a search for patches alone; or `"paper"`, what InverTune's authors describe,
            with a LoRA adapter.

    Raises:
        InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"`preset`: got {name!r}; {nearest(name, PRESETS)}.")
    return RemovalConfig.of(PRESETS[name])
