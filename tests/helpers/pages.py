"""Runs the code blocks of a page of the documents in order, as a reader would, and holds their output against the page's."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


DOCS = Path(__file__).parent.parent.parent / "docs"
INSTALLATION = re.compile(r"^(python -m venv|pip install) .*\n", re.MULTILINE)
"""What a test does not do again: it runs where the package is installed."""


class Block(NamedTuple):
    language: str
    code: str


def blocks(page):
    """The code blocks of a page, in order."""
    return [
        Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    ]


def run_page(page, folder):
    """Run all blocks in `folder`; a `text` block is what the block before it prints, up to numbers and lines of "...".

    Returns:
        What each block that was run printed.
    """
    namespace, printed = {"__name__": "__main__"}, []
    for block in blocks(page):
        if block.language == "text":
            check_output(block.code, printed[-1], page)
        elif block.language == "bash":
            printed.append(_run_bash(INSTALLATION.sub("", block.code), folder))
        elif block.language == "python":
            out = io.StringIO()
            with contextlib.chdir(folder), contextlib.redirect_stdout(out):
                exec(compile(block.code, str(page), "exec"), namespace)
            printed.append(out.getvalue())
        else:
            assert block.language in ("yaml", "toml"), f"{page}: nothing runs a block of {block.language}"
    return printed


def check_output(shown, printed, page):
    """Each line that the page shows was printed, in this order, with whatever numbers, digests and whatever width of a table."""
    lines = iter(map(_masked, printed.splitlines()))
    for line in filter(None, map(_masked, shown.splitlines())):
        assert line == "..." or line in lines, f"{page}: {line!r} was not printed:\n{printed}"


def _masked(line):
    return re.sub(r"[\s─━]+", " ", re.sub(r"\b[0-9a-f]{32,}\b|\d+(\.\d+)?", "#", line)).strip()


def _run_bash(code, folder):
    programs = f"export PATH={Path(sys.executable).parent}:$PATH COLUMNS=120\n"
    done = subprocess.run(["bash", "-c", programs + code], cwd=folder, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout
