"""Models that cannot be worked on: what is said of each, and what would help."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import InputError


VERSION = "pass a version of it as a CLIPModel or a SiglipModel of transformers, where there is one"
CROSSING = (
    "It looks at picture and text together, and triggers are looked for in embeddings; pass the CLIP that it builds on"
)
HELP = {
    "blip": CROSSING,
    "blip-2": CROSSING,
    "timm_wrapper": f"Its image tower is one of timm, which is not used here; {VERSION}",
}
"""What helps who has a model of that type."""


def refusal(config: Any, known: Iterable[str], name: str) -> str:
    """What to say of the model `name` with this `config`, whose type is none of the types `known`."""
    kind = "timm_wrapper" if has_timm_tower(config) else config.model_type
    help = f" {HELP[kind]}." if kind in HELP else ""
    return (
        f"`model`: {name} is a {kind!r} model; only {', '.join(map(repr, sorted(known)))} models are supported.{help}"
    )


def has_timm_tower(config: Any) -> bool:
    """Whether the image tower of a model with this `config` is one of timm."""
    return getattr(getattr(config, "vision_config", None), "model_type", None) == "timm_wrapper"


def refuse_own_code(file: Path, classes: Iterable[str], name: str) -> None:
    """Refuse the model `name` if its config.json, `file`, names code of its own and none of these `classes` to do without.

    Raises:
        InputError: when it does.
    """
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("auto_map") and not set(classes) & set(config.get("architectures") or []):
        code = config["auto_map"]
        own = code.get("AutoModel", next(iter(code.values()), "")) if isinstance(code, dict) else code
        raise InputError(f"`model`: {name} needs code of its own ({own!r:.80}), which is never run; {VERSION}.")
