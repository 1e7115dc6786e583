"""What people hand in as pictures, in whatever form it lies on their disk."""

import io
import logging
import os
import tarfile

import datasets
import pytest
from PIL import Image

from hf_invertune.data.loading import load_images
from hf_invertune.data.sources import open_source
from hf_invertune.errors import InputError


COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), COLOURS[colour]).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A flat folder: red.png, green.png, blue.png."""
    place = tmp_path / "pictures"
    place.mkdir()
    for colour in COLOURS:
        (place / f"{colour}.png").write_bytes(png(colour))
    return place


def table(colours=COLOURS):
    """Pictures with labels that index red, green and blue."""
    names = list(COLOURS)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    columns = {"image": [{"bytes": png(c), "path": None} for c in colours], "label": [names.index(c) for c in colours]}
    return datasets.Dataset.from_dict(columns, features=features)


def read(data):
    """The name of each picture's colour."""
    known = {colour: name for name, colour in COLOURS.items()}
    return [known[tuple(colour)] for colour in data.pixels[..., 0, 0].tolist()]


def is_right(data):
    """Whether the labels name the colours, which there are three of."""
    assert len(data) == 3
    return [data.class_names[label] for label in data.labels.tolist()] == read(data)


# What datasets writes


def test_a_saved_dataset(tmp_path, processor):
    table().save_to_disk(tmp_path / "saved")
    data = load_images(tmp_path / "saved", processor)
    assert is_right(data) and data.source == "saved" and data.selection == {}


def test_a_saved_dataset_of_several_splits(tmp_path, processor):
    datasets.DatasetDict(train=table(), test=table(["blue"])).save_to_disk(tmp_path / "saved")
    data = load_images(tmp_path / "saved", processor)
    assert is_right(data) and data.selection == {"split": "train"}
    assert read(load_images(tmp_path / "saved", processor, split="test")) == ["blue"]
    assert is_right(load_images(tmp_path / "saved" / "train", processor))
    with pytest.raises(InputError, match="`split`: saved has no split 'val'; it has train, test"):
        load_images(tmp_path / "saved", processor, split="val")


def test_a_folder_of_parquet_files(tmp_path, processor):
    place = tmp_path / "cl[o]ne *" / "data"
    place.mkdir(parents=True)
    for i, colour in enumerate(COLOURS):
        table([colour]).to_parquet(place / f"train-{i:05}-of-00003.PARQUET")
    table(["blue"]).to_parquet(place / "test-00000-of-00001.parquet")
    assert is_right(load_images(place.parent, processor))
    assert read(load_images(place.parent, processor, split="test")) == ["blue"]
    with pytest.raises(InputError, match="`split`: no table in .* is called after the split 'validation'"):
        load_images(place.parent, processor, split="validation")


