"""What is foreign, put into Markdown."""

import re


def plain(text: object) -> str:
    """`text` on one line, with what Markdown and HTML would read as markup escaped."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(str(text).split()))
