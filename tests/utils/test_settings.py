"""Settings: ranges, files, assignments, and one seed for all stages."""

import json

import pytest

from hf_invertune.errors import InputError
from hf_invertune.stages.configs import (
    AuditConfig,
    Bars,
    InversionConfig,
    LocalizationConfig,
    RemovalConfig,
    ScanConfig,
    TuningConfig,
)
from hf_invertune.stages.families import AdditiveFamily, MaskedFamily
from hf_invertune.utils.seeds import STREAMS, stream


KINDS = (
    ScanConfig,
    InversionConfig,
    LocalizationConfig,
    TuningConfig,
    AuditConfig,
    RemovalConfig,
    MaskedFamily,
    AdditiveFamily,
)
BOUNDED = [(kind, name, bounds) for kind in KINDS for name, bounds in kind.ranges.items() if bounds]
CHANGED = RemovalConfig(
    ScanConfig((AdditiveFamily(0.05),), steps=(3, 4), bars={"additive": Bars(1.0, 2.0)}),
    InversionConfig(learning_rate=1e-3),
    LocalizationConfig(top_layers=3),
    TuningConfig(lora_layers="0,2", lora_modules=["fc1"]),
    AuditConfig(held_out=0.5),
    seed=7,
)
YAML = """
scan:
  families: [{kind: additive, epsilon: 0.05}]
  steps: [3, 4]
  bars: {additive: {quiet: 1, suspicious: 2}}
inversion: {learning_rate: 1e-3}
localization: {top_layers: 3}
tuning: {lora_layers: "0,2", lora_modules: [fc1]}
audit: {held_out: 0.5}
seed: 7
"""
TOML = """
seed = 7
[scan]
families = [{kind = "additive", epsilon = 0.05}]
steps = [3, 4]
bars.additive = {quiet = 1, suspicious = 2}
[inversion]
learning_rate = 1e-3
[localization]
top_layers = 3
[tuning]
lora_layers = "0,2"
lora_modules = ["fc1"]
[audit]
held_out = 0.5
"""


def beyond(bounds):
    """A number just out of each bound."""
    steps = {"least": -1, "above": 0, "most": 1, "below": 0}
    return [bound + steps[name] for name, bound in bounds.items()]


@pytest.mark.parametrize(("kind", "name", "bounds"), BOUNDED, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_range_is_kept(kind, name, bounds):
    for value in (*beyond(bounds), float("nan"), "many"):
        with pytest.raises(InputError, match=f"^`{name}`: got"):
            kind(**{name: value})


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.yml", YAML), ("a.toml", TOML)])
def test_files_of_both_forms(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert RemovalConfig.load(tmp_path / name) == CHANGED


def test_plain_values_are_json_and_back():
    assert RemovalConfig.of(json.loads(json.dumps(CHANGED.plain()))) == CHANGED
    assert RemovalConfig.of({}) == RemovalConfig()


def test_assignments():
    changes = [
        "seed=3",
        "tuning.lora_r=16",
        "scan.steps=[5, 6]",
        "scan.families.masked.mask_weight=50",
        "scan.bars.masked={quiet: 1, suspicious: 2}",
        "localization.top_layers=null",
    ]
    changed = RemovalConfig(localization=LocalizationConfig(top_layers=2)).assign(changes)
    assert (changed.seed, changed.tuning.lora_r, changed.scan.steps) == (3, 16, (5, 6))
    assert changed.scan.family("masked").mask_weight == 50 and changed.scan.family("additive") == AdditiveFamily()
    assert changed.scan.bars["masked"] == Bars(1.0, 2.0) and changed.localization.top_layers is None
    assert RemovalConfig().assign([]) == RemovalConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lora_r", "got 'lora_r'; pass name=value"),
        ("tuning.lora_rank=3", "tuning.lora_rank is no known key; the nearest is 'lora_r'"),
        ("tunning.lora_r=3", "tunning.lora_r names no setting: 'tunning' is unknown; the nearest is 'tuning'"),
        ("tuning.lora_r=many", "tuning.lora_r is 'many'; it must be of type int"),
        ("tuning.lora_r=0", "`lora_r`: got 0; it must be at least 1"),
        ("seed.more=1", "seed.more cannot be set; seed is one value"),
        ("scan.families=[window]", "scan.families.0..kind is 'window'; the nearest is"),
        ("scan.families=[]", "`families`: got .*; name at least one"),
        ("seed={", "the value of 'seed={' is no YAML"),
    ],
)
def test_wrong_assignments(change, message):
    with pytest.raises(InputError, match=message):
        RemovalConfig().assign([change])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "scan: [", "`config`: .*a.yaml is no YAML"),
        ("a.toml", "scan = ", "`config`: .*a.toml is no TOML"),
        ("a.yaml", "3", "`config`: the file holds 3; it must hold keys and values"),
        ("a.yaml", "scan: {bars: {masked: {quiet: 1}}}", "`config`: the key scan.bars.masked.suspicious is missing"),
    ],
)
def test_wrong_files(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        RemovalConfig.load(tmp_path / name)
    with pytest.raises(InputError, match="`config`: .*b.yaml cannot be read"):
        RemovalConfig.load(tmp_path / "b.yaml")


def test_one_seed_for_all_stages():
    """No stage has a seed of its own: each draws a stream of the run's."""
    assert not [kind for kind in KINDS if kind is not RemovalConfig and "seed" in kind.__dataclass_fields__]
    assert all(stream(7, name) != stream(8, name) for name in STREAMS)
    with pytest.raises(KeyError):
        stream(0, "no such stream")
