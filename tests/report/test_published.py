"""What a report that may go to the Hub holds: everything but the trigger."""

import hashlib
import re
import subprocess
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
from answers import make_place
from PIL import Image
from reports import CASES, make_report, same
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from hf_invertune.lab.demo import demo_images, victim_truth
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report.html import charts
from hf_invertune.report.report import AuditReport, _reason
from hf_invertune.triggers import AdditiveTrigger, BlendTrigger, MaskedTrigger, PatchTrigger


pytestmark = pytest.mark.usefixtures("drawn_once")


def triggers_of(report):
    """Every trigger of a report."""
    scans = [report.scan, report.second_scan]
    candidates = [c for scan in scans for evidence in scan.evidence for c in evidence.candidates]
    simulated = [simulation.trigger for scan in scans for simulation in scan.simulations]
    return [*simulated, *(c.trigger for c in report.inverted + candidates)]


def secrets_of(report):
    """The pixels of a report's triggers, and the pictures that carry them."""
    parts = [t.delta if isinstance(t, AdditiveTrigger) else t.pattern for t in triggers_of(report)]
    parts += [t.mask.expand(3, -1, -1) for t in triggers_of(report) if isinstance(t, MaskedTrigger)]
    return [part.float() for part in parts] + list(report.removal.examples.triggered.float())


def pictures_in(folder):
    """Every tensor and every picture of a saved report, as 3 x H x W."""
    shown = re.findall(r"data:image/png;base64,([^\"]*)", (folder / "report.html").read_text())
    pixels = [torch.from_numpy(np.array(Image.open(BytesIO(b64decode(uri))))).permute(2, 0, 1) for uri in shown]
    tensors = [tensor for file in folder.glob("*.safetensors") for tensor in load_file(file).values()]
    pixels += [picture.expand(3, -1, -1) for tensor in tensors for picture in tensor.view(-1, *tensor.shape[-3:])]
    return [picture.float() for picture in pixels]


