import dataclasses
import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from hf_invertune.errors import InputError
from hf_invertune.models.evaluation import Metrics, Rate
from hf_invertune.stages.configs import Bars, GatheringConfig, ScanConfig
from hf_invertune.stages.families import AdditiveFamily, WindowFamily
from hf_invertune.stages.gathering import Gathering
from hf_invertune.stages.identification import ScanResult
from hf_invertune.stages.inversion import InvertedTrigger
from hf_invertune.stages.localization import CriticalNeurons
from hf_invertune.stages.plan import Pool, TuningPlan
from hf_invertune.stages.simulation import Simulation
from hf_invertune.stages.verdict import Evidence, Verdict
from hf_invertune.triggers import AdditiveTrigger, MaskedTrigger, PatchTrigger
from hf_invertune.utils.files import is_intact, write_bytes, write_checksums, write_json
from hf_invertune.utils.storage import Saved, from_plain, to_plain


NAN = float("nan")


def same(a, b):
    """Equal in type and, field for field, in value; NaN equals NaN."""
    assert type(a) is type(b)
    if isinstance(a, torch.nn.Module):
        assert all(getattr(a, name) == getattr(b, name) for name in a.scalars)
        same(dict(a.named_buffers()), dict(b.named_buffers()))
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, dict):
        same(list(a.items()), list(b.items()))
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, float) and math.isnan(a):
        assert math.isnan(b)
    else:
        assert a == b


