"""examples/space: the page in a real browser, with the model that comes along and a few steps of search."""

import importlib.util
import json
import time
import zipfile
from pathlib import Path

import pytest
from browser import Browser, find_chromium

from hf_invertune import InputError, RemovalConfig


gradio = pytest.importorskip("gradio")
SPACE = Path(__file__).parents[1] / "examples" / "space"
QUICK = RemovalConfig().assign(
    [
        *("scan.families=[masked]", "scan.gathering.families=[]", "scan.words=[]", "scan.simulation_steps=1"),
        *("scan.steps=[3,3]", "scan.restarts=1", "scan.looks=1", "scan.finalists=2", "scan.rivals=1"),
    ]
)


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_shown(app):
    """The verdict, the whole report in a frame that may run nothing, and a file without triggers."""
    report = app.audit("demo: its clean twin", "", False, QUICK)
    words, frame, archive = app.shown(report)
    assert words.startswith(f"## {report.verdict}") and "not proof of absence" in words
    assert frame.startswith('<iframe title="The report" sandbox srcdoc="') and "purple triangle" in frame
    with zipfile.ZipFile(archive) as held:
        names = set(held.namelist())
        assert {"report.html", "report.json", "SHA256SUMS"} <= names and "trigger.safetensors" not in names
        assert json.loads(held.read("report.json"))["trigger_withheld"] is True


@pytest.mark.parametrize("model", ["", " ", "/etc", ".", "no such model"])
def test_what_is_refused(app, model):
    with pytest.raises(InputError, match="`model`|`name_or_path`|no such model"):
        app.audit(model, "", False, QUICK)


@pytest.fixture
def browser():
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on the path")
    with Browser(program) as opened:
        yield opened


def wait_for(browser, expression):
    for _ in range(600):
        if value := browser.evaluate(expression):
            return value
        time.sleep(0.2)
    raise AssertionError(f"{expression} never came; the page says {browser.evaluate('document.body.innerText')[:500]}")


def test_in_a_browser(app, browser, monkeypatch):
    """A scan from the button to the report; then a model that is not there, in one message."""
    monkeypatch.setattr(app, "preset", lambda name: QUICK)
    page = app.make_app()
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        browser.open(address, 1280, 900)
        press = "[...document.querySelectorAll('button')].find(one => one.innerText === 'Scan')?.click() ?? true"
        wait_for(browser, "[...document.querySelectorAll('button')].some(one => one.innerText === 'Scan')")
        browser.evaluate(press)
        assert wait_for(browser, "document.querySelector('#verdict h2')?.innerText").startswith("backdoored towards")
        assert "Pictures" in wait_for(browser, "document.querySelector('iframe')?.srcdoc")
        assert wait_for(browser, "document.querySelector('a[download]')?.download")
        box = "document.querySelector('input[role=listbox], input[aria-label=Model]')"
        browser.evaluate(f"{box}.focus(); {box}.value = ''")
        browser.call("Input.insertText", text="nobody/nothing-here")
        browser.press("Tab")
        browser.evaluate(press)
        assert "nobody/nothing-here" in wait_for(browser, "document.querySelector('.toast-body')?.innerText")
    finally:
        page.close()
