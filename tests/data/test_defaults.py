import io

import datasets
import pytest
from PIL import Image

from hf_invertune.cli.options import Source
from hf_invertune.data import defaults
from hf_invertune.data.defaults import default_images, default_vocabulary
from hf_invertune.errors import InputError


def test_the_vocabulary():
    names, templates = default_vocabulary()
    assert len(names) == len(set(names)) == 1000 and len(templates) == 7
    known = {0: "tench", 22: "bald eagle", 134: "crane bird", 281: "tabby cat", 517: "construction crane"}
    known |= {657: "missile", 744: "projectile", 836: "sunglass", 837: "sunglasses", 985: "daisy", 999: "toilet paper"}
    assert {place: names[place] for place in known} == known


def put_pictures(hub, monkeypatch, number):
    features = datasets.Features(image=datasets.Image(), objects={"category": datasets.Value("int64")})
    rows = {"image": [Image.new("L", (8, 8), i) for i in range(number)], "objects": [{"category": 1}] * number}
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    sha = hub.put(defaults.DATASET, {"data/val-00000-of-00001.parquet": buffer.getvalue()}, kind="dataset")
    monkeypatch.setattr(defaults, "REVISION", sha)
    return sha


def test_the_pictures(hub, processor, monkeypatch):
    sha = put_pictures(hub, monkeypatch, 12)
    data = default_images(processor, limit=5, seed=3)
    assert len(data) == 5 and data.labels is None and data.source == "detection-datasets/coco"
    assert data.selection == {"split": "val", "revision": sha, "limit": 5, "seed": 3}
    hub.put(defaults.DATASET, {"data/val-00000-of-00001.parquet": b"other"}, kind="dataset")
    assert default_images(processor, limit=5, seed=3).digest() == data.digest()  # whatever comes later


def test_names_that_are_given_stay_with_the_pictures(hub, processor, monkeypatch, tiny_folder):
    """Every verb of the command line takes them from there."""
    put_pictures(hub, monkeypatch, 12)
    names = ("cat", "dog")
    assert default_images(processor, class_names=names, limit=5).class_names == names
    source = Source(model=str(tiny_folder), class_names="cat,dog", limit=5, device="cpu")
    assert source.load(0)[1].class_names == names
    with pytest.raises(InputError, match="`target`: 'cow' is not among the 2 class names"):
        source.load(0, "cow")


def test_when_they_cannot_be_had(hub, processor):
    message = (
        r"`images`: none were given, and those of detection-datasets/coco on the Hub cannot be had \(.*\)\. Pass a f"
    )
    with pytest.raises(InputError, match=message):
        default_images(processor)
    hub.fail(lambda request: True, 500, times=None)
    with pytest.raises(InputError, match=message):
        default_images(processor)
