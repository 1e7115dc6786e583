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
from tiny import CLASS_NAMES
from tiny_plan import pictures, removal_config
from typer.testing import CliRunner

from hf_invertune.cli.main import app
from hf_invertune.errors import InputError
from hf_invertune.models.loading import state_digest
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report import verify as verification
from hf_invertune.report.html import render
from hf_invertune.report.report import AuditReport
from hf_invertune.report.verify import Claim, verify_report
from hf_invertune.stages.identification import robust_z
from hf_invertune.utils.files import write_checksums


pytestmark = pytest.mark.usefixtures("drawn_once")


WITHHELD = {"trigger digest", "coverage", "example pictures"}


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
    claims = verify_report(published)
    assert named(claims, False) == set()
    assert named(claims, None) == {"model", *WITHHELD}
    assert all("withheld" in claim.detail for claim in claims if claim.name in WITHHELD)


def test_report_of_a_real_removal_holds(tiny, tmp_path):
    original = copy.deepcopy(tiny.model)
    result = BackdoorRemover(tiny).remove(pictures(32), CLASS_NAMES, config=removal_config())
    result.report.save(tmp_path / "whole")
    result.report.published().save(tmp_path / "published")
    for folder in (tmp_path / "whole", tmp_path / "published"):
        for model, which in ((original, "that was audited"), (result.model, "that was handed back")):
            claims = verify_report(folder, model)
            assert named(claims, False) == set(), claims
            assert claims[-1].detail == f"the model given is the model {which}"
    assert named(verify_report(tmp_path / "whole", original), None) == set()


def test_report_of_a_real_scan_holds(tiny, tmp_path):
    report = BackdoorRemover(tiny).audit(pictures(32), CLASS_NAMES, config=removal_config().scan)
    report.save(tmp_path)
    claims = verify_report(tmp_path, tiny)
    assert named(claims, False) == set(), claims
    assert claims[-1].holds


# The model


def test_model_must_be_one_of_the_two(tiny, audit):
    digest, parameters = state_digest(tiny.model, tiny.dtype), tiny.model.num_parameters()
    assert not verify_report(audit, tiny)[-1].holds
    forge(audit, lambda r: r["model"].update(sha256_before=digest, parameters=parameters))
    assert verify_report(audit, tiny)[-1].holds
    with torch.no_grad():
        tiny.model.logit_scale += 1
    assert not verify_report(audit, tiny)[-1].holds


def test_model_of_another_size_does_not_hold(tiny, audit):
    digest = state_digest(tiny.model, tiny.dtype)
    forge(audit, lambda r: r["model"].update(sha256_before=digest))
    claim = verify_report(audit, tiny)[-1]
    assert not claim.holds and "parameters" in claim.detail


# Files


def test_every_byte_of_the_trigger_counts(audit, no_page):
    """Even when the checksums are made anew."""
    whole = (audit / "trigger.safetensors").read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        (audit / "trigger.safetensors").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        relist(audit)
        assert named(verify_report(audit), False), place


def test_trigger_with_its_digest_forged_is_not_the_inverted_one(audit):
    tensors = load_file(audit / "trigger.safetensors")
    tensors["pattern"][0, 0, 0] += 0.01
    save_file(tensors, audit / "trigger.safetensors", metadata={"kind": "masked"})
    digest = AuditReport.load(audit).trigger.digest()
    AuditReport.load(audit).trigger.save(audit / "trigger.safetensors")

    def edit(value):
        value["trigger_sha256"] = value["measurements"][0]["trigger_sha256"] = digest

    forge(audit, edit)
    assert {"strongest trigger"} < named(verify_report(audit), False)


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
    tensors[".inverted.0.trigger.pattern"][0, 0, 0] = 0.6
    save_file(tensors, published / "report.safetensors")
    relist(published)
    assert "withheld pixels" in named(verify_report(published), False)


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


def test_figures_that_the_page_does_not_show_do_not_hold(audit, monkeypatch):
    """Every rate and every digest of model and images, when the page is left as it was."""
    monkeypatch.setattr(
        "hf_invertune.report.html.charts", lambda report: []
    )  # the text is enough, and takes less long
    make_report().save(audit)
    whole = json.loads((audit / "report.json").read_text())
    places = [
        ("measurements", i, side, name, part)
        for i, measurement in enumerate(whole["measurements"])
        for side in ("before", "after")
        for name, rate in measurement[side].items()
        if rate is not None
        for part in rate
    ]
    assert len(places) == 40
    for *path, last in [*places, ("model", "sha256_before"), ("model", "sha256_after"), ("data", "sha256")]:

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