PATCH = InvertedTrigger(1, "patch", PatchTrigger(torch.rand(3, 2, 2), 1, 2), 0.0, 0.0, 0.0)
MASKED = InvertedTrigger(3, "masked", MaskedTrigger(torch.rand(1, 4, 4), torch.rand(3, 4, 4)), 1.5, 0.25, 0.1)
ADDITIVE = InvertedTrigger(0, "additive", AdditiveTrigger(torch.randn(3, 4, 4), 8 / 255), NAN, 2.0, 1 / 3)
SIMULATIONS = [
    Simulation("patch", [0.25, 0.75], [1.0, 0.0], MASKED.trigger),
    Simulation("full image", [0.5, 0.5], [NAN, 0.1], ADDITIVE.trigger),
]
EVIDENCE = [
    Evidence("masked", {3: 1.5, 0: 1 / 3}, 3, [MASKED, ADDITIVE]),
    Evidence("additive", {0: NAN}, 0, []),
]
GATHERING = Gathering("window", MASKED.trigger, 0.9, 3, 1 / 3, NAN, torch.tensor([0.6, 0.8]))
POOL = Pool(WindowFamily(1 / 3), [MASKED.trigger, ADDITIVE.trigger], torch.eye(2))
CONFIG = ScanConfig(
    (AdditiveFamily(1 / 3),),
    steps=(2, 3),
    bars={"additive": Bars(1.0, 2.0)},
    gathering=GatheringConfig((WindowFamily(1 / 3),), bars={"window": Bars(1 / 3, 0.5)}),
)
SCAN = ScanResult(
    Verdict.BACKDOORED, 3, ["é 猫", "b"], ["a {}"], CONFIG, 7, SIMULATIONS, [0, 3], EVIDENCE, 64, 1.25, [GATHERING]
)
CRITICAL = CriticalNeurons([0.5, NAN], {1: [0, 5], 0: []}, [32, 16])
RESULTS = [
    MASKED,
    ADDITIVE,
    *SIMULATIONS,
    *EVIDENCE,
    GATHERING,
    POOL,
    SCAN,
    dataclasses.replace(SCAN, verdict=Verdict.CLEAN, target=None, simulations=[], evidence=[]),
    CRITICAL,
    Rate(8, 10),
    Metrics(),
    Metrics(Rate(1, 2), None, Rate(0, 0), Rate(3, 3), Rate(0, 9), None),
    TuningPlan(3, [MASKED, ADDITIVE, PATCH], CRITICAL, ["é 猫"]),
    TuningPlan(3, [MASKED], CRITICAL, ["a"], pools=[POOL, POOL]),
    TuningPlan(0, [], CriticalNeurons([], {}, []), []),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_round_trip(result, tmp_path):
    result.save(tmp_path / "new" / "folder")
    same(type(result).load(tmp_path / "new" / "folder"), result)


@pytest.mark.parametrize("kind", sorted({type(result) for result in RESULTS}, key=lambda kind: kind.__name__))
def test_load_from_a_folder_without_it(kind, tmp_path):
    with pytest.raises(InputError, match=f"`folder`: .* holds no .*{kind.__name__}.save"):
        kind.load(tmp_path)


@pytest.mark.parametrize(
    ("result", "files"),
    [
        (CRITICAL, ["critical_neurons.json"]),
        (MASKED, ["inverted_trigger.json", "trigger.safetensors"]),
        (TuningPlan(3, [MASKED], CRITICAL, ["a"]), ["tuning_plan.json", "tuning_plan.safetensors"]),
    ],
)
def test_files(result, files, tmp_path):
    result.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_one_trigger_in_two_places(tmp_path):
    """As a scan's trigger in a plan, beside views of one tensor."""
    deltas = torch.rand(2, 3, 4, 4)
    views = [dataclasses.replace(ADDITIVE, trigger=AdditiveTrigger(delta, 0.1)) for delta in (deltas[0], deltas[1])]
    plan = TuningPlan(3, [MASKED, MASKED, *views, views[0]], CRITICAL, ["a"])
    plan.save(tmp_path)
    same(TuningPlan.load(tmp_path), plan)


@pytest.mark.parametrize(
    "change", [lambda value: value.pop("widths"), lambda value: value.update(height=3)], ids=["missing", "unknown"]
)
def test_load_another_shape(change, tmp_path):
    CRITICAL.save(tmp_path)
    value = json.loads((tmp_path / "critical_neurons.json").read_text())
    change(value)
    write_json(tmp_path / "critical_neurons.json", value)
    with pytest.raises(InputError, match=r"CriticalNeurons of another shape: \['(widths|height)'\] differ"):
        CriticalNeurons.load(tmp_path)


def test_load_without_the_trigger_beside_it(tmp_path):
    MASKED.save(tmp_path)
    (tmp_path / "trigger.safetensors").unlink()
    with pytest.raises(InputError, match="`trigger`: there is no file"):
        InvertedTrigger.load(tmp_path)


def test_trigger_of_another_kind_than_first_saved(tmp_path):
    MASKED.save(tmp_path)
    dataclasses.replace(MASKED, trigger=PatchTrigger(torch.zeros(3, 2, 2), 1, 2)).save(tmp_path)
    assert isinstance(InvertedTrigger.load(tmp_path).trigger, PatchTrigger)


@dataclass
class Pictures(Saved):
    clean: torch.Tensor
    others: list[torch.Tensor]
    sizes: tuple[int, ...]


def test_round_trip_of_tensors(tmp_path):
    transposed = torch.arange(6, dtype=torch.uint8).view(2, 3).T
    pictures = Pictures(transposed, [torch.rand(2).half(), torch.tensor([NAN])], (1, 2))
    pictures.save(tmp_path)
    same(Pictures.load(tmp_path), pictures)


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": [NAN, math.inf, (1.5, -math.inf)], "b": {"c": NAN}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, None, [1.5, None]], "b": {"c": None}}


def test_write_bytes(tmp_path):
    path = tmp_path / "new" / "file"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("broken", ["replace", "fdopen"])
def test_a_failing_write_leaves_the_old_file(broken, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    write_bytes(tmp_path / "file", b"old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_result_is_a_line_of_json_and_back():
    found = from_plain(Rate, json.loads(json.dumps(to_plain(Rate(1, 2)))), Path("lines.jsonl"))
    assert found == Rate(1, 2)
    for wrong in ({"hits": 1}, {"hits": "1", "count": 2}):
        with pytest.raises(InputError, match=r"lines\.jsonl holds a"):
            from_plain(Rate, wrong, Path("lines.jsonl"))


def test_a_folder_is_intact_as_long_as_no_byte_of_it_changes(tmp_path):
    assert not is_intact(tmp_path)
    for name in ("a.json", "b c.bin"):
        (tmp_path / name).write_bytes(b"12345")
    write_checksums(tmp_path, ["b c.bin", "a.json"])
    assert is_intact(tmp_path)
    (tmp_path / "a.json").write_bytes(b"12346")
    assert not is_intact(tmp_path)
    (tmp_path / "a.json").unlink()
    assert not is_intact(tmp_path)
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff")
    assert not is_intact(tmp_path)
