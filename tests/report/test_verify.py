"""Verifying a saved report: an honest one holds, and whatever contradicts itself does not."""

import copy
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from reports import CASES, make_report
from safetensors.torch import load_file, save_file
from tiny_plan import pictures, removal_config
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.errors import InputError
from hf_invertune.models.loading import state_digest
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report import verify as verification
from hf_invertune.report.html import render
from hf_invertune.report.report import AuditReport
from hf_invertune.report.verify import Claim, verify_report
from hf_invertune.triggers import Trigger
from hf_invertune.utils.files import write_checksums


pytestmark = pytest.mark.usefixtures("drawn_once")


def named(claims, answer):
    return {claim.name for claim in claims if claim.holds is answer}


def forge(folder, edit, drawn=True):
    """Edit report.json and do what a forger would: draw the page again and list the new SHA-256."""
    value = json.loads((folder / "report.json").read_text())
    edit(value)
    (folder / "report.json").write_text(json.dumps(value))
    if drawn:
        (folder / "report.html").write_text(render(AuditReport.load(folder)))
    relist(folder)


def relist(folder):
    write_checksums(folder, [path.name for path in folder.iterdir() if path.name != "SHA256SUMS"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A report of each outcome, saved whole; no test may change them."""
    folders = {case: tmp_path_factory.mktemp("saved") / "audit" for case in CASES}
    for case, folder in folders.items():
        make_report(*CASES[case]).save(folder)
    return folders


@pytest.fixture
def no_page(monkeypatch):
    """Leaves the page out, for tests of what does not hold without it."""
    monkeypatch.setattr(verification, "_page", lambda folder, report: Claim("page", None, ""))


@pytest.fixture
def audit(saved, tmp_path):
    return shutil.copytree(saved["cleaned"], tmp_path / "audit")


@pytest.fixture
def published(tmp_path):
    make_report().published().save(tmp_path / "published")
    return tmp_path / "published"


# What holds


@pytest.mark.parametrize("case", CASES)
def test_honest_report_holds(saved, case):
    claims = verify_report(saved[case])
    assert named(claims, False) == set(), claims
    assert named(claims, None) == {"model"}
    assert len({claim.name for claim in claims}) == len(claims)


def test_honest_report_without_labels_holds(tmp_path):
    make_report("not cleaned", labelled=False).save(tmp_path)
    assert named(verify_report(tmp_path), False) == set()


def test_published_report_holds_and_says_what_cannot_be_checked(published):
    claims = {claim.name: claim for claim in verify_report(published)}
    assert named(claims.values(), False) == set()
    assert named(claims.values(), None) == {"model", "triggers"}
    assert claims["withheld pixels"].holds and "example pictures" not in claims
    digest = make_report().inverted[0].trigger.digest()
    assert (
        claims["triggers"].detail == f"the pixels are withheld; whoever has the trigger can compare it with {digest}"
    )


@pytest.mark.parametrize("case", CASES)
def test_published_report_of_every_outcome_holds(tmp_path, case):
    make_report(*CASES[case]).published().save(tmp_path)
    claims = verify_report(tmp_path)
    assert named(claims, False) == set(), claims
    assert "withheld pixels" in named(claims, True)


def test_report_of_a_real_removal_holds(tiny, tmp_path):
    original = copy.deepcopy(tiny.model)
    result = BackdoorRemover(tiny).remove(pictures(32), config=removal_config())
    result.report.save(tmp_path / "whole")
    result.report.published().save(tmp_path / "published")
    for folder in (tmp_path / "whole", tmp_path / "published"):
        for model, which in ((original, "that was audited"), (result.model, "that was handed back")):
            claims = verify_report(folder, model)
            assert named(claims, False) == set(), claims
            assert claims[-1].detail == f"the model given is the model {which}"
    assert named(verify_report(tmp_path / "whole", original), None) == set()


def test_report_of_a_real_scan_holds(tiny, tmp_path):
    config = removal_config()
    AuditReport("scanned", BackdoorRemover(tiny).scan(pictures(32), config=config), config=config).save(tmp_path)
    claims = verify_report(tmp_path, tiny)
    assert named(claims, False) == set(), claims
    assert claims[-1].holds


# The model


def test_model_must_be_one_of_the_two(tiny, audit):
    digest = tiny.digest()
    assert not verify_report(audit, tiny)[-1].holds
    for edit, which in (
        (lambda r: model(r).update(sha256=digest), "audited"),
        (lambda r: r["removal"].update(sha256=digest), "audited and handed back"),
        (lambda r: model(r).update(sha256="aa" * 32), "handed back"),
    ):
        forge(audit, edit)
        for given in (tiny, tiny.model):
            assert verify_report(audit, given)[-1] == Claim(
                "model", True, f"the model given is the model that was {which}"
            )
    with torch.no_grad():
        tiny.model.logit_scale += 1
    claim = verify_report(audit, tiny)[-1]
    assert not claim.holds and f"{tiny.digest()}, is neither the audited one nor the one handed back" in claim.detail


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_plain_model_is_compared_in_the_dtype_of_the_report(tiny, audit, dtype):
    digest = state_digest(tiny.model, getattr(torch, dtype))
    forge(audit, lambda r: model(r).update(sha256=digest, dtype=dtype))
    assert verify_report(audit, tiny.model)[-1].holds
    assert not verify_report(audit, tiny)[-1].holds  # which says itself that it is stored in float32


# Files


def test_every_byte_of_the_trigger_counts(audit, no_page):
    """Even when the checksums are made anew."""
    whole = (audit / "trigger.safetensors").read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        (audit / "trigger.safetensors").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        relist(audit)
        assert named(verify_report(audit), False), place


def test_trigger_with_its_digest_forged_is_not_the_inverted_one(audit):
    trigger = Trigger.load(audit / "trigger.safetensors")
    trigger.pattern[0, 0, 0] = 1 - trigger.pattern[0, 0, 0]
    trigger.save(audit / "trigger.safetensors")
    forge(audit, lambda r: r["removal"]["measurements"][0].update(trigger_sha256=trigger.digest()))
    assert named(verify_report(audit), False) == {"triggers"}


@pytest.mark.parametrize("place", [0, 1])
def test_inverted_trigger_that_was_not_measured_does_not_hold(audit, place):
    """Not even when trigger.safetensors is made of it."""
    tensors = load_file(audit / "report.safetensors")
    name = [".removal.inverted.0.trigger.pattern", ".removal.inverted.1.trigger.delta"][place]
    tensors[name][0, 0, 0] *= 0.9
    save_file(tensors, audit / "report.safetensors")
    AuditReport.load(audit).inverted[0].trigger.save(audit / "trigger.safetensors")
    forge(audit, lambda r: None)
    found = named(verify_report(audit), False)
    assert "triggers" in found and found <= {"triggers", "example pictures"}


@pytest.mark.parametrize("name", ["report.json", "report.html", "report.safetensors", "trigger.safetensors"])
def test_changed_file_does_not_hold(audit, name):
    data = (audit / name).read_bytes()
    (audit / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "checksums" in named(verify_report(audit), False)


@pytest.mark.parametrize("name", ["report.html", "report.safetensors", "trigger.safetensors"])
@pytest.mark.parametrize("listed", [True, False])
def test_missing_file_does_not_hold(audit, name, listed):
    (audit / name).unlink()
    if not listed:
        relist(audit)
    assert named(verify_report(audit), False)


def test_missing_report_is_wrong_input(audit, tmp_path):
    (audit / "report.json").unlink()
    for folder in (audit, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds no report.json"):
            verify_report(folder)


@pytest.mark.parametrize(
    "text",
    ["", "no sum", "00  report.json", f"{'0' * 64}  ../report.json", f"{'0' * 64} *report.json", "\udcff"],
)
def test_malformed_checksums_do_not_hold(audit, text):
    (audit / "SHA256SUMS").write_bytes(text.encode(errors="surrogateescape"))
    assert named(verify_report(audit), False) == {"checksums"}


def test_missing_checksums_do_not_hold(audit):
    (audit / "SHA256SUMS").unlink()
    assert named(verify_report(audit), False) == {"checksums"}


def test_unlisted_and_unneeded_files_do_not_hold(audit, published):
    (audit / "notes.txt").write_text("mine")
    assert named(verify_report(audit), False) == {"checksums"}
    (audit / "notes.txt").unlink()
    (audit / "notes").mkdir()
    assert named(verify_report(audit), False) == {"checksums"}
    (audit / "notes").rmdir()
    (audit / b"\xff\x1b".decode(errors="surrogateescape")).write_text("mine")
    assert verify_report(audit)[0] == Claim("checksums", False, r"'\udcff\x1b' is not listed")
    shutil.copy(audit / "trigger.safetensors", published)
    relist(published)
    assert named(verify_report(published), False) == {"files"}


def test_hidden_tensors_do_not_hold(published, audit):
    """A published report that carries the pattern under another name."""
    tensors = load_file(published / "report.safetensors")
    save_file(
        {**tensors, "hidden": load_file(audit / "trigger.safetensors")["pattern"]}, published / "report.safetensors"
    )
    relist(published)
    assert named(verify_report(published), False) == {"files"}


def test_published_report_with_pixels_does_not_hold(published):
    tensors = load_file(published / "report.safetensors")
    assert len(names := [name for name in tensors if name.endswith(("mask", "pattern", "delta"))]) == 17
    for name in names:
        changed = tensors[name].clone()
        changed[0, 0, 0] = 0.01
        save_file({**tensors, name: changed}, published / "report.safetensors")
        relist(published)
        assert "withheld pixels" in named(verify_report(published), False), name


def test_report_that_only_says_that_its_pixels_are_withheld_does_not_hold(saved, tmp_path):
    for case in ("unchanged inconclusive", "cleaned"):
        folder = shutil.copytree(saved[case], tmp_path / case)
        (folder / "trigger.safetensors").unlink(missing_ok=True)
        forge(folder, lambda r: r.update(trigger_withheld=True))
        assert named(verify_report(folder), False) == {"withheld pixels"}


@pytest.mark.parametrize(
    "text", ["", "half", "[]", "null", "{}", '{"verdict": 1}', "\udcff", "[" * 100_000, "1" * 5000]
)
def test_malformed_report_does_not_hold(audit, text):
    (audit / "report.json").write_bytes(text.encode(errors="surrogateescape"))
    relist(audit)
    assert named(verify_report(audit), False) == {"readable"}


def test_page_that_shows_something_else_does_not_hold(audit):
    page = (audit / "report.html").read_text()
    assert "98.2 %" in page
    (audit / "report.html").write_text(page.replace("98.2 %", "98.3 %", 1))
    relist(audit)
    assert named(verify_report(audit), False) == {"page"}


def test_page_with_another_picture_does_not_hold(audit):
    page = (audit / "report.html").read_text()
    uris = re.findall(r"data:image/png;base64,[^\"]*", page)
    (audit / "report.html").write_text(page.replace(uris[0], uris[1]))
    relist(audit)
    assert named(verify_report(audit), False) == {"page"}


def test_page_drawn_with_other_versions_cannot_be_checked(audit):
    forge(audit, lambda r: r["versions"].update(matplotlib="1.0"))
    (claim,) = [claim for claim in verify_report(audit) if claim.name == "page"]
    assert claim.holds is None and "matplotlib 1.0" in claim.detail


@pytest.mark.parametrize("scan", ["scan", "second_scan"])
@pytest.mark.parametrize("label", [0, 4])
def test_score_that_the_page_does_not_show_does_not_hold(audit, scan, label):
    def edit(report):
        scores = first(report[scan] if scan in report else report["removal"][scan])["scores"]
        scores[str(label)] *= 1.002

    forge(audit, edit, drawn=False)
    assert named(verify_report(audit), False) == {"page"}


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: first(r["scan"]).update(rival=0),
        lambda r: r["scan"]["templates"].append("this is {}"),
        lambda r: r["config"]["scan"]["bars"]["masked"].update(quiet=0.6),
        lambda r: r["removal"]["critical"]["neurons"].update({"4": [1, 6]}),
        lambda r: r["removal"]["training"][0].update(loss=2.5),
        lambda r: r["removal"]["examples"]["triggered_after"].__setitem__(0, 4),
    ],
)
def test_what_the_page_does_not_show_does_not_hold(audit, edit):
    forge(audit, edit, drawn=False)
    assert named(verify_report(audit), False) == {"page"}


def test_figures_that_the_page_does_not_show_do_not_hold(audit, monkeypatch):
    """Every rate and every digest of model and images, when the page is left as it was."""
    monkeypatch.setattr(
        "hf_invertune.report.html.charts", lambda report: []
    )  # the text is enough, and takes less long
    make_report().save(audit)
    whole = json.loads((audit / "report.json").read_text())
    places = [
        ("removal", "measurements", i, side, name, part)
        for i, measurement in enumerate(whole["removal"]["measurements"])
        for side in ("before", "after")
        for name, rate in measurement[side].items()
        if rate is not None
        for part in rate
    ]
    assert len(places) == 40
    digests = [("scan", "inputs", "model", "sha256"), ("scan", "inputs", "data", "sha256")]
    digests += [("removal", "sha256"), ("removal", "held_out_sha256")]
    for *path, last in [*places, *digests]:

        def edit(value, path=path, last=last):
            for key in path:
                value = value[key]
            value[last] = value[last] + 1 if isinstance(value[last], int) else value[last].replace(value[last][0], "0")

        (audit / "report.json").write_text(json.dumps(whole))
        forge(audit, edit, drawn=False)
        assert named(verify_report(audit), False), (path, last)


# Figures that contradict each other, on a page drawn anew and with new checksums


def first(scan):
    return scan["evidence"][0]


def model(report):
    return report["scan"]["inputs"]["model"]


def rate(report, name="attack_success_rate", side="before"):
    return report["removal"]["measurements"][0][side][name]


def second(report):
    return report["removal"]["second_scan"]


def success_after(report):
    rate(report, side="after").update(hits=24)


CONTRADICTIONS = {
    "a scan's verdict": ("verdict", lambda r: r["scan"].update(verdict="clean", target=None)),
    "a scan's target": ("verdict", lambda r: r["scan"].update(target=3)),
    "a scan without a target": ("verdict", lambda r: r["scan"].update(target=None)),
    "the score of the target": ("verdict", lambda r: [e["scores"].update({"4": 8.9}) for e in r["scan"]["evidence"]]),
    "the score of another label": ("verdict", lambda r: first(r["scan"])["scores"].update({"3": 0.5})),
    "a bar": ("verdict", lambda r: [bars.update(suspicious=6.0) for bars in r["scan"]["config"]["bars"].values()]),
    "a second scan's verdict": ("verdict of the second scan", lambda r: second(r).update(verdict="inconclusive")),
    "a second scan's score": ("verdict of the second scan", lambda r: first(second(r))["scores"].update({"4": 1.0})),
    "the outcome": ("outcome", lambda r: r.update(outcome="not cleaned")),
    "a rate after": ("outcome", success_after),
    "an accuracy after": ("outcome", lambda r: rate(r, "clean_accuracy", "after").update(hits=100)),
    "a bar of the outcome": ("outcome", lambda r: r["config"]["audit"].update(max_attack_success_rate=0.0)),
    "a measured trigger's digest": (
        "triggers",
        lambda r: r["removal"]["measurements"][1].update(trigger_sha256="00" * 32),
    ),
    "order of the triggers": ("triggers", lambda r: r["removal"]["inverted"].reverse()),
    "a measured trigger's family": ("triggers", lambda r: r["removal"]["inverted"][1].update(family="masked")),
    "a measured trigger's label": ("triggers", lambda r: r["removal"]["inverted"][1].update(label=3)),
    "a measured trigger": ("triggers", lambda r: r["removal"]["inverted"].pop()),
    "example pictures": (
        "example pictures",
        lambda r: r["removal"]["examples"].update(
            clean=".removal.examples.triggered", triggered=".removal.examples.clean"
        ),
    ),
}

OUT_OF_RANGE = {
    "more hits than images": lambda r: rate(r).update(hits=110),
    "negative hits": lambda r: rate(r).update(hits=-1),
    "more images than held out": lambda r: rate(r, "clean_accuracy").update(count=128),
    "fewer held out than measured": lambda r: r["scan"]["inputs"]["data"].update(held_out=126),
    "no ASR": lambda r: r["removal"]["measurements"][1]["after"].update(attack_success_rate=None),
    "no floor": lambda r: r["removal"]["measurements"][0]["after"].update(target_rate=None),
    "no quality": lambda r: r["removal"]["measurements"][0]["after"].update(clean_accuracy=None),
    "two kinds of quality": lambda r: r["removal"]["measurements"][0]["before"].update(agreement=rate(r)),
    "other labels in the second scan": lambda r: second(r)["class_names"].__setitem__(0, "cat"),
    "a share": lambda r: r["scan"]["simulations"][0]["adversarial"].__setitem__(0, 1.5),
    "a label too many": lambda r: r["scan"]["simulations"][0]["clean"].append(0.0),
    "a negative score": lambda r: first(r["scan"])["scores"].update({"0": -9.1}),
    "a score beyond all measure": lambda r: first(r["scan"])["scores"].update({"0": 1e300}),
    "no score": lambda r: first(second(r)).update(scores={}),
    "one score": lambda r: first(second(r)).update(scores={"4": 1.0}, rival=4),
    "a score of no label": lambda r: first(r["scan"])["scores"].update({"9": 9.1}),
    "a rival without a score": lambda r: first(r["scan"])["scores"].pop(str(first(r["scan"])["rival"])),
    "the easiest label as its own rival": lambda r: first(r["scan"]).update(rival=4),
    "a finalist without a score": lambda r: first(r["scan"])["candidates"][0].update(label=9),
    "no evidence": lambda r: r["scan"].update(evidence=[]),
    "a family twice": lambda r: r["scan"]["evidence"][1].update(family="masked"),
    "a family without bars": lambda r: r["scan"]["evidence"][1].update(family="swirl"),
    "a name twice": lambda r: r["scan"]["class_names"].__setitem__(0, r["scan"]["class_names"][1]),
    "a target that is no label": lambda r: r["scan"].update(target=9),
    "a scan that names no model": lambda r: r["scan"].update(inputs=None),
    "the target": lambda r: r["removal"].update(target=3),
    "no trigger": lambda r: r["removal"].update(inverted=[]),
    "a trigger to no label": lambda r: r["removal"]["inverted"][1].update(label=-1),
    "a strongest trigger that was not measured": lambda r: r["removal"]["inverted"][0].update(family="swirl"),
    "the results of no tuning": lambda r: r.update(removal=None),
    "a tuning of a model that was left unchanged": lambda r: r.update(outcome="unchanged"),
    "a digest that is none": lambda r: model(r).update(sha256="AA" * 32),
    "a trigger's digest that is none": lambda r: r["removal"]["measurements"][1].update(trigger_sha256=""),
    "a dtype that is none": lambda r: model(r).update(dtype="quint8"),
    "text that is no Unicode": lambda r: r["scan"]["inputs"]["data"].update(source="\ud800"),
    "a key that is no Unicode": lambda r: r["removal"]["training"][0].update({"loss_\ud800": 1.0}),
    "a neuron too many": lambda r: r["removal"]["critical"]["neurons"].update({"4": [64]}),
    "an unknown layer": lambda r: r["removal"]["critical"]["neurons"].update({"9": [1]}),
    "no layers": lambda r: r["removal"]["critical"].update(layer_scores=[], neurons={}),
    "an unknown outcome": lambda r: r.update(outcome="fixed"),
    "an unknown setting": lambda r: r["config"].update(speed=1),
    "a setting out of its range": lambda r: r["config"]["audit"].update(max_attack_success_rate=-1.0),
    "a training without steps": lambda r: r["removal"]["training"][0].pop("step"),
    "an example read as no label": lambda r: r["removal"]["examples"]["clean_after"].__setitem__(0, 9),
    "examples without labels": lambda r: r["removal"]["examples"].update(triggered_before=[]),
    "examples that are no pictures": lambda r: r["removal"]["examples"].update(
        clean=".removal.inverted.0.trigger.pattern", triggered=".removal.inverted.0.trigger.pattern"
    ),
    "a trigger that exceeds its bound": lambda r: r["removal"]["inverted"][1]["trigger"].update(epsilon=1e-3),
    "a mask for a pattern": lambda r: r["removal"]["inverted"][0]["trigger"].update(
        pattern=".removal.inverted.0.trigger.mask"
    ),
}


@pytest.mark.parametrize("fault", CONTRADICTIONS)
def test_contradiction_does_not_hold(audit, fault):
    name, edit = CONTRADICTIONS[fault]
    forge(audit, edit)
    claims = verify_report(audit)
    assert name in named(claims, False)
    assert {"checksums", "readable", "page"} <= named(claims, True), claims


@pytest.mark.parametrize("fault", OUT_OF_RANGE)
def test_what_is_out_of_range_does_not_hold(audit, fault):
    forge(audit, OUT_OF_RANGE[fault], drawn=False)
    claims = verify_report(audit)
    assert named(claims, False) == {"readable"} and claims[-1].name == "readable", claims


def test_backdoored_model_left_unchanged_does_not_hold(saved, tmp_path):
    folder = shutil.copytree(saved["scanned backdoored"], tmp_path / "audit")
    forge(folder, lambda r: r.update(outcome="unchanged"))
    assert named(verify_report(folder), False) == {"outcome"}


def test_every_outcome_but_its_own_is_found(saved, tmp_path):
    for case, (outcome, _) in CASES.items():
        for other in {"scanned", "unchanged", "cleaned", "reduced", "not cleaned"} - {outcome}:
            folder = shutil.copytree(saved[case], tmp_path / case / other)
            forge(folder, lambda r, other=other: r.update(outcome=other), drawn=False)
            assert named(verify_report(folder), False), (case, other)


TENSORS = {
    "not finite": lambda t: t.update({".removal.inverted.0.trigger.mask": torch.full((1, 16, 16), torch.nan)}),
    "beyond white": lambda t: t[".removal.inverted.0.trigger.pattern"].mul_(2),
    "in another precision": lambda t: t.update(half=t.pop(".scan.simulations.1.trigger.delta").half()),
    "triggers without pixels": lambda t: t.update({".removal.inverted.1.trigger.delta": torch.zeros(3, 0, 0)}),
    "larger pictures": lambda t: t.update(
        {f".removal.examples.{name}": torch.zeros(3, 3, 17, 16, dtype=torch.uint8) for name in ("clean", "triggered")}
    ),
    "pictures of two sizes": lambda t: t.update(
        {".removal.examples.clean": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}
    ),
    "pictures of one colour": lambda t: t.update(
        {f".removal.examples.{name}": torch.zeros(3, 1, 16, 16, dtype=torch.uint8) for name in ("clean", "triggered")}
    ),
    "complex numbers": lambda t: t.update(
        {".removal.inverted.1.trigger.delta": torch.zeros(3, 16, 16).to(torch.cfloat)}
    ),
}


@pytest.mark.parametrize("fault", TENSORS)
def test_pixels_that_cannot_be_do_not_hold(audit, fault):
    tensors = load_file(audit / "report.safetensors")
    TENSORS[fault](tensors)
    save_file(tensors, audit / "report.safetensors")
    place = ".scan.simulations.1.trigger.delta"
    if "half" in tensors:
        forge(audit, lambda r: r["scan"]["simulations"][1]["trigger"].update(delta="half"), drawn=False)
    relist(audit)
    assert place in tensors or "half" in tensors
    assert named(verify_report(audit), False) == {"readable"}


@pytest.mark.parametrize(
    "kind", ["additive", "blend", "masked", "patch", "sample-specific", "scattered-patch", "warp"]
)
def test_no_trigger_ends_in_a_traceback(audit, monkeypatch, kind):
    """Of whatever kind, with whatever parameters, in the place of the strongest one."""
    monkeypatch.setattr("hf_invertune.report.html.charts", lambda report: [])
    known, tensors = Trigger.kinds[kind], load_file(audit / "report.safetensors")
    shapes = {n: (wanted, 16, 16) if isinstance(wanted, int) else wanted for n, wanted in known.tensors.items()}
    if "patch" in kind:
        shapes["patch"] = (3, 2, 3)
    whole = (audit / "report.json").read_text()
    for fill, scalar in ((0.5, 0), (0.5, -1), (0.5, 2**62), (0.5, 10**400), (0.5, float("nan")), (3e38, 1)):
        save_file({**tensors, **{n: torch.full(s, fill) for n, s in shapes.items()}}, audit / "report.safetensors")
        trigger = {"kind": kind, **dict.fromkeys(known.scalars, scalar), **{name: name for name in shapes}}
        for withheld in (False, True):
            value = json.loads(whole)
            value["removal"]["inverted"][0]["trigger"] = first(value["scan"])["candidates"][0]["trigger"] = trigger
            value["trigger_withheld"] = withheld
            (audit / "report.json").write_text(json.dumps(value))
            relist(audit)
            assert named(verify_report(audit), False), (scalar, withheld)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_page_of_a_report_at_the_edge_of_every_range_is_drawn(audit):
    """What is in its range can be drawn, however odd it looks."""

    def edit(report):
        for scan in (report["scan"], second(report)):
            scan["class_names"] = [f"\x00$\\frac{{{k}\n" + 3000 * "長" for k in range(9)]
            scan.update(verdict="backdoored", target=0, seconds=None)
            for evidence in scan["evidence"]:
                evidence.update(scores={"0": 2e-12, "1": 9e11, "2": 9e11}, rival=2, candidates=[])
            for simulation in scan["simulations"]:
                simulation["kind"] = "_"
        removal = report["removal"]
        removal["critical"].update(layer_scores=[-9e11, 9e11], neurons={"1": []}, widths=[0, 0])
        removal["training"] = [{"step": 9e11, "loss": 1e308, "_": 1.0}, {"step": -9e11, "loss": None, "loss_": 5e-324}]
        removal["training"].append({"step": 0.0, "eval_agreement": 1e308})
        removal["inverted"][0].update(coverage=None, objective=1e308, cross_entropy=None)
        for measurement in removal["measurements"]:
            measurement["after"]["attack_success_rate"] = {"hits": 0, "count": 0}
        report["seconds"] = {"": 1e308}
        report.update(created="", versions={**report["versions"], "": ""})

    forge(audit, edit)
    claims = verify_report(audit)
    assert {"readable", "page", "verdict"} <= named(claims, True), claims
    assert named(claims, False) == {"files", "outcome"}  # the finalists' pixels are left over


@pytest.mark.slow
def test_no_value_of_a_report_ends_in_a_traceback(audit, monkeypatch):
    """Each kind of value in report.json replaced by values that it cannot have."""
    monkeypatch.setattr("hf_invertune.report.verify.render", lambda report: "")
    whole = (audit / "report.json").read_text()
    places = {}

    def collect(value, path, shape):
        places.setdefault(shape, path)
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            collect(item, [*path, key], (*shape, "*" if isinstance(value, list) or str(key).isdigit() else key))

    collect(json.loads(whole), [], ())
    assert len(places) > 150
    for path in list(places.values())[1:]:
        for wrong in (None, -1, 0, 1e308, 10**400, float("nan"), "../x", "x" * 3000, "\ud800", [], {}):
            value = json.loads(whole)
            parent = value
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = wrong
            (audit / "report.json").write_text(json.dumps(value))
            assert verify_report(audit)[0].name == "checksums", (path, wrong)


# The command


def test_command_prints_a_table(audit, saved):
    result = CliRunner().invoke(cli.app, ["report", "verify", str(audit)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert re.search(r"verdict +holds +backdoored", result.output)
    assert re.search(r"model +cannot be checked", result.output)
    assert "9 holds, 0 does not hold, 1 cannot be checked" in result.output


def test_command_says_what_does_not_hold(audit):
    (audit / "notes.txt").write_text("mine")
    result = CliRunner().invoke(cli.app, ["report", "verify", str(audit), "--json"])
    assert result.exit_code == 6
    value = json.loads(result.stdout)
    assert not value["holds"]
    assert value["claims"][0] == {"name": "checksums", "holds": False, "detail": "notes.txt is not listed"}
    assert value["claims"][-1]["holds"] is None


def test_command_takes_a_model(tmp_path, tiny, tiny_folder):
    config = removal_config()
    AuditReport("scanned", BackdoorRemover(tiny).scan(pictures(32), config=config), config=config).save(tmp_path)
    result = CliRunner().invoke(cli.app, ["report", "verify", str(tmp_path), "--model", str(tiny_folder), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["claims"][-1]["holds"]


def test_command_refuses_wrong_input(audit, tmp_path):
    for arguments in ([str(tmp_path / "nowhere")], [str(audit), "--model", str(tmp_path / "nowhere")]):
        result = CliRunner().invoke(cli.app, ["report", "verify", *arguments])
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ") and "nowhere" in result.stderr


def test_help_loads_nothing_heavy():
    code = "import sys, hf_invertune.cli; print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
