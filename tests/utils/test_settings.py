"""Settings: ranges, files, assignments, and one seed for all stages."""

import json
import re
import sys
from dataclasses import fields

import pytest
from tiny_plan import EASY, HARD, pictures, removal_config, scan_config

from hf_invertune.errors import InputError
from hf_invertune.remover import BackdoorRemover
from hf_invertune.stages.configs import (
    AuditConfig,
    Bars,
    GatheringConfig,
    InversionConfig,
    LocalizationConfig,
    RemovalConfig,
    ScanConfig,
    TuningConfig,
)
from hf_invertune.stages.families import AdditiveFamily, BlendFamily, MaskedFamily, WaveFamily, WindowFamily
from hf_invertune.utils.seeds import STREAMS, stream


KINDS = (
    GatheringConfig,
    ScanConfig,
    InversionConfig,
    LocalizationConfig,
    TuningConfig,
    AuditConfig,
    RemovalConfig,
    MaskedFamily,
    AdditiveFamily,
    BlendFamily,
    WindowFamily,
    WaveFamily,
)
BOUNDED = [(kind, name, bounds) for kind in KINDS for name, bounds in kind.ranges.items() if bounds]
CHANGED = RemovalConfig(
    ScanConfig(
        (AdditiveFamily(0.05),),
        steps=(3, 4),
        bars={"additive": Bars(1.0, 2.0)},
        gathering=GatheringConfig((WindowFamily(0.5),), bars={"window": Bars(0.5, 0.75)}),
    ),
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
  gathering: {families: [{kind: window, side: 0.5}], bars: {window: {quiet: 0.5, suspicious: 0.75}}}
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
gathering = {families = [{kind = "window", side = 0.5}], bars = {window = {quiet = 0.5, suspicious = 0.75}}}
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
        with pytest.raises(InputError, match=f"^`{name}`: got {re.escape(repr(value))}; it must be "):
            kind(**{name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_has_a_lower_bound(kind):
    numbers = {item.name for item in fields(kind) if item.type in (int, float, int | None, tuple[int, ...])}
    assert numbers == {name for name, bounds in kind.ranges.items() if {"least", "above"} & bounds.keys()}


def test_bars_in_the_wrong_order():
    with pytest.raises(InputError, match="^`quiet`: got 2.0; it must not exceed `suspicious`, 1.0"):
        Bars(2.0, 1.0)


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
        "scan.gathering.families.window.side=0.3",
        "scan.gathering.bars.window.quiet=0.1",
        "localization.top_layers=null",
    ]
    changed = RemovalConfig(localization=LocalizationConfig(top_layers=2)).assign(changes)
    assert (changed.seed, changed.tuning.lora_r, changed.scan.steps) == (3, 16, (5, 6))
    assert changed.scan.family("masked").mask_weight == 50 and changed.scan.family("additive") == AdditiveFamily()
    assert changed.scan.bars["masked"] == Bars(1.0, 2.0) and changed.localization.top_layers is None
    gathering, suspicious = changed.scan.gathering, GatheringConfig().bars["window"].suspicious
    assert changed.scan.family("window") == WindowFamily(0.3)
    assert gathering.bars["window"] == Bars(0.1, suspicious)
    assert RemovalConfig().assign([]) == RemovalConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lora_r", "got 'lora_r'; pass name=value"),
        ("tuning.lora_rank=3", "tuning.lora_rank is no known key; the nearest is 'lora_r'"),
        ("tunning.lora_r=3", "tunning.lora_r names no setting: 'tunning' is unknown; the nearest is 'tuning'"),
        ("tuning.lora_r=many", "tuning.lora_r is 'many'; it must be of type int"),
        ("tuning.lora_r=0", "tuning.lora_r is 0; it must be at least 1"),
        ("seed=-1", "seed is -1; it must be at least 0"),
        ("seed=4294967296", "seed is 4294967296; it must be at least 0 and at most 4294967295"),
        ("audit.held_out=1", "audit.held_out is 1.0; it must be above 0 and below 1"),
        (
            "scan.gathering.families.window.side=1.5",
            r"scan.gathering.families\[0\].side is 1.5; it must be above 0 and at most 1",
        ),
        ("seed.more=1", "seed.more cannot be set; seed is one value"),
        ("scan.families=[windo]", r"scan.families\[0\].kind is 'windo'; the nearest is 'window'"),
        ("scan.families=[{kind: [masked]}]", r"scan.families\[0\].kind is \['masked'\]"),
        ("scan.families=[window]", "`bars`: there are none for window"),
        ("scan.gathering.families.window.side=big", r"scan.gathering.families\[0\].side is 'big'; it must be of type"),
        ("treat=clean", "`treat`: got 'clean'; choose 'inconclusive' or 'backdoored'"),
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


def test_the_seed_of_a_removal_reaches_every_stage(tiny, monkeypatch):
    """All randomness has a stream of seed 7; the second scan has all of its own, which begin with that one's seed."""
    drawn = set()

    def watched(seed, name, index=0):
        drawn.add((seed, name))
        return stream(seed, name, index)

    for module in [module for name, module in sys.modules.items() if name.startswith("hf_invertune.")]:
        if getattr(module, "stream", None) is stream:
            monkeypatch.setattr(module, "stream", watched)
    bars = {"window": Bars(EASY, HARD)}
    planted = GatheringConfig((WindowFamily(),), starts=4, steps=1, batch_size=2, bars=bars)
    config = removal_config(seed=7, scan=scan_config(gathering=planted), tuning={"reinversion_steps": 1})
    BackdoorRemover(tiny).remove(pictures(32), config=config)
    again = stream(7, "second scan")
    assert {name for seed, name in drawn if seed == 7} == set(STREAMS)
    assert {name for seed, name in drawn if seed == again} == {"gathering", "simulation", "race"}
    assert {seed for seed, _ in drawn} == {7, again}
