"""Plain words, one for each thing: what docs/concepts/words.md decides, and oddities that were mended once and stay out."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = [
    path
    for folder in ("hf_invertune", "examples", "benchmarks", "mkdocs_hooks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".j2", ".yaml", ".yml")
    and path.parent.name != "vocabulary"  # with the words of licences
]
BANNED = {
    r"nobody foresaw": "not seen before",
    r"[Ll]et the libraries talk": "print the libraries' logs",
    r"has not three colours": "needs three colours",
    r"\b[Tt]rojan(s|ed)?\b": "backdoor",
    r"\btarget class(es)?\b": "target",
    r"\bin order to\b": "to",
    r"\butili[sz]e": "use",
    r"\bleverag": "use",
    r"\bplease note\b": "nothing",
    r"\b(thereof|therein|wherefrom|whatsoever|heretofore|hereby)\b": "a usual word",
    r"\bperform(s|ed|ing)? (a|an|the) (scan|removal|search|tuning)\b": "scan, remove, search, tune",
}
"""Patterns of words that are not used, and what is said in their place."""
FIXED = r"towers?|encoders?|processors?|sizes?|sides?|embeddings?|features?|token|classification|model|data|text|to|folders?|search|prints"
IMAGE = re.compile(rf"(?<![-\w/.=])images?\b(?![ -](?:{FIXED})\b)(?![-\w/=(])", re.IGNORECASE)
"""What is called a picture, outside of fixed terms."""


@pytest.mark.parametrize("path", [*PROSE, *CODE], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_words(path):
    text = path.read_text(encoding="utf-8")
    found = [(pattern, instead) for pattern, instead in BANNED.items() if re.search(pattern, text)]
    assert not found or path.name == "words.md", f"say instead: {found}"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_picture_is_called_a_picture(path):
    """In prose: not in code, tables that are made, names of links, nor where the words are explained."""
    if path.name == "words.md":
        return
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!-- table: .*?<!-- end: ", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|text to image|image to text", "", text)
    found = [text[max(0, hit.start() - 40) : hit.end() + 20] for hit in IMAGE.finditer(text)]
    assert found == []
