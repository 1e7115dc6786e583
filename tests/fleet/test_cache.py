"""A scan that was done before is not done again."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from hf_invertune.errors import CannotJudgeError, InputError
from hf_invertune.fleet.cache import Outcome, ScanCache, scan_key
from hf_invertune.fleet.models import ModelSpec
from hf_invertune.fleet.run import scan_models
from hf_invertune.fleet.scanner import Scanner
from hf_invertune.models.loading import read_model


LABELS = ("red circle", "blue square", "green ring")


@pytest.fixture
def passes():
    """A list that grows with each module that anything goes through."""
    seen = []
    hook = register_module_forward_pre_hook(lambda module, inputs: seen.append(type(module).__name__))
    yield seen
    hook.remove()


@pytest.fixture
def scanner(looked_at, config, scans):
    data = replace(looked_at, class_names=LABELS)
    return Scanner(lambda processor: data, config, cache=ScanCache(scans), device="cpu")


def scanned(scanner, folder):
    subject = scanner.open(ModelSpec(str(folder)))
    return scanner.kept(subject) or scanner.scan(subject)


def test_the_second_time_nothing_goes_through_a_model(fleet, looked_at, config, scans, passes, tmp_path):
    models, options = fleet[:2], {"config": config, "cache": ScanCache(scans), "device": "cpu"}
    first = scan_models(models, looked_at, LABELS, output_dir=tmp_path / "a", **options)
    assert passes
    passes.clear()
    second = scan_models(models, looked_at, LABELS, output_dir=tmp_path / "b", **options)
    assert passes == []
    assert [replace(one, report=None) for one in second] == [replace(one, report=None) for one in first]
    assert all(
        (tmp_path / "b" / "reports" / one.report.rpartition("/")[2] / "report.html").is_file() for one in second
    )


def test_a_copy_of_a_model_is_the_same_under_its_own_name(scanner, tiny_folder, tmp_path, passes):
    first = scanned(scanner, tiny_folder)
    shutil.copytree(tiny_folder, tmp_path / "copy")
    passes.clear()
    second = scanned(scanner, tmp_path / "copy")
    assert passes == [] and (second.inputs.model.name, first.inputs.model.name) == ("copy", "tiny")
    assert second.inputs.data == first.inputs.data and second.seconds == first.seconds


def test_that_a_model_cannot_be_judged_is_kept_too(scanner, tiny_folder, passes):
    scanner.config = scanner.config.assign(["scan.max_chance=0.001"])
    one = replace(scanner.looked_at(scanner.read(ModelSpec(str(tiny_folder))).processor), labels=torch.arange(24) % 3)
    scanner.pictures, scanner._last = lambda processor: one, None
    messages = []
    for _ in range(2):
        passes.clear()
        with pytest.raises(CannotJudgeError, match="no better than") as raised:
            scanned(scanner, tiny_folder)
        messages.append(str(raised.value))
    assert passes == [] and messages[0] == messages[1]


def test_what_decides_a_scan_is_in_its_key(tiny_folder, looked_at, config, monkeypatch):
    def key(data=looked_at, config=config, templates=None):
        return scan_key(source, data, config, templates)

    source = read_model(tiny_folder)
    keys = [key()]
    assert key(config=config.assign(["tuning.lora_r=2"])) == keys[0]
    keys.append(key(replace(looked_at, pixels=looked_at.pixels.flip(0))))
    keys.append(key(replace(looked_at, class_names=LABELS)))
    keys.append(key(replace(looked_at, class_names=LABELS, labels=torch.arange(24) % 3)))
    keys.append(key(replace(looked_at, class_names=LABELS, labels=torch.arange(24) % 3, presumed=True)))
    keys.append(key(templates=["a {}"]))
    keys += [key(config=config.assign([change])) for change in ("seed=1", "scan.restarts=1", "audit.held_out=0.5")]
    source.processor.image_processor.image_mean = [0.5, 0.5, 0.4]
    keys.append(key())
    source.model.config.projection_dim = 17
    keys.append(key())
    with torch.no_grad():
        next(source.model.parameters()).add_(1)
    keys.append(key())
    monkeypatch.setattr(
        "hf_invertune.fleet.cache.versions", lambda: dict.fromkeys(("hf_invertune", "torch", "transformers"), "9")
    )
    keys.append(key())
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("harm", ["cut", "swapped", "absent", "more", "moved"])
def test_a_damaged_entry_is_found_and_made_anew(scanner, tiny_folder, scans, passes, caplog, harm):
    first = scanned(scanner, tiny_folder)
    (entry,) = (scans / "scans").iterdir()
    file = entry / "outcome.json"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif harm == "swapped":
        file.write_text(file.read_text().replace('"clean"', '"backdoored"'))
    elif harm == "absent":
        next(entry.glob("*.safetensors")).unlink()
    elif harm == "more":
        (entry / "more.json").write_text("{}")
    else:
        entry = entry.rename(entry.with_name("0" * 64))
        assert [one.outcome for one in ScanCache(scans).entries()] == [None]
        assert ScanCache(scans).get("0" * 64) is None
        return
    assert [one.outcome for one in ScanCache(scans).entries()] == [None]
    passes.clear()
    again = scanned(scanner, tiny_folder)
    assert passes and replace(again, seconds=0).verdict == first.verdict
    assert [r.message for r in caplog.records if "damaged" in r.message] == [
        f"The cache's entry {entry.name[:12]} is damaged; the scan is done anew."
    ]
    assert ScanCache(scans).entries()[0].outcome is not None


def test_entries_are_removed_by_the_beginning_of_their_keys(scans):
    cache = ScanCache(scans)
    assert cache.entries() == [] and cache.clear() == []
    for key in ("aa11", "aa22", "bb33"):
        cache.put(Outcome(key, "m", None, "cannot be judged"))
    for key, message in (("aa", "begins 2 keys"), ("cc", "begins no key"), ("", "begins no key")):
        with pytest.raises(InputError, match=f"`keys`: '{key}' {message}"):
            cache.remove(["bb", key])
    assert cache.remove(["aa1", "bb", "bb33"]) == ["aa11", "bb33"]
    (scans / "scans" / ".killed.xyz").mkdir()
    assert [entry.key for entry in cache.entries()] == ["aa22"]
    assert cache.clear() == ["aa22"] and not (scans / "scans").exists()


def test_a_cache_that_cannot_be_written_keeps_nothing_and_says_so(scanner, tiny_folder, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    scanner.cache = ScanCache(tmp_path / "file")
    assert scanned(scanner, tiny_folder).verdict == "clean"
    assert "the scan is not kept" in caplog.text
