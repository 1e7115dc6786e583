"""A kind of trigger and a family that exist in this test alone: a report with them is saved, shown, published, checked."""

import json
from dataclasses import dataclass

import pytest
import torch
from reports import NAMES, SIZE, TARGET, make_report, same
from safetensors.torch import load_file, save_file
from torch.nn.functional import grid_sample

from hf_invertune.hub.card import make_card, make_charts, reproduction
from hf_invertune.report.html import render
from hf_invertune.report.report import AuditReport, triggers_in
from hf_invertune.report.verify import verify_report
from hf_invertune.stages.configs import Bars, RemovalConfig
from hf_invertune.stages.families import TriggerFamily
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.simulation import Simulation
from hf_invertune.stages.verdict import Evidence
from hf_invertune.triggers import Trigger
from hf_invertune.utils.files import write_checksums
from hf_invertune.utils.settings import setting


FLOW = "removal.inverted.0.trigger.flow"


@pytest.fixture
def swirl(monkeypatch):
    """The kind and its family, which are forgotten afterwards."""
    for base in (Trigger, TriggerFamily):
        monkeypatch.setattr(base, "kinds", dict(base.kinds))

    class SwirlTrigger(Trigger):
        """Every pixel looks elsewhere."""

        kind = "swirl"
        tensors = {"flow": 2}

        def __init__(self, flow):
            super().__init__()
            self.register_buffer("flow", flow)

        def stamp(self, pixels):
            lines = torch.linspace(-1, 1, self.flow.shape[-1])
            grid = torch.stack(torch.meshgrid(lines, lines, indexing="xy")) + self.flow
            return grid_sample(pixels, grid.permute(1, 2, 0).expand(len(pixels), -1, -1, -1), align_corners=True)

        def forward(self, pixels):
            return super().forward(pixels) if pixels.ndim == 4 else super().forward(pixels.unsqueeze(0))[0]

    @dataclass(frozen=True)
    class SwirlFamily(TriggerFamily):
        """Flows."""

        kind = "swirl"
        universal = "swirl"
        strength: float = setting(0.3, "How far a pixel may look.", above=0, most=1)

        parameters = trigger = perturbations = None  # nothing is searched here

    return SwirlTrigger, SwirlFamily


@pytest.fixture
def report(swirl):
    """A removal that found the swirl first, beside the families that come along."""
    kind, family = swirl
    report = make_report()
    flow = 0.2 * torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    found = InvertedTrigger(TARGET, "swirl", kind(flow), 1.0, 0.01, 1.0)
    removal, scans = report.removal, (report.scan, report.second_scan)
    report.config.scan.families += (family(strength=0.2),)
    report.config.scan.bars["swirl"] = Bars(1.0, 2.0)
    for scan in scans:
        scan.evidence.append(Evidence("swirl", dict(scan.evidence[0].scores), scan.evidence[0].rival, []))
        scan.simulations.append(Simulation("swirl", *[scan.simulations[0].clean] * 2, kind(flow / 2)))
    report.scan.evidence[-1].candidates.append(found)
    removal.inverted.insert(0, found)
    measured = make_report().measurements[1]
    measured.trigger, measured.trigger_sha256 = "inverted, swirl", found.trigger.digest()
    removal.measurements.append(measured)
    removal.examples.triggered = (found.trigger(removal.examples.clean / 255) * 255).round().to(torch.uint8)
    return report


def answers(folder):
    return {claim.name: claim.holds for claim in verify_report(folder)}


def test_it_is_saved_and_loaded(report, swirl, tmp_path):
    report.save(tmp_path)
    loaded = AuditReport.load(tmp_path)
    assert same(loaded, report)
    assert type(loaded.inverted[0].trigger) is swirl[0] and loaded.config.scan.family("swirl") == swirl[1](0.2)
    assert Trigger.load(tmp_path / "trigger.safetensors").digest() == loaded.trigger_sha256
    value = json.loads((tmp_path / "report.json").read_text())
    assert value["removal"]["inverted"][0]["trigger"] == {"kind": "swirl", "flow": f".{FLOW}"}
    assert value["config"]["scan"]["families"][3] == {"kind": "swirl", "strength": 0.2}


