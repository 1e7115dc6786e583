"""A last look at files that are about to be published: no token, no local path, no user name may be in them."""

import getpass
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from ..utils.tokens import TOKEN


PATTERNS = {
    "an access token": TOKEN,
    "a local path": re.compile(
        r"(?<![\w.:/>-])/(?:home|root|Users|tmp|mnt|media|private|workspace|var|scratch|data\d*)/[\w.@+-][^\s\"'<>]*"
        r"|\b[A-Za-z]:\\+(?:Users|Documents)\\+[^\s\"'<>]*|\bfile://[^\s\"'<>]+"
    ),
}
TEXTS = (".json", ".md", ".html", ".txt", ".jinja", ".svg", ".yaml", ".yml", "")
ANYBODY = frozenset(("root", "user", "admin", "ubuntu", "runner", "jovyan", "docker", "nobody"))
"""Names of accounts that say nothing of who runs them."""


def find_leaks(folder: Path, token: str | None = None, public: Sequence[str] = ()) -> list[str]:
    """What in `folder` should not be published, as "file: kind (excerpt)"; of a token there is no excerpt.

    Args:
        folder (`Path`): every file beneath it is read; of safetensors the header only.
        token (`str`, *optional*): the access token in use, which is looked for letter by letter.
        public (`Sequence[str]`): names that are public anyway, such as Hub ids and class names.
    """
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = _text(path)
        for name in sorted(public, key=len, reverse=True):
            text = text.replace(name, "")
        for kind, secret in _secrets(token):
            if match := secret.search(text):
                shown = "" if "token" in kind else f" ({match[0]})"
                found.append(f"{path.relative_to(folder)}: {kind}{shown}")
    return found


def _secrets(token: str | None) -> Iterator[tuple[str, re.Pattern[str]]]:
    yield from PATTERNS.items()
    if token:
        yield "an access token", re.compile(re.escape(token))
    for path in {Path.home(), Path.cwd(), Path(tempfile.gettempdir())}:
        if len(path.parts) > 2:
            yield "a local path", re.compile(re.escape(str(path)))
    user = re.compile(rf"\b{re.escape(getpass.getuser())}\b", re.IGNORECASE)
    if getpass.getuser() not in ANYBODY and not any(user.search(text) for text in _own_words()):
        yield "a user name", user


def _own_words() -> Iterator[str]:
    """What stands in every card and report: a user name that is one of these words gives nobody away."""
    yield "clip transformers peft lora hf_invertune"
    for name in ("hub/model_card_template.md", "report/templates/report.html.j2"):
        yield (files("hf_invertune") / name).read_text(encoding="utf-8")


def _text(path: Path) -> str:
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return json.dumps(header.get("__metadata__", {}))
    # JSON and HTML escape what a pattern must see: the slashes of paths stay as they are in both.
    return path.read_text(encoding="utf-8", errors="replace") if path.suffix in TEXTS else ""