def correlation(one, other):
    other = interpolate(other[None], one.shape[-2:])[0]
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].nan_to_num())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A cleaned report saved whole, and both of its published forms."""
    report, parent = make_report(), tmp_path_factory.mktemp("reports")
    report.save(parent / "whole")
    report.published(include_trigger=True).save(parent / "included")
    report.published().save(parent / "withheld")
    return parent


def test_no_picture_or_tensor_correlates_with_a_trigger(folders):
    secrets = secrets_of(make_report())

    def closest(folder):
        shaded = [
            picture for picture in pictures_in(folder) if len(picture.unique()) > 2
        ]  # else the outline of a mask
        return max((abs(correlation(secret, picture)) for secret in secrets for picture in shaded), default=0)

    assert closest(folders / "whole") > 0.99  # or the measure would find nothing
    assert closest(folders / "withheld") == 0
    assert not (folders / "withheld" / "trigger.safetensors").exists()


def test_what_is_left_of_a_trigger_is_its_place():
    report = make_report()
    bare, whole = triggers_of(report.published()), triggers_of(report)
    assert len(bare) == len(whole)
    for left, trigger in zip(bare, whole, strict=True):
        if isinstance(trigger, MaskedTrigger):
            assert set(left.mask.unique().tolist()) <= {0.0, 1.0}
            assert left.mask[trigger.mask > trigger.mask.max() / 2].all()
        if not isinstance(trigger, AdditiveTrigger):
            assert torch.equal(left.pattern, torch.full_like(trigger.pattern, 0.5))
        else:
            assert not left.delta.any() and left.epsilon == trigger.epsilon


@pytest.mark.parametrize(
    "trigger",
    [PatchTrigger(torch.rand(3, 2, 2), 1, 2), BlendTrigger(torch.rand(3, 4, 4), 0.2)],
    ids=["patch", "blend"],
)
def test_triggers_of_every_kind_lose_their_pixels(trigger):
    report = make_report()
    report.inverted[0].trigger = trigger
    left = report.published().inverted[0].trigger
    assert type(left) is type(trigger) and left.scalars == trigger.scalars
    assert all(torch.equal(tensor, torch.full_like(tensor, 0.5)) for tensor in left.buffers())


def test_a_mask_keeps_its_place_and_not_its_shape():
    report = make_report()
    mask = torch.zeros(1, 8, 8)
    mask[0, 2, 5] = mask[0, 4, 3] = 0.2  # faint, and no rectangle
    mask[0, 7, 7] = 0.05
    report.inverted[0].trigger = MaskedTrigger(mask, torch.rand(3, 8, 8))
    expected = torch.zeros(1, 8, 8)
    expected[0, 2:5, 3:6] = 1
    assert torch.equal(report.published().inverted[0].trigger.mask, expected)
    report.inverted[0].trigger.mask.zero_()
    assert not report.published().inverted[0].trigger.mask.any()


def test_the_attack_cannot_be_rebuilt_from_the_mask(victim):
    """On the embedded victim the shape of the mask is the trigger: filled with white, it works as well as any."""
    truth, attack = victim_truth()
    mask = torch.zeros(1, 32, 32)
    height, width = attack.patch.shape[-2:]
    mask[:, attack.top : attack.top + height, attack.left : attack.left + width] = attack.patch.mean(0) > 0.5
    report, remover, test = make_report(), BackdoorRemover(victim), demo_images(100, seed=5)

    def success(trigger):
        return remover.evaluate(test, trigger=trigger, target=truth["target"]).attack_success_rate.value

    white = torch.ones(3, 32, 32)
    report.inverted[0].trigger = MaskedTrigger(mask, white)
    left = report.published().inverted[0].trigger
    assert success(MaskedTrigger(mask, white)) > 0.9
    for pattern in (left.pattern, white, torch.zeros(3, 32, 32)):
        assert success(MaskedTrigger(left.mask, pattern)) < 0.1


def test_the_original_is_left_alone(folders):
    report = make_report()
    report.published()
    assert same(report, make_report())


def test_the_rest_stays(folders):
    report, bare = AuditReport.load(folders / "whole"), AuditReport.load(folders / "withheld")
    assert bare.trigger_withheld and not report.trigger_withheld
    assert bare.removal.examples is None and not (folders / "withheld/trigger.safetensors").exists()
    assert bare.trigger_sha256 == hashlib.sha256((folders / "whole/trigger.safetensors").read_bytes()).hexdigest()
    for name in ("verdict", "outcome", "reasons", "target", "model", "measurements", "config"):
        assert same(getattr(bare, name), getattr(report, name)), name
    for name in ("critical", "training", "sha256"):
        assert same(getattr(bare.removal, name), getattr(report.removal, name)), name
    assert bare.scan.evidence[0].scores == report.scan.evidence[0].scores
    assert bare.inverted[0].objective == report.inverted[0].objective
    assert same(bare.published(), bare)


def test_with_the_trigger_everything_stays(folders):
    assert same(AuditReport.load(folders / "included"), AuditReport.load(folders / "whole"))
    names = sorted(path.name for path in (folders / "whole").iterdir())
    for name in names:
        assert (folders / "included" / name).read_bytes() == (folders / "whole" / name).read_bytes()
    assert names == ["SHA256SUMS", "report.html", "report.json", "report.safetensors", "trigger.safetensors"]


def test_the_page_says_that_the_pixels_are_withheld(folders):
    page, whole = ((folders / name / "report.html").read_text() for name in ("withheld", "whole"))
    assert "The pixels are withheld" in page and "The pixels are withheld" not in whole
    assert page.count("<img") == 1 and 'alt="Inverted trigger for green square: its place"' in page
    assert AuditReport.load(folders / "withheld").trigger_sha256 in page


def test_the_charts_of_the_verdict_tell_nothing_of_a_trigger():
    """They are drawn from figures alone, so they are the same where the pixels are withheld."""
    report = make_report()
    report.scan.gatherings = [make_place(report.scan, 0.9)]
    whole, bare = dict(charts(report)), dict(charts(report.published()))
    assert whole["leads"] == bare["leads"] and whole["places"] == bare["places"]
    assert not any("<image" in chart for chart in whole.values())


@pytest.mark.parametrize("case", CASES)
def test_every_outcome_can_be_published(tmp_path, case):
    report = make_report(*CASES[case]).published()
    report.save(tmp_path)
    assert same(AuditReport.load(tmp_path), report)


@pytest.mark.parametrize(
    ("skipped", "reason"),
    [
        ("broken.png: not an image", "not an image"),
        ("ours: at home.png: of no known picture format", "of no known picture format"),
        ("x.png: [Errno 2] No such file or directory: '/home/x.png'", "[Errno 2] No such file or directory"),
        ("x.png: cannot identify image file '/home/Ann's.png'", "cannot identify image file"),
        ("truncated", "truncated"),
    ],
)
def test_names_of_skipped_files_are_left_out(skipped, reason):
    assert _reason(skipped) == reason


def test_skipped_files_are_still_counted():
    report = make_report()
    report.data.skipped = ["a.png: empty", "b.png: empty"]
    assert report.published().data.skipped == ["empty", "empty"]
    assert report.published(include_trigger=True).data.skipped == report.data.skipped


@pytest.mark.parametrize("case", ["scanned clean", "cleaned"])
def test_sha256sum_reads_the_checksums(tmp_path, case):
    make_report(*CASES[case]).save(tmp_path)
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    checked = [line.removesuffix(": OK") for line in done.stdout.splitlines()]
    assert checked == sorted(path.name for path in tmp_path.iterdir() if path.name != "SHA256SUMS")


def test_an_earlier_report_leaves_nothing(tmp_path):
    make_report().save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    make_report().published().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "SHA256SUMS",
        "notes.txt",
        "report.html",
        "report.json",
        "report.safetensors",
    ]
    assert "trigger.safetensors" not in (tmp_path / "SHA256SUMS").read_text()


def test_a_broken_save_leaves_no_checksums(tmp_path, monkeypatch):
    make_report().save(tmp_path)

    def fail(report):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_invertune.report.report.render", fail)
    with pytest.raises(KeyboardInterrupt):
        make_report(seed=1).save(tmp_path)
    assert not (tmp_path / "SHA256SUMS").exists()


def test_the_digest_is_that_of_the_file(tmp_path):
    report = make_report()
    report.save(tmp_path)
    digest = hashlib.sha256((tmp_path / "trigger.safetensors").read_bytes()).hexdigest()
    assert report.trigger_sha256 == digest == AuditReport.load(tmp_path).trigger_sha256
    assert report.published().trigger_sha256 == digest


def test_a_report_without_a_trigger_has_no_digest(tmp_path):
    report = make_report("unchanged")
    report.save(tmp_path)
    assert AuditReport.load(tmp_path).trigger_sha256 is None
