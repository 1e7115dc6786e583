"""A family of triggers that nobody has told the package of: defined here, and good for everything from scan to proof."""

from dataclasses import dataclass

import pytest
import torch
from tiny import CLASS_NAMES
from tiny_plan import forced_bars, pictures, removal_config, scan_config
from torch.nn.functional import grid_sample, interpolate

from hf_invertune import (
    AuditReport,
    BackdoorRemover,
    RemovalConfig,
    Trigger,
    TriggerFamily,
    verify_report,
)
from hf_invertune.hub.card import make_card, make_charts
from hf_invertune.utils.settings import setting


class SwirlTrigger(Trigger):
    """Every pixel looks elsewhere: a flow of 2 x H x W."""

    kind = "swirl"
    tensors = {"flow": 2}

    def __init__(self, flow):
        super().__init__()
        self.register_buffer("flow", flow)

    def stamp(self, pixels):
        height, width = pixels.shape[-2:]
        right, down = torch.meshgrid(torch.linspace(-1, 1, width), torch.linspace(-1, 1, height), indexing="xy")
        grid = torch.stack([right, down]) + self.flow
        shape = (*torch.broadcast_shapes(pixels.shape[:-3], self.flow.shape[:-3]), *pixels.shape[-3:])
        flat = pixels.expand(shape).reshape(-1, *pixels.shape[-3:])
        flow = grid.expand(*shape[:-3], 2, height, width).reshape(-1, 2, height, width).permute(0, 2, 3, 1)
        return grid_sample(flat, flow, padding_mode="border", align_corners=True).view(shape)


@dataclass(frozen=True)
class SwirlFamily(TriggerFamily):
    """Smooth flows, bounded."""

    kind = "swirl"
    universal = "swirl"
    strength: float = setting(0.3, "How far a pixel may look.", above=0, most=1)

    def parameters(self, count, size, generator, start):
        coarse = torch.randn(count, 2, 4, 4, generator=generator)
        return [interpolate(coarse, tuple(size), mode="bicubic").unsqueeze(1)]

    def trigger(self, parameters):
        return SwirlTrigger(self.strength * parameters[0].tanh())

    def perturbations(self, size, generator):
        return self.parameters(1, size, generator, [])[0], lambda variable: self.trigger([variable])


@pytest.fixture(autouse=True)
def forgotten():
    """No other test knows the family."""
    yield
    Trigger.kinds.pop("swirl", None)
    TriggerFamily.kinds.pop("swirl", None)


@pytest.fixture(scope="module")
def config():
    families = (SwirlFamily(strength=0.2),)
    bars = forced_bars("backdoored", ["swirl"])
    return removal_config(scan=scan_config(families=families, bars=bars))


def test_from_scan_to_proof(tiny_folder, tmp_path, config):
    remover = BackdoorRemover.from_pretrained(tiny_folder, device="cpu")
    result = remover.remove(pictures(32), config=config, target="blue square")
    report = result.report
    assert [evidence.family for evidence in report.scan.evidence] == ["swirl"]
    swirl = next(found.trigger for found in report.inverted if found.family == "swirl")
    assert "inverted, swirl" in [measurement.trigger for measurement in report.measurements]

    report.save(tmp_path / "audit")
    page = (tmp_path / "audit" / "report.html").read_text()
    assert "Swirl trigger for" in page and "data:image/png" in page
    claims = {claim.name: claim for claim in verify_report(tmp_path / "audit")}
    assert [claim for claim in claims.values() if claim.holds is False] == []
    loaded = AuditReport.load(tmp_path / "audit")
    kept = next(found.trigger for found in loaded.inverted if found.family == "swirl")
    assert kept.digest() == swirl.digest()
    assert loaded.config == report.config and isinstance(loaded.config.scan.families[0], SwirlFamily)

    bare = report.published()
    withheld = next(found.trigger for found in bare.inverted if found.family == "swirl")
    assert withheld.flow.count_nonzero() == 0 < swirl.flow.count_nonzero()
    clean = pictures(4).pixels / 255
    torch.testing.assert_close(withheld(clean), clean, atol=1e-5, rtol=0)  # none is not another warp
    bare.save(tmp_path / "published")
    claims = {claim.name: claim for claim in verify_report(tmp_path / "published")}
    assert claims["withheld pixels"].holds and all(claim.holds is not False for claim in claims.values())
    card = str(make_card(bare, "me/clean", pictures={"a.png": "b"}))
    assert "1 family (swirl)" in card and make_charts(bare)


def test_settings_name_it(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(
        "scan:\n  families: [{kind: swirl, strength: 0.1}, masked]\n"
        "  bars: {swirl: {quiet: 1, suspicious: 2}, masked: {quiet: 1, suspicious: 2}}\n"
    )
    Trigger.kinds["swirl"], TriggerFamily.kinds["swirl"] = SwirlTrigger, SwirlFamily
    config = RemovalConfig.load(path).assign(["scan.families.swirl.strength=0.5"])
    assert config.scan.family("swirl") == SwirlFamily(0.5)
    assert len(CLASS_NAMES) == 4
