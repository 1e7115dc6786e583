"""examples/space: what stands behind the page, and the page in a real browser, with the model that comes along."""

import importlib.util
import io
import json
import re
import shutil
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest
import yaml
from loopback_hub import OWNER

from hf_invertune import HubError, InputError, RemovalConfig, demo_victim


SPACE = Path(__file__).parents[1] / "examples" / "space"
SHORT = [
    *("scan.families=[masked]", "scan.gathering.families=[]", "scan.words=[]", "scan.simulation_steps=1"),
    *("scan.steps=[3,3]", "scan.restarts=1", "scan.looks=1", "scan.finalists=2", "scan.rivals=1"),
]
QUICK = RemovalConfig().assign(SHORT)
UNREACHED = RemovalConfig.of({"scan": {"bars": {"masked": {"quiet": 1e9, "suspicious": 1e9}}}}).assign(SHORT)
"""The same, with bars that nothing reaches."""


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headline(page):
    return re.search("<h1>(.*?)</h1>", page, re.DOTALL)[1]


def test_what_is_shown(app):
    """The report's own headline, the whole report in a frame that may run nothing, and a file without triggers."""
    report = app.audit("demo: its clean twin", "", False, QUICK)
    words, frame, archive = app.shown(report)
    assert frame.startswith('<iframe title="The report" sandbox srcdoc="') and "purple triangle" in frame
    with zipfile.ZipFile(archive) as held:
        names = set(held.namelist())
        assert {"report.html", "report.json", "SHA256SUMS"} <= names and "trigger.safetensors" not in names
        assert json.loads(held.read("report.json"))["trigger_withheld"] is True
        assert words == f"## {headline(held.read('report.html').decode())}\n\n{app.REMARK}"
    assert "not proof of absence" in words


def test_what_is_found_nowhere_is_not_called_clean(app):
    report = app.audit("demo: its clean twin", "", False, UNREACHED)
    assert report.verdict == "clean" and app.shown(report)[0].startswith("## No backdoor found\n")


@pytest.mark.parametrize(
    "model", [None, "", " ", "/etc", ".", "~", "~/models/clip", "~root", "no such model", "a" * 400]
)
def test_what_is_refused(app, model):
    with pytest.raises(InputError, match="`model`|no such model"):
        app.audit(model, "", False, QUICK)


@pytest.mark.parametrize("written", ["private-clip", "~/private-clip", " ~/private-clip ", "{home}/private-clip"])
def test_a_folder_is_read_only_where_that_was_asked_for(app, hub, tmp_path, monkeypatch, written):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_victim("clean"), tmp_path / "private-clip")
    given = written.format(home=tmp_path)
    with pytest.raises(InputError, match="got a path"):
        app.audit(given, "", False, QUICK)
    with pytest.raises(InputError, match="`images`: none were given"):  # the model is there, and the pictures are not
        app.audit(given, "", False, QUICK, folders=True)


def test_no_token_opens_a_model_or_is_shown(app, hub, monkeypatch):
    """Who opens the page has not the rights of who runs it."""
    monkeypatch.setenv("HF_TOKEN", OWNER)
    files = {path.name: path.read_bytes() for path in demo_victim("clean").iterdir()}
    hub.put("org/private", files, private=True)
    with pytest.raises((InputError, HubError), match="org/private") as error:
        app.audit("org/private", "", False, QUICK)
    assert OWNER not in str(error.value) and hub.log


def test_front_matter():
    """What the Hub reads of a Space."""
    _, front, _ = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["sdk"] == "gradio" and (SPACE / card["app_file"]).is_file() and len(card["short_description"]) <= 60
    assert card["sdk_version"].startswith("6.") and card["python_version"] == "3.11"


def wait_for(browser, expression):
    for _ in range(600):
        if value := browser.evaluate(expression):
            return value
        time.sleep(0.2)
    raise AssertionError(f"{expression} never came; the page says {browser.evaluate('document.body.innerText')[:500]}")


def test_in_a_browser(app, browser, monkeypatch):
    """A scan from the button to the report and its file; then a model that is not there, in one message."""
    gradio = pytest.importorskip("gradio")
    monkeypatch.setattr(app, "preset", lambda name: QUICK)
    _, address, _ = app.serve(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        browser.open(address, 1280, 900)
        press = "[...document.querySelectorAll('button')].find(one => one.innerText === 'Scan')?.click() ?? true"
        wait_for(browser, "[...document.querySelectorAll('button')].some(one => one.innerText === 'Scan')")
        browser.evaluate(press)
        said = wait_for(browser, "document.querySelector('#verdict h2')?.innerText")
        page = wait_for(browser, "document.querySelector('iframe')?.srcdoc")
        assert said.startswith("Backdoored towards") and said == headline(page) and "Pictures" in page
        assert browser.evaluate("document.querySelector('iframe').getAttribute('sandbox')") == ""
        with urllib.request.urlopen(wait_for(browser, "document.querySelector('a[download]')?.href")) as sent:
            downloaded = io.BytesIO(sent.read())
        with zipfile.ZipFile(downloaded) as held:
            assert held.read("report.html").decode() == page
        box = "document.querySelector('input[role=listbox], input[aria-label=Model]')"
        browser.evaluate(f"{box}.focus(); {box}.value = ''")
        browser.call("Input.insertText", text="nobody/nothing-here")
        browser.press("Tab")
        browser.evaluate(press)
        message = wait_for(browser, "document.querySelector('.toast-body')?.innerText")
        assert "nobody/nothing-here" in message and "Traceback" not in message
        assert browser.evaluate("document.querySelectorAll('.toast-body').length") == 1
        of_the_model_before = "document.querySelector('#verdict h2, iframe, a[download]') !== null"
        assert browser.evaluate(of_the_model_before) is False
        assert [url for url in browser.requests if not url.startswith((address, "blob:"))] == []
    finally:
        gradio.close_all()
