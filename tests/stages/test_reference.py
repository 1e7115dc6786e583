import dataclasses
import json

import pytest
import torch
import yaml
from tiny import CLASS_NAMES
from tiny_plan import pictures, removal_config, save_pictures, scan_config
from typer.testing import CliRunner

from hf_invertune.cli.main import app
from hf_invertune.errors import ExitCode, InputError
from hf_invertune.models.loading import load_model
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report.report import AuditReport
from hf_invertune.stages.configs import GatheringConfig, ScanConfig
from hf_invertune.stages.families import WindowFamily
from hf_invertune.stages.reference import Profile, relative
from hf_invertune.stages.verdict import Evidence, Verdict


GATHERING = GatheringConfig((WindowFamily(),), starts=2, trial=1, steps=1, batch_size=2)
CONFIG = removal_config(scan=scan_config("clean", gathering=GATHERING))


@pytest.fixture(scope="module")
def other_folder(tiny_folder, tmp_path_factory):
    """The tiny model with one weight of another value."""
    other = load_model(tiny_folder, device="cpu")
    with torch.no_grad():
        next(other.model.vision_model.parameters()).mul_(1.5)
    folder = tmp_path_factory.mktemp("other") / "other"
    other.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def profile(other_folder):
    return BackdoorRemover.from_pretrained(other_folder, device="cpu").profile(pictures(16), config=CONFIG)


@pytest.fixture
def remover(tiny):
    return BackdoorRemover(tiny)


def test_what_is_easy_by_nature_counts_for_nothing():
    scores = {0: 1.0, 1: 4.0, 2: 8.0}
    assert relative(scores, {}) == scores
    alike = relative(scores, {0: 2.0, 1: 8.0, 2: 16.0})
    assert list(alike.values()) == pytest.approx([alike[0]] * 3)
    assert Evidence("masked", scores, 1, []).lead == 3
    assert Evidence("masked", scores, 1, [], {0: 2.0, 1: 8.0, 2: 16.0}).lead == pytest.approx(0)
    planted = Evidence("masked", {**scores, 2: 0.5}, 1, [], {0: 2.0, 1: 8.0, 2: 16.0})
    assert (planted.label, planted.lead) == (2, pytest.approx(15))


def test_a_label_that_the_reference_lacks_counts_as_its_mean():
    assert relative({0: 3.0, 5: 3.0}, {0: 1.0, 1: 4.0}) == pytest.approx({0: 6.0, 5: 3.0})


def test_the_bars_of_concentrations_move_beyond_the_reference(profile):
    barred = dataclasses.replace(profile, concentrations={"window": 0.8}).barred(ScanConfig())
    bars = barred.gathering.bars
    assert (bars["window"].quiet, bars["window"].suspicious) == pytest.approx((0.86, 0.9))
    assert bars["wave"] == ScanConfig().gathering.bars["wave"]
    assert barred.bars == ScanConfig().bars


def test_profile(profile, other_folder):
    assert (profile.class_names, profile.verdict) == (list(CLASS_NAMES), Verdict.CLEAN)
    assert profile.inputs.model.name == other_folder.name
    assert set(profile.scores) == {"masked", "additive"} and set(profile.concentrations) == {"window"}
    assert set(profile.scores["masked"]) == set(range(len(CLASS_NAMES)))


def test_saved_and_loaded(profile, tmp_path):
    profile.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == profile
    assert (tmp_path / "profile.json").stat().st_size < 20_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"masked"', '"additive"', 1),
        lambda text: "[]",
        lambda text: "\\",
        lambda text: json.dumps({name: one for name, one in json.loads(text).items() if name != "sha256"}),
    ],
)
def test_a_damaged_profile_is_refused(profile, tmp_path, damage):
    path = tmp_path / "profile.json"
    profile.save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match="`reference`: .*profile.json"):
        Profile.load(path)


def test_a_scan_is_held_against_it(remover, profile, tmp_path):
    profile.save(tmp_path / "profile.json")
    scan = remover.scan(pictures(16), config=CONFIG, reference=tmp_path / "profile.json")
    assert scan.reference == profile
    assert {scan.chance(one) for one in scan.evidence} == {None}
    assert [one.reference for one in scan.evidence] == [profile.scores[one.family] for one in scan.evidence]
    assert scan.config.gathering.bars["window"] == profile.barred(CONFIG.scan).gathering.bars["window"]
    AuditReport("scanned", scan).save(tmp_path / "audit")
    assert AuditReport.load(tmp_path / "audit").scan.reference == profile


def test_a_model_is_made_a_profile_of(remover, profile, other_folder):
    scan = remover.scan(pictures(16), config=CONFIG, reference=other_folder)
    assert scan.reference == profile


def test_a_removal_goes_on_with_the_reference_of_its_scan(remover, profile):
    data = pictures(32)
    config = removal_config(scan=scan_config("backdoored", gathering=GATHERING))
    trusted = dataclasses.replace(profile, config=config.scan)
    scan = remover.scan(data, config=config, reference=trusted)
    with pytest.raises(InputError, match="`reference`: the scan that was brought along had another, or none"):
        remover.remove(data, scan=dataclasses.replace(scan, reference=None), config=config, reference=trusted)
    result = remover.remove(data, scan=scan, config=config)
    assert result.report.second_scan.reference == trusted
    assert result.report.config.scan == scan.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "b"]}, "its class names are not those here"),
        ({"templates": ["{}"]}, "its templates are not those here"),
        ({"config": scan_config("clean", restarts=3)}, "its settings of the scan are not those here"),
    ],
)
def test_one_of_something_else_is_refused(remover, profile, changes, message):
    with pytest.raises(InputError, match=f"`reference`: {message}"):
        remover.scan(pictures(16), config=CONFIG, reference=dataclasses.replace(profile, **changes))


def test_other_bars_are_no_other_settings(remover, profile):
    config = removal_config(scan=scan_config("backdoored", gathering=GATHERING))
    assert remover.scan(pictures(16), config=config, reference=profile).reference == profile


def test_the_model_itself_is_no_reference(remover):
    data = pictures(16)
    with pytest.raises(InputError, match="the very weights of the model that is scanned"):
        remover.scan(data, config=CONFIG, reference=remover.profile(data, config=CONFIG))


def test_command_line(tiny_folder, other_folder, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(CONFIG.plain()))
    save_pictures(pictures(16), tmp_path)
    names = ["--class-names", ",".join(CLASS_NAMES), "--set", "scan.max_chance=1"]
    given = ["--images", str(tmp_path), *names, "--config", str(settings)]
    made = tmp_path / "profile.json"
    written = CliRunner().invoke(app, ["profile", str(other_folder), *given, "--output", str(made), "--json"])
    assert written.exit_code == 0, written.output
    assert json.loads(written.stdout)["sha256"] == Profile.load(made).inputs.model.sha256
    again = CliRunner().invoke(app, ["profile", str(other_folder), *given, "--output", str(made)])
    assert again.exit_code == ExitCode.WRONG_INPUT and "--overwrite" in again.stderr
    audit = tmp_path / "scan"
    scanned = ["scan", str(tiny_folder), *given, "--reference", str(made), "--output-dir", str(audit)]
    assert CliRunner().invoke(app, scanned).exit_code == 0
    assert AuditReport.load(audit / "audit").scan.reference == Profile.load(made)
