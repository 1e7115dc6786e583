"""benchmarks/calibration_kit.py, on models of the loopback Hub: a clean one, a backdoored one, one that is not there."""

import json
from pathlib import Path

import pytest
import yaml
from fleets import QUICK
from tiny_plan import pictures, save_pictures

from hf_invertune.remover import BackdoorRemover


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def kit(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import calibration_kit

    return calibration_kit


@pytest.fixture
def arguments(hub, fleet, tmp_path):
    """Those of a small run."""
    for name, folder in (("org/clean", fleet[0]), ("org/backdoored", fleet[1])):
        hub.put(name, {path.name: path.read_bytes() for path in folder.iterdir()})
    models = [
        {"model": "org/clean", "group": "tiny"},
        {"model": "org/backdoored", "group": "tiny", "target": "banana"},
        {"model": "org/gone", "group": "tiny"},
    ]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}))
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(QUICK))
    save_pictures(pictures(12), tmp_path / "pictures")
    options = {
        "--output-dir": tmp_path / "out",
        "--images": tmp_path / "pictures",
        "--class-names": "cat,dog",
        "--config": tmp_path / "settings.yaml",
        "--lines": tmp_path / "lines.jsonl",
    }
    return [str(tmp_path / "models.yaml"), *(str(one) for pair in options.items() for one in pair)]


def lines(folder):
    return [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()]


def test_each_model_gets_a_line_and_none_is_scanned_twice(kit, arguments, tmp_path, monkeypatch):
    kit.main(arguments)
    clean, backdoored, gone = lines(tmp_path)
    assert (clean["model"], clean["group"], clean["target"], clean["verdict"]) == ("org/clean", "tiny", None, "clean")
    assert set(clean["statistics"]) == {"concentration", "lead"}
    assert set(clean["statistics"]["lead"]) == {"additive", "keyed"}
    assert backdoored["target"] == "banana" and backdoored["verdict"] == "clean"
    assert gone["verdict"] is None and "org/gone" in gone["error"]

    def again(*arguments, **settings):
        raise AssertionError("it was scanned already")

    monkeypatch.setattr(BackdoorRemover, "scan", again)
    kit.main(arguments)
    assert [line["statistics"] for line in lines(tmp_path)] == [one["statistics"] for one in (clean, backdoored, gone)]


def test_a_list_with_unknown_keys_is_refused(kit, arguments, tmp_path):
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": [{"model": "org/clean", "size": "B/32"}]}))
    with pytest.raises(SystemExit, match=r"unknown keys \['size'\], models without a name or a group \['org/clean'\]"):
        kit.main(arguments)


def test_clean_models_of_a_group_become_a_null(kit, tmp_path, monkeypatch):
    """Four of them do; what was backdoored, or was not scanned, does not count."""
    import calibrate

    def line(value, target=None, verdict="clean"):
        statistics = {"lead": {"masked": {"value": value, "label": "cat"}}}
        return {"group": "ViT-B/32", "target": target, "verdict": verdict, "statistics": statistics}

    few = [line(0.1), line(0.2), line(0.3), line(9.0, target="banana"), line(0.0, verdict=None)]
    monkeypatch.setattr(calibrate, "FILE", tmp_path / "calibration.json")
    monkeypatch.setattr(calibrate, "of_zoos", lambda: iter([("lead", "masked", "small", value) for value in range(5)]))
    monkeypatch.setattr(calibrate, "RESULTS", tmp_path)
    for models, groups in ((few, {"small"}), ([*few, line(0.4)], {"small", "ViT-B/32"})):
        (tmp_path / calibrate.LINES).write_text("".join(json.dumps(one) + "\n" for one in models))
        calibrate.main()
        made = json.loads((tmp_path / "calibration.json").read_text())["lead"]["masked"]
        assert made.keys() == groups and made.get("ViT-B/32", {"models": 4})["models"] == 4


def test_the_bars_that_come_along_are_those_that_the_script_makes(kit, tmp_path, monkeypatch):
    import calibrate

    stored = calibrate.FILE.read_text()
    monkeypatch.setattr(calibrate, "FILE", tmp_path / "calibration.json")
    calibrate.main()
    assert (tmp_path / "calibration.json").read_text() == stored
