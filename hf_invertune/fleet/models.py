"""Which models are scanned: those that are named, those of a file, those that the Hub finds."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from ..errors import InputError, nearest
from ..utils.hub_errors import hub_errors
from ..utils.settings import load_file, read
from ..utils.tokens import usable_token


LIMIT = 100
"""How many models a search takes at most, where it does not say."""
TERMS = ("author", "filter", "search", "pipeline_tag", "limit")
"""What a search may ask for; see [`~huggingface_hub.HfApi.list_models`]."""


@dataclass(frozen=True)
class ModelSpec:
    """One model that is to be scanned.

    Attributes:
        model (`str`): a folder, a Hub id or the address of its page.
        revision (`str`, *optional*), subfolder (`str`, *optional*), variant (`str`, *optional*), text_model (`str`,
            *optional*): as in [`load_model`].
    """

    model: str
    revision: str | None = None
    subfolder: str | None = None
    variant: str | None = None
    text_model: str | None = None

    def __str__(self) -> str:
        """The model as it was given, and in brackets which of its versions is meant and what it is judged in, where said."""
        said = [one for one in (self.revision, self.subfolder, self.variant, self.text_model) if one is not None]
        return f"{self.model} ({', '.join(said)})" if said else self.model

    @classmethod
    def of(cls, model: "str | Path | ModelSpec") -> "ModelSpec":
        """The one that is meant."""
        return model if isinstance(model, ModelSpec) else cls(str(model))


def distinct_models(models: Iterable["str | Path | ModelSpec"]) -> list[ModelSpec]:
    """Each model once, in the order in which they were named first.

    Raises:
        InputError: when there is none.
    """
    specs = list(dict.fromkeys(map(ModelSpec.of, models)))
    if not specs:
        raise InputError("`models`: got none; name at least one model.")
    return specs


def read_models(path: str | Path) -> list[ModelSpec]:
    """The models of a file: names, one a line (what follows a `#` is a remark), or .yaml, .toml or .jsonl.

    These hold a name for each model, or its `model`, `revision`, `subfolder`, `variant` and `text_model`; .toml under the key `models`.

    Raises:
        InputError: when it cannot be read, or holds anything else.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml", ".toml"):
        value = load_file(path, "models")
        value = value.get("models") if isinstance(value, dict) else value
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"`models`: {path} cannot be read ({error}).") from error
        if suffix == ".jsonl":
            value = [_parsed(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]
        else:
            names = (re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip() for line in lines)
            value = [name for name in names if name]
    if not isinstance(value, list):
        raise InputError(f"`models`: {path} holds no list of models.")
    items: list[Any] = [{"model": item} if isinstance(item, str) else item for item in value]
    return read(list[ModelSpec], items, argument="models")


def _parsed(line: str, number: int, path: Path) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"`models`: line {number} of {path} is no JSON ({error}).") from error


def search_models(search: str, token: str | bool | None = None) -> list[ModelSpec]:
    """The models that the Hub finds, those that were downloaded most first.

    Args:
        search (`str`): [`TERMS`] with their values and commas between them, such as `"author=org, filter=clip"`; `filter` may
            come several times. Without a `limit` no more than 100 are taken.
        token (`str` or `bool`, *optional*): access token of the Hub.

    Raises:
        InputError: a term that is none, or when the Hub finds nothing.
        HubError: when the Hub cannot be asked.
    """
    asked: dict[str, Any] = {"filter": []}
    for part in search.split(","):
        term, equals, value = (word.strip() for word in part.partition("="))
        if term not in TERMS or not equals or not value:
            known = f"; {nearest(term, TERMS, 1)}" if term not in TERMS else ""
            raise InputError(f"`search`: got {part.strip()!r}{known}; pass terms such as 'author=org, filter=clip'.")
        if term == "filter":
            asked["filter"].append(value)
        elif term in asked:
            raise InputError(f"`search`: got {term!r} twice; only `filter` may come several times.")
        else:
            asked[term] = value
    limit = asked.pop("limit", str(LIMIT))
    if not limit.isdecimal() or int(limit) < 1:
        raise InputError(f"`search`: got limit={limit}; pass a positive number.")
    token = usable_token(token)
    with hub_errors(f"the models of {search!r}", argument="search", token=token):
        found = HfApi(token=token).list_models(**asked, sort="downloads", limit=int(limit))
        specs = [ModelSpec(model.id) for model in islice(found, int(limit))]
    if not specs:
        raise InputError(f"`search`: the Hub finds no model for {search!r}; ask for less.")
    return specs
