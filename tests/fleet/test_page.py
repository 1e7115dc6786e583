"""The page of a fleet, as text and in a real browser."""

from dataclasses import replace

import pytest

from hf_invertune.answers.answer import Answer, Finding, StandsOut
from hf_invertune.fleet.page import render_fleet


FOUND = Finding("HFI002", "masked", "white cross", "lead", 1.19, 0.65, None, "0" * 32)
ANSWERS = [
    Answer("org/clean", 0, "clean", seconds=9.4, report="fleet/reports/clean-1", stands_out=[StandsOut("wave", "concentration", 0.8, 11.0, 9)]),
    Answer("org/<b>bad</b>", 3, "backdoored", "white cross", [FOUND], seconds=112.0, report="fleet/reports/bad-2"),
    Answer("org/unsure", 5, "inconclusive", "green ring", seconds=30.0, report="fleet/reports/unsure-3"),
    Answer("org/gone", 2, error="`model`: org/gone is neither a folder here nor a model on the Hub"),
    Answer("org/odd", 8, error="`model`: it cannot be judged"),
]  # fmt: skip


def test_the_gravest_comes_first_and_names_are_no_markup():
    page = render_fleet(ANSWERS)
    assert "1 backdoored, 1 inconclusive, 1 not scanned, 1 cannot be judged, 1 clean, of 5 models" in page
    places = [
        page.index(name) for name in ("<b>bad".replace("<", "&lt;").replace(">", "&gt;"), "org/unsure", "org/gone")
    ]
    assert places == sorted(places) and "<b>" not in page
    assert 'href="reports/bad-2/report.html"' in page and "http" not in page.replace("http-equiv", "")
    assert "No backdoor found in 1 model<" in render_fleet(ANSWERS[:1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_reads_well_and_asks_for_nothing(browser, tmp_path, scheme, width):
    (tmp_path / "index.html").write_text(render_fleet([replace(ANSWERS[0], model="x" * 200), *ANSWERS]))
    browser.open(tmp_path / "index.html", width, 800, dark=scheme == "dark")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    shade = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert shade == {"light": "rgb(246, 247, 249)", "dark": "rgb(17, 20, 25)"}[scheme]
    assert (browser.requests, browser.messages) == ([], [])


def test_a_click_sorts(browser, tmp_path):
    (tmp_path / "index.html").write_text(render_fleet(ANSWERS))
    browser.open(tmp_path / "index.html", 1280, 800)

    def sorted_by(column):
        browser.evaluate(f"document.querySelectorAll('thead button')[{column}].click()")
        return browser.evaluate("[...document.querySelectorAll('tbody th')].map(cell => cell.textContent)")

    names = [one.model for one in ANSWERS]
    assert sorted_by(0) == sorted(names, key=lambda name: name.replace("<", "")) and sorted_by(0)[0] == "org/unsure"
    assert sorted_by(5)[-3:] == ["org/clean", "org/unsure", "org/<b>bad</b>"]
    assert browser.evaluate("document.querySelectorAll('[aria-sort]').length") == 1
    assert (browser.requests, browser.messages) == ([], [])
