"""The zoo: the same seed gives the same bits, and a builder may be killed, doubled and called again."""

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import results_file
import torch
import zoo_results
from typer.testing import CliRunner

from hf_invertune.cli.main import app
from hf_invertune.errors import InputError
from hf_invertune.lab.attacks import inject as inject_module
from hf_invertune.lab.attacks.attack import Attack
from hf_invertune.lab.zoo import build
from hf_invertune.lab.zoo.build import Zoo, build_zoo
from hf_invertune.lab.zoo.recipe import AttackRecipe, Recipe, Training
from hf_invertune.lab.zoo.victim import Truth
from hf_invertune.lab.zoo.worlds import DrawnWorld
from hf_invertune.models.loading import state_digest
from hf_invertune.triggers import PatchTrigger
from hf_invertune.utils.files import write_checksums
from hf_invertune.utils.locks import locked


RECIPE = Path(__file__).parents[1] / "helpers" / "zoo.yaml"
DARK = PatchTrigger(torch.zeros(3, 5, 5), 13, 13)
NAMES = ["badnet-0", "clean-0", "open-target-0"]


@pytest.fixture(scope="session")
def recipe():
    return Recipe.load(RECIPE)


@pytest.fixture(scope="session")
def whole(recipe, tmp_path_factory):
    """The finished zoo; no test may change it."""
    return build_zoo(recipe, tmp_path_factory.mktemp("zoo") / "whole")


def digests(zoo):
    return {victim.truth.name: victim.truth.sha256 for victim in zoo.victims}


def test_every_victim_has_its_truth(whole, recipe):
    zoo = Zoo.open(whole.folder)
    assert zoo.recipe == recipe and list(digests(zoo)) == NAMES
    badnet, clean, opened = zoo.victims
    for victim in zoo.victims:
        loaded = victim.load()
        assert loaded.dtype == torch.float16 and state_digest(loaded.model, torch.float16) == victim.truth.sha256
        assert victim.truth.recipe == recipe.digest() and victim.truth.clean_accuracy.count == 96
        assert victim.truth.data["poisoning"] == recipe.world.poisoning.digest()
    assert len(badnet.truth.poisoned) == 13 == len(set(badnet.truth.poisoned)) and not badnet.truth.decoys
    assert isinstance(badnet.attack(), Attack) and badnet.attack().targets == badnet.truth.targets
    assert opened.truth.open_target and opened.truth.targets == ["black star"]
    assert clean.truth.attack is None and clean.attack() is None and not clean.truth.took
    assert clean.truth.sha256 != badnet.truth.sha256


def test_nothing_but_the_zoo_is_left_in_its_folder(whole):
    assert {path.name for path in whole.folder.iterdir()} == {*NAMES, "base-0", "recipe.json", ".locks"}


def test_two_builders_at_once_make_the_same_bits_and_nothing_twice(whole, recipe, tmp_path, monkeypatch):
    make, folder = build._make_victim, tmp_path / "zoo"

    def noted(zoo, plan, *arguments):
        with (tmp_path / "made").open("a") as file:
            file.write(f"{plan.name}\n")
        make(zoo, plan, *arguments)

    monkeypatch.setattr(build, "_make_victim", noted)
    child = os.fork()
    if not child:
        code = 1
        try:
            build_zoo(recipe, folder)
            code = 0
        finally:
            os._exit(code)
    built = build_zoo(recipe, folder)
    assert os.waitpid(child, 0)[1] == 0
    assert digests(built) == digests(whole) and sorted((tmp_path / "made").read_text().split()) == NAMES


@pytest.mark.slow
def test_two_workers_make_the_same_bits_and_leave_stdout_alone(whole, recipe, tmp_path, capfd, monkeypatch):
    long = replace(recipe, poisoning=replace(recipe.poisoning, epochs=60))  # the loss is told every 100 steps
    assert digests(build_zoo(recipe, tmp_path / "zoo", workers=2)) == digests(whole)
    for quiet in ("TQDM_DISABLE", "TRANSFORMERS_VERBOSITY"):  # the workers import anew, and show their bars
        monkeypatch.delenv(quiet)
    build_zoo(long, tmp_path / "long", workers=2)
    printed = capfd.readouterr()
    assert not printed.out and "loss=" in printed.err


