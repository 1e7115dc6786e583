"""A recipe is read whole or refused, with the nearest key; its victims are planned the same way every time."""

import copy
from collections import Counter
from pathlib import Path

import pytest
import yaml

from hf_invertune.errors import InputError
from hf_invertune.lab.zoo.recipe import Recipe, differences


ROOT = Path(__file__).parents[2]
TINY = yaml.safe_load((ROOT / "tests" / "helpers" / "zoo.yaml").read_text())


def changed(**sections):
    """The tiny recipe's values with some of them changed: `pretraining__epochs=3`."""
    values = copy.deepcopy(TINY)
    for path, value in sections.items():
        *folders, name = path.split("__")
        place = values
        for folder in folders:
            place = place[int(folder) if folder.isdigit() else folder]
        place[name] = value
    return values


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "zoos").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_recipes_can_be_read(path):
    recipe = Recipe.load(path)
    assert Recipe.of(recipe.values()) == recipe and recipe.plans()
    table = {plan.seed for plan in recipe.plans() if plan.role == "table" and plan.attack}
    assert table == set(recipe.seeds)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(pretraning={}), "pretraning is no known key; the nearest is 'pretraining'"),
        (changed(world__splits__tests=3), "world.splits.tests is no known key; the nearest is 'test'"),
        (changed(attacks__0__rte=0.1), r"attacks\[0\].rte is no known key; the nearest is 'rate'"),
        (changed(world__kind="drawing"), "world.kind is 'drawing'; the nearest is 'drawings'"),
        (changed(attacks__0__kind="badnt"), "'badnt'; the nearest are 'badnet'"),
        (changed(attacks__0__parameters={"patch": 3}), "`patch`: badnet attacks have no such parameter"),
        (changed(attacks__0__parameters={"patch_size": 33}), "`patch_size`: got 33 for images of 32 pixels"),
        (changed(attacks__0__rate=0), "`rate`: got 0.0; it must be above 0 and at most 1"),
        (changed(attacks__0__rate=1.5), "`rate`: got 1.5"),
        (
            changed(attacks__0__targets=["green hat"]),
            "'green hat' is not among the .* class names, nor declared open; the nearest are 'green ",
        ),
        (
            changed(attacks__1__targets=["red ring"]),
            "'red ring' is a class name, and an open-target attack leads to another",
        ),
        (changed(attacks__0__count=2), "a badnet attack leads to one name"),
        (changed(attacks__0__name="open-target"), "`attacks`: open-target is there twice"),
        (changed(pretraining__batch_size=129), "`batch_size`: got 129, and the split pretraining holds 128"),
        (
            changed(attacks__0__training={"epochs": 1, "learning_rate": 1, "batch_size": 200}),
            "`batch_size`: got 200, and the split poisoning holds 128",
        ),
        (changed(attacks=[{"kind": "wanet", "rate": 0.5}]), "128 decoys; pass at most 0.3333"),
        (changed(attacks__0__name="BadNet"), "`name`: got 'BadNet'; it names folders"),
        (changed(attacks__0__name="../x"), "`name`: got '../x'"),
        (changed(attacks__0__name="base"), "`name`: got 'base'"),
        (changed(attacks__0__name="clean"), "`name`: got 'clean'"),
        (changed(attacks__0__name="a.b"), "`name`: got 'a.b'"),
        (
            changed(seeds=[0, 1, 2], clean=10, attacks=[], validation={"seeds": [5], "clean": 1}),
            "two victims would be called clean-5",
        ),
        (changed(pretraining__epochs=float("nan")), "`epochs`: got nan; pass a positive number"),
        (changed(pretraining__learning_rate=float("inf")), "`learning_rate`: got inf; pass a positive number"),
        (changed(pretraining__epochs="many"), "pretraining.epochs is 'many'; it must be of type float"),
        (changed(pretraining__batch_size=0), "`batch_size`: got 0; pass a positive number"),
        (changed(pretraining__shift=-1), "`shift`: got -1"),
        (changed(seeds=[]), "`seeds`, `clean`"),
        (changed(seeds=[2**32]), r"`seeds`, `clean`: got \[4294967296\]"),
        (changed(model__text__num_attention_heads=3), "`num_attention_heads`: got 3, which does not divide .* of 16"),
        (changed(model__vision__num_hidden_layers=0), "`num_hidden_layers`: got 0; it must be positive"),
        (changed(model__vision__patch_size=33), "`patch_size`.*: got 33 .* fit in pictures of 32 pixels"),
        (changed(attacks__0__parameters={"seed": 3}), "`seed`: badnet attacks have no such parameter"),
        (changed(seeds=[1, 1]), "`seeds`: 1 is there twice"),
        (changed(seeds=3), "seeds is 3; it must be a list"),
        (changed(model=7), "model holds 7; it must hold keys and values"),
        (changed(world__splits__test=0), "`test`: got 0 pictures"),
        (changed(validation={"seeds": [0]}), "`validation`: its seeds and those of the table share 0"),
        ({key: value for key, value in TINY.items() if key != "poisoning"}, "the key poisoning is missing"),
        ([1], r"the file holds \[1\]"),
    ],
)
def test_what_cannot_be_used_is_named(values, message):
    with pytest.raises(InputError, match=message):
        Recipe.of(values)


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(InputError, match="`recipe`: .* cannot be read"):
        Recipe.load(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match="`recipe`: .* is no YAML"):
        Recipe.load(tmp_path / "broken.yaml")