def lead_without_its_verdict(report):
    first(report["scan"])["verdict"] = "clean"


def scores_and_all_that_follows(report):
    """A label that looks as easy as the target, with z-scores to match; the lead is over nothing then."""
    evidence = first(report["scan"])
    evidence["scores"]["0"] = evidence["scores"]["4"] * 1.01
    evidence["z_scores"] = robust_z(evidence["scores"])
    others = [score for label, score in evidence["scores"].items() if label not in ("0", "4")]
    evidence["lead"] = (min(others) - evidence["scores"]["4"]) / evidence["scores"]["4"] + 0.001


FORGED = {
    "more hits than images": ("rates", lambda r: rate(r).update(hits=110)),
    "negative hits": ("rates", lambda r: rate(r).update(hits=-1)),
    "hits over all images below those without the target's": ("rates", lambda r: rate(r).update(hits=111, count=111)),
    "a rate of other images": ("rates", lambda r: rate(r, "clean_accuracy").update(hits=1, count=2)),
    "another ASR": ("rates", lambda r: rate(r).update(hits=106 - 19)),
    "another floor": ("rates", lambda r: rate(r, "target_rate").update(hits=3)),
    "another accuracy": ("rates", lambda r: rate(r, "clean_accuracy").update(hits=114)),
    "labels denied": ("rates", lambda r: r["data"].update(labelled=False)),
    "PA and ASR above one": ("rates", lambda r: rate(r, "poisoned_accuracy").update(hits=21)),
    "no PA": ("rates", lambda r: r["measurements"][0]["before"].update(poisoned_accuracy=None)),
    "another number of images": ("images", lambda r: r["data"].update(images=201)),
    "another number held out": ("rates", lambda r: r["data"].update(held_out=128)),
    "another time": ("images", lambda r: r["seconds"].update(scan=1.0)),
    "other labels in the second scan": ("images", lambda r: r["verification"]["class_names"].__setitem__(0, "cat")),
    "a share": ("first scan: simulations", lambda r: r["scan"]["simulations"][0]["adversarial"].__setitem__(0, 0.5)),
    "two shares": ("first scan: simulations", lambda r: shift(r["scan"]["simulations"][0]["adversarial"], 0.001)),
    "P_clean": ("first scan: simulations", lambda r: shift(r["scan"]["simulations"][0]["clean"], 0.005)),
    "a score": ("first scan: scores", lambda r: first(r["scan"])["scores"].update({"0": 9.123})),
    "a z-score": ("first scan: scores", lambda r: first(r["scan"])["z_scores"].update({"0": 0.1})),
    "a lead": ("second scan: scores", lambda r: first(r["verification"]).update(lead=0.02)),
    "the easiest label": ("first scan: scores", lambda r: first(r["scan"]).update(label=5)),
    "the shortlist": ("first scan: scores", lambda r: r["scan"].update(shortlist=[4])),
    "the finalists": ("first scan: scores", lambda r: first(r["scan"])["candidates"][0].update(objective=1.0)),
    "a finalist's name": ("first scan: scores", lambda r: first(r["scan"])["candidates"][0].update(name="cat")),
    "scores with a lead over nothing": ("first scan: scores", scores_and_all_that_follows),
    "a family's verdict": ("first scan: verdict", lead_without_its_verdict),
    "a threshold": ("first scan: verdict", lambda r: r["settings"]["scan"]["suspicious"].update(masked=6)),
    "a scan's verdict": ("first scan: verdict", lambda r: r["scan"].update(verdict="clean", target=None)),
    "a scan's target": ("first scan: verdict", lambda r: r["scan"].update(target=3)),
    "a scan's seed": ("second scan: verdict", lambda r: r["verification"].update(seed=0)),
    "the report's verdict": ("target", lambda r: r.update(verdict="clean")),
    "the target": ("target", lambda r: r.update(target=3, target_name="green circle")),
    "the target's name": ("target", lambda r: r.update(target_name="cat")),
    "the outcome": ("outcome", lambda r: r.update(outcome="not cleaned")),
    "the reasons": ("outcome", lambda r: r.update(outcome="not cleaned", reasons=["It was too hard."])),
    "a bar": ("outcome", lambda r: r["settings"].update(max_attack_success_rate=-1.0)),
    "no digest changed": ("model digests", lambda r: r["model"].update(sha256_after=r["model"]["sha256_before"])),
    "the critical layers": ("critical layers", lambda r: r["critical"]["layer_scores"].__setitem__(0, 5.0)),
    "a coverage": ("coverage", lambda r: r["inverted"][0].update(coverage=0.01)),
    "the trigger's digest": ("trigger digest", lambda r: r.update(trigger_sha256="00" * 32)),
    "a measured trigger's digest": (
        "trigger digest",
        lambda r: r["measurements"][1].update(trigger_sha256="00" * 32),
    ),
    "order of the triggers": ("strongest trigger", lambda r: r["inverted"].reverse()),
    "example pictures": (
        "example pictures",
        lambda r: r["examples"].update(clean=".examples.triggered", triggered=".examples.clean"),
    ),
    "a digest that is none": ("readable", lambda r: r["model"].update(sha256_before="AA" * 32)),
    "text that is no Unicode": ("readable", lambda r: r["data"].update(source="\ud800")),
    "a neuron too many": ("readable", lambda r: r["critical"]["neurons"].update({"4": [64]})),
    "an unknown layer": ("readable", lambda r: r["critical"]["neurons"].update({"9": [1]})),
    "an unknown outcome": ("readable", lambda r: r.update(outcome="fixed")),
    "a label too many": ("readable", lambda r: r["scan"]["simulations"][0]["clean"].append(0.0)),
}