@pytest.mark.parametrize("name", ["shard.tar", "SHARD.TAR"])
@pytest.mark.parametrize("whole", [True, False])
def test_webdataset(tmp_path, processor, name, whole):
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / name, "w") as tar:
        for i, colour in enumerate(COLOURS):
            for suffix, content in (("png", png(colour)), ("cls", str(i).encode()), ("txt", colour.encode())):
                entry = tarfile.TarInfo(f"{i:06}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    source = tmp_path / "shards" if whole else tmp_path / "shards" / name
    assert is_right(load_images(source, processor, class_names=list(COLOURS)))
    assert open_source(source).rows["txt"][:] == list(COLOURS)


# Metadata


METADATA = {
    "metadata.csv": "file_name,label,text\nred.png,warm,ein rotes\nblue.png,cold,ein blaues\n",
    "METADATA.CSV": "\ufefffile_name,label,text\nred.png,warm,ein rotes\nblue.png,cold,ein blaues\n",
    "metadata.jsonl": '{"file_name": "red.png", "label": "warm", "text": "ein rotes"}\n'
    '{"file_name": "blue.png", "label": "cold", "text": "ein blaues"}\n',
    "metadata.parquet": None,
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata(folder, processor, name):
    if METADATA[name] is None:
        columns = {
            "file_name": ["red.png", "blue.png"],
            "label": ["warm", "cold"],
            "text": ["ein rotes", "ein blaues"],
        }
        datasets.Dataset.from_dict(columns).to_parquet(folder / name)
    else:
        (folder / name).write_text(METADATA[name])
    data = load_images(folder, processor)
    assert read(data) == ["red", "blue"]
    assert data.class_names == ("cold", "warm") and data.labels.tolist() == [1, 0]
    assert open_source(folder).rows["text"][:] == ["ein rotes", "ein blaues"]
    assert load_images(folder, processor, class_names=["warm", "cold"]).labels.tolist() == [0, 1]


def test_metadata_beside_each_part(folder, processor):
    for colour in ("red", "blue"):
        (folder / colour).mkdir()
        (folder / f"{colour}.png").rename(folder / colour / "x.png")
        (folder / colour / "metadata.csv").write_text(f"file_name,label\nx.png,{colour}\n")
    data = load_images(folder, processor)
    assert [data.class_names[label] for label in data.labels] == read(data) == ["blue", "red"]


def test_metadata_of_something_else(folder, processor):
    (folder / "metadata.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="`image_column`: no column holds images; name one of the columns x, y"):
        load_images(folder, processor)


def test_a_picture_that_the_metadata_only_names(folder, processor, caplog):
    (folder / "metadata.csv").write_text("file_name,label\nred.png,1\nnone.png,0\nblue.png,\n")
    data = load_images(folder, processor, class_names=["a", "b"])
    assert read(data) == ["red", "blue"] and data.labels.tolist() == [1, -1]
    assert len(data.skipped) == 1 and "none.png" in caplog.text


# Columns of paths or of bytes


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_a_table_of_paths(folder, processor, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    names = [f"../pictures/{colour}.png" for colour in COLOURS]
    (tmp_path / "tables").mkdir()
    path = tmp_path / "tables" / f"list.{form}"
    rows = datasets.Dataset.from_dict({"path": names, "label": list(COLOURS)})
    getattr(rows, f"to_{form.rstrip('l')}")(path, **({"lines": form == "jsonl"} if "json" in form else {}))
    assert is_right(load_images(path, processor))
    assert is_right(load_images(path, processor, image_column="path"))


def test_columns_in_memory(folder, processor):
    paths = datasets.Dataset.from_dict({"where": [str(folder / f"{c}.png") for c in COLOURS], "label": [0, 1, 2]})
    assert is_right(load_images(paths, processor, image_column="where", class_names=list(COLOURS)))
    stored = datasets.Dataset.from_dict({"image": [png(c) for c in COLOURS], "label": [0, 1, 2]})
    assert is_right(load_images(stored, processor, class_names=list(COLOURS)))


# Labels


def test_pictures_without_a_label(processor):
    rows = table().remove_columns("label")
    for value in ([-1, 1, 2], [None, 1, 2]):
        data = load_images(rows.add_column("label", value), processor, class_names=list(COLOURS))
        assert data.labels.tolist() == [-1, 1, 2]
        assert sorted(len(part) for part in data.split(0.34, seed=1)) == [1, 2]
    data = load_images(rows.add_column("label", [-1, -1, -1]), processor, class_names=list(COLOURS))
    assert data.labels is None and data.class_names == tuple(COLOURS)


# Folders


@pytest.fixture
def sorted_folder(folder):
    """One sub-folder a colour."""
    for colour in COLOURS:
        (folder / colour).mkdir()
        (folder / f"{colour}.png").rename(folder / colour / "x.png")
    return folder


def test_sub_folders_are_presumed_to_be_classes(sorted_folder, processor):
    data = load_images(sorted_folder, processor)
    assert is_right(data) and data.presumed
    sure = load_images(sorted_folder, processor, folder_classes=True)
    assert is_right(sure) and not sure.presumed and sure.selection == {"folder_classes": True}
    named = load_images(sorted_folder, processor, class_names=[*COLOURS, "white"])
    assert is_right(named) and not named.presumed
    none = load_images(sorted_folder, processor, folder_classes=False)
    assert none.labels is None and none.class_names is None


def test_sub_folders_that_are_no_class_names(sorted_folder, processor, caplog):
    with caplog.at_level(logging.INFO, "hf_invertune"):
        data = load_images(sorted_folder, processor, class_names=["cat", "dog"])
    assert data.labels is None and data.class_names == ("cat", "dog")
    assert [record.message for record in caplog.records] == [
        "The sub-folder 'blue' is none of the class names: sub-folders are no labels here."
    ]
    loaded = load_images(load_images(sorted_folder, processor), processor, class_names=["cat", "dog"])
    assert loaded.labels is None and loaded.class_names == ("cat", "dog") and not loaded.presumed
    with pytest.raises(InputError, match=r"`class_names`: 'blue', 'green', 'red' \(3 in all\) label pictures"):
        load_images(sorted_folder, processor, class_names=["cat", "dog"], folder_classes=True)


def test_one_sub_folder_is_no_class(folder, processor):
    data = load_images(folder.parent, processor)
    assert len(data) == 3 and data.labels is None and data.class_names is None


def test_linked_folders(sorted_folder, processor, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (sorted_folder / "red").rename(tmp_path / "elsewhere" / "red")
    (sorted_folder / "red").symlink_to(tmp_path / "elsewhere" / "red")
    (sorted_folder / "red" / "round").symlink_to(sorted_folder)  # in a circle
    assert is_right(load_images(sorted_folder, processor))


def test_names_that_are_not_utf_8(sorted_folder, processor):
    os.rename(sorted_folder / "red", os.fsencode(sorted_folder) + b"/r\xffd")
    os.rename(sorted_folder / "blue" / "x.png", os.fsencode(sorted_folder) + b"/blue/\xe9 \n.png")
    (sorted_folder / "green" / "x.png").rename(sorted_folder / "green" / "a\nb.PNG")
    with open(os.fsencode(sorted_folder) + b"/blue/\xff.png", "wb") as file:
        file.write(b"junk")
    data = load_images(sorted_folder, processor)
    assert sorted(read(data)) == ["blue", "green", "red"] and data.class_names == ("blue", "green", r"r\udcffd")
    assert data.skipped == (rf"{sorted_folder}/blue/\udcff.png: of no known picture format",)
    data.skipped[0].encode()


def test_the_damaged_file_of_a_folder_is_named(tmp_path, processor):
    for name in ("a.parquet", "b.parquet"):
        table().to_parquet(tmp_path / name)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"`source`: .*/b.parquet cannot be read \(.*\); it may be damaged"):
        load_images(tmp_path, processor)