def test_the_page_shows_it(report):
    page = render(report)
    assert f'Swirl trigger for <span class="target">{NAMES[TARGET]}</span>' in page
    assert f'alt="Inverted trigger for {NAMES[TARGET]}: on a grid"' in page
    assert "A trigger of the kind swirl. Objective 1, cross-entropy 0.01 nats." in page
    assert "first, swirl" in page and "second, swirl" in page and "universal swirl" in page
    assert "; swirl: " in page and "; swirl in the second scan: " in page  # its strips, in words
    assert "5 families (masked, additive, blend, keyed, swirl)" in page and "scan.families.swirl.strength" in page


def test_the_published_one_has_lost_its_pixels(report, tmp_path):
    bare = report.published()
    flows = [trigger.flow for trigger in triggers_in(bare) if trigger.kind == "swirl"]
    assert len(flows) == 4 and not any(flow.count_nonzero() for flow in flows)
    assert all(t.flow.count_nonzero() for t in triggers_in(report) if t.kind == "swirl")  # the original keeps its own
    assert bare.trigger_sha256 == report.inverted[0].trigger.digest() != bare.inverted[0].trigger.digest()
    page = render(bare)
    assert "Swirl trigger for" in page and "on a grid" not in page
    bare.save(tmp_path)
    assert not (tmp_path / "trigger.safetensors").exists()
    flow = report.inverted[0].trigger.flow.numpy().tobytes()
    assert not any(flow in path.read_bytes() for path in tmp_path.iterdir())
    assert same(report.published(include_trigger=True), report)


def test_the_whole_one_is_verified(report, tmp_path):
    report.save(tmp_path)
    assert {name for name, holds in answers(tmp_path).items() if holds is not True} == {"model"}
    for change, wrong in ((torch.roll, {"triggers", "example pictures"}), (torch.full_like, {"readable"})):
        report.save(tmp_path)
        tensors = load_file(tmp_path / "report.safetensors")
        tensors[f".{FLOW}"] = change(tensors[f".{FLOW}"], {torch.roll: 1, torch.full_like: torch.inf}[change])
        save_file(tensors, tmp_path / "report.safetensors")
        write_checksums(tmp_path, [path.name for path in tmp_path.iterdir() if path.name != "SHA256SUMS"])
        assert {name for name, holds in answers(tmp_path).items() if holds is False} - {"page"} == wrong


def test_the_published_one_is_verified(report, tmp_path):
    report.published().save(tmp_path)
    found = answers(tmp_path)
    assert found["withheld pixels"] and {name for name, holds in found.items() if not holds} == {"triggers", "model"}
    tensors = load_file(tmp_path / "report.safetensors")
    tensors[f".{FLOW}"][0, 3, 3] = 0.1
    save_file(tensors, tmp_path / "report.safetensors")
    write_checksums(tmp_path, [path.name for path in tmp_path.iterdir() if path.name != "SHA256SUMS"])
    assert answers(tmp_path)["withheld pixels"] is False


def test_the_card_tells_of_it(report):
    report.scan.inputs.data.source = "org/photos"
    published = report.published()
    assert list(make_charts(published)) == ["before_after", "scores"]
    card = str(make_card(published, "me/clean-clip"))
    assert "5 families (masked, additive, blend, keyed, swirl)" in card and "is a trigger of the kind swirl." in card
    assert "swirl triggers: the label easiest to reach" in card
    command = reproduction(published)
    assert "scan.families=" in command and "scan.bars=" in command


def test_a_report_of_a_kind_that_nobody_knows_is_not_readable(report, tmp_path):
    report.save(tmp_path)
    Trigger.kinds.pop("swirl")
    claims = verify_report(tmp_path)
    assert [(claim.name, claim.holds) for claim in claims] == [("checksums", True), ("readable", False)]
    assert "swirl" in claims[1].detail


def test_the_settings_of_the_family_are_read_again(swirl):
    config = RemovalConfig.of({"scan": {"families": ["swirl"], "bars": {"swirl": {"quiet": 1, "suspicious": 2}}}})
    assert RemovalConfig.of(config.plain()) == config