def rate(report, name="attack_success_rate"):
    return report["measurements"][0]["before"][name]


def shift(shares, amount):
    """Move some share from the fullest label to the next; the sum stays."""
    fullest = shares.index(max(shares))
    shares[fullest] -= amount
    shares[fullest - 1] += amount


@pytest.mark.parametrize("fault", FORGED)
def test_contradiction_does_not_hold(audit, fault, no_page):
    name, edit = FORGED[fault]
    forge(audit, edit, drawn=False)
    assert name in named(verify_report(audit), False)


def test_unchanged_model_with_another_digest_does_not_hold(saved, tmp_path):
    folder = shutil.copytree(saved["unchanged clean"], tmp_path / "audit")
    forge(folder, lambda r: r["model"].update(sha256_after="ee" * 32))
    assert named(verify_report(folder), False) == {"model digests"}


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("first scan: verdict", lambda r: r["settings"]["scan"].pop("quiet")),
        ("outcome", lambda r: r["settings"].pop("min_agreement")),
        ("critical layers", lambda r: r["settings"].pop("localization")),
    ],
)
def test_what_is_not_recorded_cannot_be_checked(audit, name, edit):
    forge(audit, edit)
    claims = verify_report(audit)
    assert name in named(claims, None) and not named(claims, False)


@pytest.mark.slow
def test_no_value_of_a_report_ends_in_a_traceback(audit, monkeypatch):
    """Each kind of value in report.json replaced by values that it cannot have."""
    monkeypatch.setattr("hf_invertune.report.html.render", lambda report: "")
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
        for wrong in (None, -1, 10**400, float("nan"), "../x", "\ud800", [], {}):
            value = json.loads(whole)
            parent = value
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = wrong
            (audit / "report.json").write_text(json.dumps(value))
            assert verify_report(audit)[0].name == "checksums", (path, wrong)


# The command


def test_command_prints_a_table(audit, saved):
    result = CliRunner().invoke(app, ["report", "verify", str(audit)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert re.search(r"first scan: verdict +holds +backdoored", result.output)
    assert re.search(r"model +cannot be checked", result.output)
    assert "20 holds, 0 does not hold, 1 cannot be checked" in result.output


def test_command_says_what_does_not_hold(audit):
    (audit / "notes.txt").write_text("mine")
    result = CliRunner().invoke(app, ["report", "verify", str(audit), "--json"])
    assert result.exit_code == 6
    value = json.loads(result.stdout)
    assert not value["holds"]
    assert value["claims"][0] == {"name": "checksums", "holds": False, "detail": "notes.txt is not listed"}
    assert value["claims"][-1]["holds"] is None


def test_command_takes_a_model(tmp_path, tiny, tiny_folder):
    BackdoorRemover(tiny).audit(pictures(32), CLASS_NAMES, config=removal_config().scan).save(tmp_path)
    result = CliRunner().invoke(app, ["report", "verify", str(tmp_path), "--model", str(tiny_folder), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["claims"][-1]["holds"]


def test_command_refuses_wrong_input(audit, tmp_path):
    for arguments in ([str(tmp_path / "nowhere")], [str(audit), "--model", str(tmp_path / "nowhere")]):
        result = CliRunner().invoke(app, ["report", "verify", *arguments])
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ") and "nowhere" in result.stderr


def test_help_loads_nothing_heavy():
    code = "import sys, hf_invertune.cli; print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