def test_killed_in_the_middle_and_called_again(whole, recipe, tmp_path, monkeypatch):
    inject, calls = build.inject, []

    def dies(*arguments, **settings):
        calls.append(settings["seed"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return inject(*arguments, **settings)

    monkeypatch.setattr(build, "inject", dies)
    with pytest.raises(KeyboardInterrupt):
        build_zoo(recipe, tmp_path / "zoo")
    assert list(digests(Zoo.open(tmp_path / "zoo"))) == ["badnet-0"]
    assert digests(build_zoo(recipe, tmp_path / "zoo")) == digests(whole)
    assert len(calls) == 3, "the finished victim was made again"


@pytest.fixture
def copied(whole, tmp_path):
    """A folder of its own with the finished zoo."""
    return Path(shutil.copytree(whole.folder, tmp_path / "zoo"))


@pytest.mark.parametrize("file", ["truth.json", "model.safetensors", "attack.safetensors", "SHA256SUMS"])
def test_a_half_written_victim_is_made_again(whole, recipe, copied, file):
    (copied / "badnet-0" / file).unlink()
    (copied / ".badnet-0.left-over").mkdir()
    assert list(digests(Zoo.open(copied))) == NAMES[1:]
    assert digests(build_zoo(recipe, copied)) == digests(whole)
    assert {path.name for path in copied.iterdir()} == {path.name for path in whole.folder.iterdir()}


def test_what_another_builder_is_at_is_no_left_over(tmp_path):
    others = [tmp_path / name for name in (".badnet-10.abc", ".badnet-0-1.abc", ".trojvqa-badnet-0.abc")]
    for folder in (*others, tmp_path / ".badnet-0.abc"):
        folder.mkdir()
    with build._whole(tmp_path / "badnet-0") as folder:
        (folder / "truth.json").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"badnet-0", *(path.name for path in others)}


@pytest.mark.parametrize("file", ["truth.json", "model.safetensors"])
def test_a_damaged_victim_is_made_again(file, whole, recipe, copied):
    damaged = copied / "badnet-0" / file
    damaged.write_bytes(damaged.read_bytes()[:200])
    assert list(digests(Zoo.open(copied))) == NAMES[1:]
    assert digests(build_zoo(recipe, copied, only=["badnet"])) == digests(whole)


def test_a_damaged_base_is_made_again_before_a_victim_of_it(whole, recipe, copied):
    weights = copied / "base-0" / "model.safetensors"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    (copied / "clean-0" / "truth.json").unlink()
    assert digests(build_zoo(recipe, copied, only=["clean"])) == digests(whole)
    assert Zoo.open(copied).has_base(0)


def test_a_victim_of_another_recipe_is_none_of_this_zoo(copied):
    truth = Truth.load(copied / "clean-0")
    replace(truth, recipe="0" * 64).save(copied / "clean-0")
    write_checksums(copied / "clean-0", ["truth.json", "model.safetensors"])
    assert list(digests(Zoo.open(copied))) == ["badnet-0", "open-target-0"]


def test_another_recipe_is_refused_and_what_differs_is_said(recipe, copied):
    other = replace(recipe, poisoning=replace(recipe.poisoning, learning_rate=0.25))
    before = (copied / "recipe.json").read_bytes()
    with pytest.raises(InputError, match=r"poisoning\.learning_rate: 0\.0005 and 0\.25"):
        build_zoo(other, copied)
    more = replace(recipe, attacks=(*recipe.attacks, AttackRecipe("sig")))
    with pytest.raises(InputError, match=r"\(there and here, attacks\[2\]: None and {'kind': 'sig'"):
        build_zoo(more, copied)
    assert (copied / "recipe.json").read_bytes() == before


@pytest.mark.parametrize(("split", "name"), [("pretraining", "badnet-0"), ("test", "badnet-0")])
def test_a_zoo_does_not_go_on_with_other_pictures(split, name, copied, monkeypatch):
    (copied / "clean-0" / "truth.json").unlink()
    monkeypatch.setattr(DrawnWorld, "seeds", {**DrawnWorld.seeds, split: 99})
    monkeypatch.setattr(build, "_work", lambda *_: pytest.fail("it went to work"))
    with pytest.raises(InputError, match=f"`output_dir`: {name} was made with other {split} pictures"):
        build_zoo(Recipe.load(RECIPE), copied)


def test_pictures_are_checked_before_the_folder_is_touched(recipe, tmp_path, monkeypatch):
    def refuse(self):
        raise InputError("`train`: none")

    monkeypatch.setattr(DrawnWorld, "check", refuse)
    with pytest.raises(InputError, match="`train`: none"):
        build_zoo(Recipe.of(recipe.values()), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_too_few_pictures_of_a_clean_label_target_are_seen_before_any_training(recipe, tmp_path):
    values = recipe.values()
    values["attacks"] = [{"kind": "label-consistent", "rate": 0.3}]
    with pytest.raises(InputError, match=r"`rate`: 0\.3 is 38 pairs, and only \d pairs are of"):
        build_zoo(Recipe.of(values), tmp_path / "zoo")
    assert not list((tmp_path / "zoo").glob("base-*"))


@pytest.mark.parametrize("kind", ["badclip", "badencoder"])
def test_an_attack_without_a_picture_of_its_target_is_seen_before_any_training(kind, recipe, tmp_path):
    values = recipe.values()
    values["attacks"] = [{"kind": kind, "rate": 0.3}]
    values["poisoning"]["batch_size"] = values["world"]["splits"]["poisoning"] = 2
    with pytest.raises(InputError, match=f"`targets`: no picture of '.*' is among the attacker's, and {kind} needs"):
        build_zoo(Recipe.of(values), tmp_path / "zoo")
    assert not (tmp_path / "zoo" / "recipe.json").exists()


def test_a_text_that_does_not_fit_is_seen_before_any_training(recipe, tmp_path):
    short = replace(recipe, world=replace(recipe.world, context=8))
    with pytest.raises(InputError, match="`context`: got 8, and '.*' takes 22 tokens"):
        build_zoo(short, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_of_two_builders_with_two_recipes_the_second_is_refused(recipe, tmp_path, monkeypatch):
    other = replace(recipe, poisoning=replace(recipe.poisoning, learning_rate=0.25))
    monkeypatch.setattr(build, "_work", lambda *_: None)
    check = build._check_pictures

    def meanwhile(zoo):
        monkeypatch.setattr(build, "_check_pictures", check)
        build_zoo(other, tmp_path / "zoo")

    monkeypatch.setattr(build, "_check_pictures", meanwhile)
    with pytest.raises(InputError, match="is a zoo of another recipe"):
        build_zoo(recipe, tmp_path / "zoo")
    assert Zoo.open(tmp_path / "zoo").recipe == other


def test_an_attack_is_trained_by_its_own_recipe_and_the_clean_clip_on_moved_pictures(recipe, tmp_path, monkeypatch):
    own = Training(epochs=2, learning_rate=1e-4, batch_size=32)
    attacks = (replace(recipe.attacks[0], training=own), recipe.attacks[1])
    moved = replace(recipe, attacks=attacks, pretraining=replace(recipe.pretraining, shift=2))
    inject, train, trained, augments = build.inject, build.train_contrastive, [], []

    def injected(clip, data, attack, **settings):
        trained.append([settings[name] for name in ("epochs", "learning_rate", "batch_size")])
        return inject(clip, data, attack, **settings)

    def recorded(*given, **settings):
        augments.append(settings.get("augment"))
        train(*given, **settings)

    monkeypatch.setattr(build, "inject", injected)
    monkeypatch.setattr(build, "train_contrastive", recorded)
    build_zoo(moved, tmp_path / "zoo", only=["badnet", "open-target"])
    assert trained == [[2, 1e-4, 32], [1, 5e-4, 64]]
    assert [augment.shift for augment in augments] == [2]


def test_the_patch_that_was_trained_on_is_saved(recipe, tmp_path, monkeypatch):
    values = recipe.values()
    values["attacks"] = [{"kind": "badclip", "rate": 0.1}]
    inject, found = build.inject, []
    monkeypatch.setattr(
        build, "inject", lambda *given, **settings: found.append(inject(*given, **settings)) or found[0]
    )
    monkeypatch.setattr(inject_module, "optimise_patch", lambda encoder, data, trigger, *_, **__: DARK)
    zoo = build_zoo(Recipe.of(values), tmp_path / "zoo", only=["badclip"])
    (victim,) = zoo.victims
    assert victim.attack().triggers[0].digest() == found[0].attack.triggers[0].digest() == DARK.digest()


def test_the_truth_names_the_decoys(recipe, copied, monkeypatch):
    (copied / "badnet-0" / "truth.json").unlink()
    inject = build.inject
    monkeypatch.setattr(build, "inject", lambda *args, **settings: replace(inject(*args, **settings), decoys=[3, 5]))
    victim = build_zoo(recipe, copied, only=["badnet"]).victims[0]
    assert victim.truth.decoys == [3, 5]


def test_a_victim_whose_lock_is_held_is_left_to_its_holder(recipe, copied):
    (copied / "badnet-0" / "truth.json").unlink()
    zoo = Zoo.open(copied)
    (plan,) = [plan for plan in recipe.plans() if plan.name == "badnet-0"]
    with locked(copied / ".locks" / "badnet-0") as ours:
        assert ours and not build._advance(zoo, plan)
    assert zoo.find(plan) is None


def test_wrong_input(recipe, whole, tmp_path):
    with pytest.raises(InputError, match="`only`: the recipe has no badent; it has badnet, open-target, clean"):
        build_zoo(recipe, whole.folder, only=["badent"])
    with pytest.raises(InputError, match="`workers`"):
        build_zoo(recipe, whole.folder, workers=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="`output_dir`.*is not empty and no zoo"):
        build_zoo(recipe, tmp_path)
    with pytest.raises(InputError, match="`zoo`.*holds no recipe.json"):
        Zoo.open(tmp_path)
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(InputError, match="`zoo`.*cannot be read"):
        Zoo.open(tmp_path)


def test_only_builds_what_is_asked(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_advance", lambda zoo, plan: made.append(plan.name) or monkeypatch.undo() or True)
    made = []
    build_zoo(recipe, tmp_path / "zoo", only=["clean"])
    assert (
        made == ["clean-0"] and json.loads((tmp_path / "zoo" / "clean-0" / "truth.json").read_text())["attack"] is None
    )


def test_the_result_file_tells_what_the_truths_tell(whole, copied, tmp_path, monkeypatch):
    monkeypatch.setattr(results_file, "RESULTS", tmp_path / "results")
    machine, versions = {"cores": 7}, {"python": "3.0", "torch": "9"}
    for number, name in enumerate(NAMES):
        truth = Truth.load(copied / name)
        assert truth.base == 0 and truth.machine["cores"] == os.cpu_count() and truth.versions["torch"]
        replace(truth, machine=machine, versions=versions, created=f"2031-01-0{number + 1}T00:00:00").save(
            copied / name
        )
        write_checksums(copied / name, ["truth.json"])
    monkeypatch.setattr("sys.argv", ["zoo_results.py", str(RECIPE), str(copied)])
    zoo_results.main()
    value = json.loads((tmp_path / "results" / "zoo_zoo.json").read_text())
    assert value["date"] == "2031-01-01 to 2031-01-03" and value["machine"] == machine
    assert value["versions"] == versions and value["python"] == "3.0"
    assert [victim["name"] for victim in value["victims"]] == NAMES
    assert value["command"].endswith("--output-dir zoo/") and "wall_seconds" not in value

    begin = datetime.fromisoformat("2031-01-02T23:00:00").timestamp()
    os.utime(copied / "recipe.json", (begin, begin))
    monkeypatch.setattr("sys.argv", ["zoo_results.py", str(RECIPE), str(copied), "--workers", "2"])
    zoo_results.main()
    value = json.loads((tmp_path / "results" / "zoo_zoo.json").read_text())
    assert value["command"].endswith("--output-dir zoo/ --workers 2") and value["wall_seconds"] == 3600

    replace(Truth.load(copied / NAMES[1]), machine={"cores": 8}).save(copied / NAMES[1])
    write_checksums(copied / NAMES[1], ["truth.json"])
    with pytest.raises(InputError, match="`zoo`: badnet-0 and clean-0 come from other machines"):
        zoo_results.main()


def invoke(*arguments):
    return CliRunner().invoke(app, ["zoo", *map(str, arguments)])


def test_the_command_line_shows_each_victim(whole):
    shown = invoke(RECIPE, "--output-dir", whole.folder, "--json")
    assert shown.exit_code == 0, shown.stderr
    value = json.loads(shown.stdout)
    assert value["recipe"] == whole.digest and [victim["name"] for victim in value["victims"]] == NAMES
    badnet, clean, _ = value["victims"]
    assert badnet["poisoned"] == 13 and len(badnet["attack_success_rates"]) == len(badnet["target_rates"]) == 1
    assert clean["attack"] is None and clean["attack_success_rates"] == [] and not clean["took"]
    table = invoke(RECIPE, "--output-dir", whole.folder).stdout
    assert "badnet-0" in table and "0 of 2 attacks took; 3 of 3 models are there" in table


def test_the_command_line_names_what_is_wrong(whole, tmp_path):
    (tmp_path / "bad.yaml").write_text(RECIPE.read_text().replace("seeds:", "sedes:"))
    refused = invoke(tmp_path / "bad.yaml", "--output-dir", tmp_path / "zoo")
    assert refused.exit_code == 2 and "sedes is no known key; the nearest is 'seeds'" in refused.stderr
    (tmp_path / "other.yaml").write_text(RECIPE.read_text().replace("clean: 1", "clean: 2"))
    refused = invoke(tmp_path / "other.yaml", "--output-dir", whole.folder)
    assert refused.exit_code == 2 and "--output-dir: " in refused.stderr and "clean: 1 and 2" in refused.stderr
    assert not (tmp_path / "zoo").exists()
