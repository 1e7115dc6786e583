"""report.html in a real browser: at a phone's and a desktop's width, light, dark and on paper."""

import pytest
from answers import make_place
from reports import CASES, NAMES, make_report

from hf_invertune.report.html import render


SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
LONG = [f"{name} {'of an uncommonly long name ' * 3}{'x' * 40}" for name in NAMES]
REPORTS = {
    **{case: lambda case=case: make_report(*CASES[case]) for case in ("scanned clean", "unchanged inconclusive")},
    **{case: lambda case=case: make_report(*CASES[case]) for case in ("cleaned", "not cleaned")},
    "published": lambda: make_report().published(),
    "gathered": lambda: make_gathered(),
    "long names": lambda: make_report("not cleaned", names=LONG),
}
CONTRAST = """
(() => {
  const numbers = text => text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
  const parse = text => {
    const n = numbers(text), unit = text.startsWith("color(") ? 1 : 255;
    return [n[0] / unit, n[1] / unit, n[2] / unit, n.length > 3 ? n[3] : 1];
  };
  const channel = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const background = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [1, 1, 1, 1];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || !element.getClientRects().length || element.closest("style")) continue;
    const style = getComputedStyle(element), drawn = element.closest("svg");
    const pair = [parse(drawn ? style.fill : style.color), background(drawn ? drawn.parentElement : element)];
    const [low, high] = pair.map(luminance).sort((a, b) => a - b);
    found.push([Math.round(100 * (high + 0.05) / (low + 0.05)) / 100, text.slice(0, 40)]);
  }
  return found;
})()
"""


def make_gathered():
    """A report of a model in which triggers gather pictures, before and, less so, after."""
    report = make_report()
    report.scan.gatherings = [make_place(report.scan, value) for value in (0.97, 0.8)]
    report.second_scan.gatherings = [make_place(report.scan, 0.4)]
    return report


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, make in REPORTS.items():
        (folder / f"{name}.html").write_text(render(make()))
    return folder


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_reads_well(browser, pages, name, size, scheme):
    width, height = SIZES[size]
    browser.open(pages / f"{name}.html", width, height, dark=scheme == "dark")
    box = browser.evaluate("document.querySelector('h1').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0 and box["right"] <= width and box["top"] >= 0 and box["bottom"] <= height, box
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("innerWidth") == width  # a phone widens the window for what does not fit
    contrasts = browser.evaluate(CONTRAST)
    assert len(contrasts) > 100 and min(contrasts)[0] >= 4.5, sorted(contrasts)[:5]
    shade = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert shade == {"light": "rgb(246, 247, 249)", "dark": "rgb(17, 20, 25)"}[scheme]
    assert (browser.requests, browser.messages) == ([], [])


@pytest.mark.parametrize("name", ["cleaned", "long names"])
def test_page_on_paper(browser, pages, name):
    """A4 is 794 CSS pixels wide; a dark screen does not make it black."""
    browser.open(pages / f"{name}.html", 794, 1123, dark=True, media="print")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 794
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert min(browser.evaluate(CONTRAST))[0] >= 4.5


def test_keyboard_reaches_what_scrolls_and_what_leads_on(browser, pages):
    browser.open(pages / "cleaned.html", *SIZES["phone"])
    for reached in ("card scroll", "A"):  # the table that is wider than a phone, the link in the footer
        browser.press("Tab")
        assert browser.evaluate("document.activeElement.className || document.activeElement.tagName") == reached
        assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_every_picture_is_drawn_and_named(browser, pages):
    browser.open(pages / "gathered.html", *SIZES["desktop"])
    images = browser.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
    assert len(images) == 10 and all(width and alt for width, alt in images)
    charts = browser.evaluate("[...document.querySelectorAll('.chart svg')].map(s => [s.clientHeight, s.ariaLabel])")
    assert len(charts) == 7 and all(height > 40 and label for height, label in charts)


def test_browser_tells_requests_errors_and_overflow(browser, tmp_path):
    """The instrument itself: what the tests above look for is found where it is."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<body style='background:#fff'><p style='width:3000px;color:#999'>grey</p>"
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('oh')</script>"
    )
    browser.open(page, *SIZES["desktop"])
    assert browser.requests == ["http://127.0.0.1:9/x.png"]
    assert "oh" in browser.messages and len(browser.messages) > 1
    assert browser.evaluate("document.documentElement.scrollWidth") >= 3000
    assert browser.evaluate(CONTRAST)[0] == [2.85, "grey"]
