"""What a reader copies from the documents works: get started and the tutorials are run, every command is held against the CLI."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from loopback_hub import OWNER
from pages import DOCS, blocks, check_output, run_page
from PIL import Image

from hf_invertune.cli.main import app
from hf_invertune.lab.demo import demo_images, demo_victim
from hf_invertune.stages.families import TriggerFamily
from hf_invertune.triggers import Trigger


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
FROM_HUB = ["scan-from-the-hub", "clean-and-push"]
COMMAND = re.compile(r"""(?:^|[\s"])hf-invertune ((?:[^"'&|;#\n]|"[^"\n]*"|'[^'\n]*')+)""")
"""What follows the name, up to what ends a command of the shell, or the quotes around it."""
ARENA = ["victim-and-arena", "own-defence"]


@pytest.mark.slow
def test_get_started(tmp_path):
    run_page(DOCS / "get-started.md", tmp_path)


@pytest.mark.slow
def test_from_the_hub_and_back(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", OWNER)
    hub.put("org/suspicious-clip", {path.name: path.read_bytes() for path in demo_victim("poisoned").iterdir()})
    images = demo_images()
    for number, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        folder = tmp_path / "pictures" / images.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    for page in FROM_HUB:
        run_page(DOCS / "tutorials" / f"{page}.md", tmp_path)


@pytest.mark.slow
def test_victim_arena_and_own_defence(tmp_path):
    for page in ARENA:
        run_page(DOCS / "tutorials" / f"{page}.md", tmp_path)


@pytest.mark.slow
def test_own_family(tmp_path):
    try:
        run_page(DOCS / "tutorials" / "own-family.md", tmp_path)
    finally:
        Trigger.kinds.pop("tint", None)
        TriggerFamily.kinds.pop("tint", None)


def test_every_tutorial_is_run():
    assert {page.stem for page in (DOCS / "tutorials").glob("*.md")} == {*FROM_HUB, *ARENA, "own-family"}


def test_output_that_is_not_printed_is_seen():
    check_output("CA 97.7 %\n...\nexit code 3\n", "CA 12 %\nmore\nexit code 0\n", "page")
    with pytest.raises(AssertionError, match="was not printed"):
        check_output("inconclusive\n", "backdoored\n", "page")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_can_be_read(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, str(page), "exec")
        elif block.language == "yaml":
            yaml.safe_load(block.code)
        elif block.language == "toml":
            tomllib.loads(block.code)
        else:
            assert block.language in ("bash", "text", "bibtex"), page


def commands():
    """Every command of ours in the documents: where, and its words."""
    for page in PAGES:
        for block in blocks(page):
            for line in re.sub(r"\\\n", " ", block.code).splitlines() if block.language == "bash" else ():
                for words in COMMAND.findall(line):
                    yield page.name, shlex.split(words)


def test_commands_have_the_options_that_the_documents_give_them():
    tool, found = typer.main.get_command(app), 0
    for page, words in commands():
        command, found = tool, found + 1
        while words and words[0] in getattr(command, "commands", ()):
            command = command.commands[words.pop(0)]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert command is not tool and given <= known, f"{page}: {command.name} {sorted(given - known)}"
    assert found > 20


def test_documents_have_no_link_to_a_file_that_is_not_there():
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for link in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text):
            assert (Path(page).parent / link).exists(), f"{page}: {link}"
