import json
import re
from html import escape
from html.parser import HTMLParser

import pytest
from reports import CASES, NAMES, TARGET, make_report, same

from hf_invertune.report.content import SCHEMA_VERSION
from hf_invertune.report.html import render
from hf_invertune.report.report import AuditReport
from hf_invertune.stages.verdict import Verdict


HEADLINES = {
    "scanned clean": "No backdoor found",
    "scanned backdoored": "Backdoored towards ‘green square’",
    "unchanged clean": "No backdoor found — left unchanged",
    "unchanged inconclusive": "Inconclusive: ‘green square’ is suspicious — left unchanged",
    "cleaned": "Backdoored towards ‘green square’ — cleaned",
    "reduced": "Backdoored towards ‘green square’ — reduced",
    "not cleaned": "Backdoored towards ‘green square’ — not cleaned",
}


class Page(HTMLParser):
    """What a page says (its tags with their attributes, the text of the first heading) without a browser."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.heading, self.text, self._open = [], "", "", []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        self.text += data
        if "h1" in self._open:
            self.heading += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages():
    return {case: render(make_report(*arguments)) for case, arguments in CASES.items()}


@pytest.fixture
def no_page(monkeypatch):
    """Leaves the drawing out, for tests that look at the other files."""
    monkeypatch.setattr("hf_invertune.report.report.render", lambda report: "")


@pytest.mark.parametrize("case", CASES)
def test_first_heading_is_the_verdict(pages, case):
    page = Page(pages[case])
    assert page.heading == HEADLINES[case]
    assert page.heading in pages[case][: pages[case].index("</title>")]


@pytest.mark.parametrize("case", CASES)
def test_page_loads_nothing_and_runs_nothing(pages, case):
    page = Page(pages[case])
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,")) or tag == "a", (tag, value)
        assert not [name for name in attributes if name.startswith("on")]
    outside = re.sub(r'<a href="https://arxiv.org/[^"]*"', "", pages[case])
    assert not re.search(r"https?://|@import|url\((?!#)", outside)


@pytest.mark.parametrize("case", CASES)
def test_page_is_accessible(pages, case):
    page = Page(pages[case])
    assert page.all("html") == [{"lang": "en"}]
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    named = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("case", ["cleaned", "reduced", "not cleaned"])
def test_page_shows_the_numbers_of_the_report(pages, case):
    report, text = make_report(*CASES[case]), Page(pages[case]).text
    for measurement in report.measurements:
        for metrics in (measurement.before, measurement.after):
            for rate in (value for value in vars(metrics).values() if value is not None):
                low, high = rate.interval
                assert f"{100 * rate.value:.1f} %" in text
                assert f"{rate.hits}/{rate.count}{100 * low:.1f}–{100 * high:.1f}" in text
    tiles = re.sub(r"\s+", " ", text[text.index("Attack success rate") : text.index("The inverted trigger")])
    first = report.measurements[0]
    shown = f"{100 * first.before.attack_success_rate.value:.1f} % → to {100 * first.after.attack_success_rate.value:.1f} %"
    assert shown in tiles
    assert "Second scan Clean" in tiles
    assert all(reason in tiles for reason in report.reasons)
    digests = [report.model.sha256, report.sha256_after, report.data.sha256, report.removal.held_out_sha256]
    digests += [report.trigger_sha256, *(measurement.trigger_sha256 for measurement in report.measurements)]
    assert len(set(digests)) == 6 and all(digest in text for digest in digests)
    assert report.data.skipped[0] in text
    assert "scan.families.additive.epsilon" in text and ", ".join(report.scan.templates) in text


def test_page_without_labels_speaks_of_agreement():
    text = Page(render(make_report(labelled=False))).text
    assert "No true labels were given, so agreement with the original model stands for clean accuracy." in text
    assert "Agreement" in text[: text.index("Second scan")]
    assert "Clean accuracy" not in text[: text.index("Second scan")]


def test_page_of_a_bare_scan():
    text = Page(render(make_report("scanned", Verdict.CLEAN))).text
    assert "not measured" in text and "Not run" in text and "not proof of absence" in text
    assert "The inverted trigger" not in text and "Measurements" not in text


def test_names_from_outside_are_escaped():
    hostile = "<script>alert(1)</script>"
    names = [*NAMES[:TARGET], hostile, "a $b$ & \"c\" 'd'", "長い名前", *NAMES[TARGET + 3 :]]
    report = make_report("not cleaned", names=names)
    report.model.name = report.data.source = report.data.skipped[0] = hostile
    report.scan.templates[0] = report.scan.simulations[0].kind = report.scan.evidence[0].family = hostile
    report.scan.config.bars[hostile] = report.scan.config.bars["masked"]
    report.removal.measurements[1].trigger = report.removal.inverted[1].family = hostile
    report.removal.second_scan.verdict, report.removal.second_scan.target = Verdict.BACKDOORED, TARGET
    assert any(hostile in reason for reason in report.reasons)
    html = render(report)
    page = Page(html)
    assert "<script" not in html and escape(hostile) in html
    assert page.heading == f"Backdoored towards ‘{hostile}’ — not cleaned"
    assert not page.all("script")


def test_saved_report_renders_the_same_again(tmp_path, pages):
    make_report("not cleaned").save(tmp_path)
    assert (tmp_path / "report.html").read_text() == pages["not cleaned"]
    assert render(AuditReport.load(tmp_path)) == pages["not cleaned"]


@pytest.mark.parametrize("case", CASES)
def test_report_survives_saving(tmp_path, no_page, case):
    report = make_report(*CASES[case])
    report.save(tmp_path)
    assert (tmp_path / "report.json").is_file() and (tmp_path / "report.html").is_file()
    assert (tmp_path / "trigger.safetensors").is_file() == (report.removal is not None)
    assert same(AuditReport.load(tmp_path), report)


def test_report_json_is_strict(tmp_path, no_page):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    make_report().save(tmp_path)
    value = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert value["schema_version"] == SCHEMA_VERSION == "4.0"
    assert value["config"]["scan"]["families"][1] == {"kind": "additive", "epsilon": 8 / 255}
    removal = value["removal"]
    assert removal["measurements"][0]["before"]["attack_success_rate"] == {"hits": 107, "count": 109}
    assert removal["training"][-1]["eval_attack_success_rate"] is None


def test_what_follows_is_not_stored():
    """The verdict of the whole, its target and its digests come from the scan and the removal."""
    report = make_report()
    assert report.verdict is report.scan.verdict and report.reasons == []
    assert (report.target, report.target_name, report.sha256_after) == (TARGET, NAMES[TARGET], "cc" * 32)
    assert report.trigger_sha256 == report.inverted[0].trigger.digest() == report.measurements[0].trigger_sha256
    report.removal.target = 3  # cleaned towards another label than the scan's
    assert (report.target, report.target_name, report.scan.target) == (3, NAMES[3], TARGET)
    report.config.audit.max_accuracy_drop = 0.0
    report.measurements[0].after.clean_accuracy.hits -= 1
    assert report.reasons == ["Clean accuracy fell by 0.8 points."]
    unchanged, scanned = make_report("unchanged", Verdict.CLEAN), make_report("scanned", Verdict.CLEAN)
    assert (unchanged.sha256_after, scanned.sha256_after) == (unchanged.model.sha256, None)
    assert unchanged.reasons == ["The scan's verdict is clean, and no `target` was named."] and scanned.reasons == []
    assert (scanned.target, scanned.inverted, scanned.second_scan, scanned.trigger_sha256) == (None, [], None, None)
