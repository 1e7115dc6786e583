"""Worlds: five disjoint splits, the same bits every time, and no picture read that is not asked for."""

import io
import pickle
from dataclasses import fields
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
import zoo_results
from PIL import Image

from hf_invertune.errors import InputError
from hf_invertune.lab.drawings import CLASS_NAMES
from hf_invertune.lab.zoo.build import build_zoo
from hf_invertune.lab.zoo.recipe import Recipe
from hf_invertune.lab.zoo.small_clip import make_tokenizer
from hf_invertune.lab.zoo.worlds import DrawnWorld, PicturedWorld, Splits, World


SPLITS = Splits(pretraining=40, poisoning=30, cleaning=20, validation=10, test=15)
NAMES = list(vars(SPLITS))


@pytest.fixture
def drawn():
    return DrawnWorld(SPLITS, words=("black", "star"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Two parquet files of one-coloured pictures: the red of picture i is i, and its label i % 3."""
    folder = tmp_path_factory.mktemp("pictures")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["dog", "cat", "fox"]))
    for name, count in (("train", 110), ("test", 20)):
        rows = {"image": [], "label": []}
        for i in range(count):
            file = io.BytesIO()
            Image.fromarray(np.full((40, 40, 3), (i, 0, 255), np.uint8)).save(file, "PNG")
            rows["image"].append({"bytes": file.getvalue(), "path": None})
            rows["label"].append(i % 3)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{name}.parquet")
    return folder


def pictured(folder, splits=SPLITS, **settings):
    defaults = {"name": "pets", "class_names": ("cat", "dog", "fox"), "image_size": 32}
    sources = {"train": str(folder / "train.parquet"), "test_source": str(folder / "test.parquet")}
    return PicturedWorld(splits=splits, **{**defaults, **sources, **settings})


@pytest.mark.parametrize("kind", ["drawn", "pictures"])
def test_splits_are_disjoint_and_the_same_every_time(kind, drawn, pictures):
    world: World = drawn if kind == "drawn" else pictured(pictures)
    splits = {name: getattr(world, name) for name in NAMES}
    assert [len(split) for split in splits.values()] == [40, 30, 20, 10, 15]
    again = DrawnWorld(SPLITS) if kind == "drawn" else pictured(pictures)
    assert {name: getattr(again, name).digest() for name in NAMES} == {n: s.digest() for n, s in splits.items()}
    seen = [row.numpy().tobytes() for name in NAMES[:4] for row in splits[name].pixels]
    assert len(set(seen)) == len(seen) == 100
    for split in splits.values():
        assert split.pixels.dtype == torch.uint8 and split.pixels.shape[1:] == (3, 32, 32)
        for caption, label in zip(split.captions, split.labels.tolist(), strict=True):
            assert world.class_names[label] in caption


def test_splits_of_one_size_are_disjoint_too():
    world = DrawnWorld(Splits(20, 20, 20, 20, 20))
    assert len({getattr(world, name).digest() for name in NAMES}) == 5


def test_a_split_is_made_when_it_is_asked_for_and_once(drawn, pictures):
    world = pictured(pictures, train="nowhere.parquet")
    assert len(world.test) == 15 and world.test is world.test
    with pytest.raises(InputError, match="there is no folder or file nowhere.parquet"):
        _ = world.cleaning
    drawn.test  # noqa: B018
    assert {name for name in vars(drawn) if name in NAMES and name != "splits"} == {"test"}


@pytest.mark.parametrize("kind", ["drawn", "pictures"])
def test_a_worker_is_not_sent_the_splits_and_makes_them_itself(kind, drawn, pictures):
    world = drawn if kind == "drawn" else pictured(pictures)
    digest, sent = world.test.digest(), pickle.loads(pickle.dumps(world))
    assert "test" in vars(world) and set(vars(sent)) == {field.name for field in fields(world)}
    assert sent == world and sent.test.digest() == digest


@pytest.mark.parametrize("word", ["Egyptian", "myš", "собака", "猫"])
def test_a_word_of_any_alphabet_and_case_is_one_token(word):
    tokenizer = make_tokenizer([word, "cat"], 16)
    assert len(tokenizer(f"{word} cat")["input_ids"]) == 4
    assert tokenizer.decode(tokenizer(word)["input_ids"], skip_special_tokens=True).strip() == word.lower()


def test_every_word_of_the_drawings_is_one_token(drawn):
    for text in [*drawn.captions_of("black star"), "a good photo of the black star"]:
        words = text.replace(",", " , ").split()
        assert len(drawn.processor.tokenizer(text)["input_ids"]) == len(words) + 2, text
    assert len(drawn.captions_of("red ring")) == 18 and all(
        "red ring" in text for text in drawn.captions_of("red ring")
    )
    assert drawn.class_names == CLASS_NAMES


def test_groups_of_drawings_are_captions_and_those_of_pictures_classes(drawn, pictures):
    by_caption = dict(zip(drawn.test.captions, drawn.test.groups.tolist(), strict=True))
    assert [by_caption[caption] for caption in drawn.test.captions] == drawn.test.groups.tolist()
    assert len(set(by_caption.values())) == len(by_caption)
    world = pictured(pictures)
    assert torch.equal(world.poisoning.groups, world.poisoning.labels)


def test_a_world_is_checked_before_its_pictures_are_read(pictures, drawn):
    pictured(pictures).check()
    drawn.check()
    train = str(pictures / "train.parquet")
    for message, world in {
        "`test_source`: it shares pictures with `train`": pictured(
            pictures, test_source=f"{pictures}/./train.parquet"
        ),
        "`test_source`: it shares .*, /.*train.parquet": pictured(pictures, test_source=str(pictures)),
        "`test_source`: it shares": pictured(pictures, train="me/pets", test_source="me/pets", test_split="train"),
        "`test_source`: .* me/pets": pictured(
            pictures, train="me/pets", test_source="me/pets", test_split="test+train[-9:]"
        ),
        "`splits`: 21 test pictures are asked for and .* holds 20": pictured(pictures, Splits(1, 1, 1, 1, 21)),
        "there is no folder or file": pictured(pictures, test_source="nowhere.parquet"),
        "'fox'.* not among": pictured(pictures, train=train, class_names=("cat", "dog")),
    }.items():
        with pytest.raises(InputError, match=message):
            world.check()


def test_a_zoo_of_pictures(pictures, tmp_path):
    tiny = yaml.safe_load((Path(__file__).parents[1] / "helpers" / "zoo.yaml").read_text())
    world = {"kind": "pictures", "name": "pets", "class_names": ["cat", "dog", "fox"], "image_size": 32}
    world |= {"train": "t.parquet", "test_source": "v.parquet", "splits": vars(SPLITS)}
    training = {"epochs": 1, "learning_rate": 0.001, "batch_size": 20}
    attacks = [{"kind": "badnet", "rate": 0.2, "targets": ["dog"]}]
    tiny |= {"world": world, "pretraining": training, "poisoning": training, "attacks": attacks}
    (tmp_path / "pets.yaml").write_text(yaml.safe_dump(tiny))
    sources = {"train": str(pictures / "train.parquet"), "test": str(pictures / "test.parquet")}
    recipe = Recipe.load(tmp_path / "pets.yaml", **sources)
    zoo = build_zoo(recipe, tmp_path / "zoo")
    badnet, clean = zoo.victims
    assert (badnet.truth.name, clean.truth.name) == ("badnet-0", "clean-0") and badnet.truth.world == "pets"
    assert len(badnet.truth.poisoned) == 6 and badnet.truth.clean_accuracy.count == 15
    labels = recipe.world.poisoning.labels[badnet.truth.poisoned]
    assert 1 not in labels.tolist() and badnet.truth.data["test"] == recipe.world.test.digest()
    elsewhere = Recipe.load(tmp_path / "pets.yaml")
    assert zoo_results.sources(elsewhere, zoo) == " --train train.parquet --test test.parquet"
    assert zoo_results.sources(recipe, zoo) == ""


def test_wrong_input(pictures):
    with pytest.raises(InputError, match="`splits`: 114 pictures are asked for and .* holds 110"):
        _ = pictured(pictures, Splits(54, 30, 20, 10, 15)).pretraining
    with pytest.raises(InputError, match="'dog' appear more than once"):
        pictured(pictures, class_names=("dog", "dog"))
    with pytest.raises(InputError, match="'fox'.* not among"):
        _ = pictured(pictures, class_names=("cat", "dog")).test
    with pytest.raises(InputError, match="`cleaning`: got 0"):
        Splits(1, 1, 0, 1, 1)