def test_yaml_takes_1e_3_for_text_and_the_recipe_for_a_number():
    recipe = Recipe.of(changed(pretraining=yaml.safe_load("{epochs: 1, learning_rate: 1e-3, batch_size: 8}")))
    assert recipe.pretraining.learning_rate == 0.001 and recipe.pretraining.epochs == 1.0


def test_no_attack_meets_a_target_twice_and_all_targets_serve_alike():
    attacks = [{"kind": kind} for kind in ("badnet", "blended", "sig", "stripes", "text", "trojvqa", "badclip")]
    attacks.append({"kind": "multi-target", "count": 3})
    values = changed(attacks=attacks, seeds=[0, 1, 2], clean=5)
    values["validation"] = {"seeds": [100], "attacks": attacks[:2], "clean": 2}
    plans = Recipe.of(values).plans()
    assert plans == Recipe.of(values).plans()
    for attack in attacks:
        own = [target for plan in plans if plan.kind == attack["kind"] for target in plan.targets]
        assert len(own) == len(set(own))
    served = Counter(target for plan in plans for target in plan.targets)
    assert set(served.values()) == {1} and len(served) == 32
    names = [plan.name for plan in plans]
    assert names[:4] == ["badnet-100", "blended-100", "clean-100", "clean-101"]
    assert names[12:17] == [f"clean-{number}" for number in range(5)] and names[17] == "badnet-1"
    assert [plan.base for plan in plans if plan.kind == "clean"] == [100, 100, 0, 1, 2, 0, 1]


def test_where_the_pictures_lie_is_no_part_of_the_recipe(tmp_path):
    world = {"kind": "pictures", "name": "pets", "class_names": ["cat", "dog"], "image_size": 32, "train": "here"}
    world |= {"test_source": "there", "splits": TINY["world"]["splits"]}
    (tmp_path / "pets.yaml").write_text(yaml.safe_dump({**changed(world=world), "attacks": [], "clean": 1}))
    here, elsewhere = (Recipe.load(tmp_path / "pets.yaml", train=train) for train in (None, "/mnt/pets.parquet"))
    assert elsewhere.world.train == "/mnt/pets.parquet" and elsewhere.world.test_source == "there"
    assert here.digest() == elsewhere.digest() != Recipe.of(TINY).digest()
    valued = here.values()
    assert Recipe.of({**valued, "world": {**valued["world"], "test_split": "valid"}}).digest() != here.digest()


def test_differences_are_named_by_their_path():
    ours, theirs = Recipe.of(TINY).values(), Recipe.of(changed(attacks__0__rate=0.2, clean=3)).values()
    assert differences(ours, theirs) == ["attacks[0].rate: 0.1 and 0.2", "clean: 1 and 3"]
    assert differences({"a": [1]}, {"a": [1, 2], "b": "x"}) == ["a[1]: None and 2", "b: None and 'x'"]
