import hashlib
import warnings

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_invertune.data.loading import load_images
from hf_invertune.data.pixels import PixelDataset
from hf_invertune.errors import InputError


SIZE = 32
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="module")
def processor():
    vocab = {"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], unk_token="<|endoftext|>")
    crop = {"height": SIZE, "width": SIZE}
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=crop)
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


@pytest.fixture
def folder(tmp_path):
    """Four pictures of each of three classes, of various sizes, one sub-folder a class."""
    for name, colour in COLOURS.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40 + i, 50), colour).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


@pytest.fixture
def table():
    """Six one-coloured pictures with labels named red, green, blue."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(COLOURS)))
    pictures = [Image.new("RGB", (8, 8), colour) for colour in COLOURS.values()] * 2
    return datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 2] * 2}, features=features)


def make_data(number=10, labels=None):
    pixels = torch.arange(number, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    return PixelDataset(pixels, None if labels is None else torch.tensor(labels))


def colours(data):
    """The colour of each picture, which must be the same all over it."""
    assert (data.pixels == data.pixels[..., :1, :1]).all()
    return [tuple(colour) for colour in data.pixels[..., 0, 0].tolist()]


def one(picture, processor):
    return colours(load_images([picture], processor))[0]


# PixelDataset


def test_items_are_floats_in_the_unit_range():
    data = make_data(5, [0, 1, 0, 1, 0])
    item = data[3]
    assert item["pixels"].dtype == torch.float32 and item["pixels"].shape == (3, SIZE, SIZE)
    assert item["pixels"].unique().tolist() == [pytest.approx(3 / 255)]
    assert item["label"].item() == 1
    assert set(make_data()[0]) == {"pixels"}


def test_a_data_loader_collates_the_items():
    batch = next(iter(torch.utils.data.DataLoader(make_data(4, [3, 2, 1, 0]), batch_size=4)))
    assert batch["pixels"].shape == (4, 3, SIZE, SIZE) and batch["label"].tolist() == [3, 2, 1, 0]


def test_split_is_deterministic_disjoint_and_stratified():
    data = make_data(90, [0] * 60 + [1] * 20 + [2] * 10)
    first, second = data.split(0.3, seed=1)
    assert (len(first), len(second)) == (27, 63)
    assert first.labels.bincount().tolist() == [18, 6, 3]
    values = [set(part.pixels[:, 0, 0, 0].tolist()) for part in (first, second)]
    assert values[0].isdisjoint(values[1]) and values[0] | values[1] == set(range(90))
    assert data.split(0.3, seed=1)[0].digest() == first.digest()
    assert data.split(0.3, seed=2)[0].digest() != first.digest()


def test_split_without_labels_and_its_error():
    first, second = make_data(10).split(0.5)
    assert len(first) == len(second) == 5 and first.labels is None
    for fraction in (0.0, 0.01, 1.0, -1.0):
        with pytest.raises(InputError, match="`fraction`: .* of 10 pictures leaves one part empty"):
            make_data(10).split(fraction)


def test_subset_keeps_order_and_digest_follows_the_pixels():
    data = make_data(4, [0, 1, 2, 3])
    part = data.subset([2, 0])
    assert part.labels.tolist() == [2, 0] and part.pixels[:, 0, 0, 0].tolist() == [2, 0]
    expected = hashlib.sha256(b"(2, 3, 32, 32)" + bytes([2]) * 3072 + bytes([0]) * 3072).hexdigest()
    assert part.digest() == expected


def test_pixel_dataset_refuses_other_shapes_and_types():
    with pytest.raises(InputError, match="`pixels`: got torch.float32 of shape"):
        PixelDataset(torch.zeros(2, 3, SIZE, SIZE))
    with pytest.raises(InputError, match=r"`pixels`: got torch.uint8 of shape \(2, 1, 32, 32\)"):
        PixelDataset(torch.zeros(2, 1, SIZE, SIZE, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"`labels`: got torch.int64 of shape \(3,\) for 2 pictures"):
        make_data(2, [0, 1, 2])
    with pytest.raises(InputError, match="`labels`: got torch.float32"):
        make_data(2, [0.0, 1.0])


# pictures


def palette(**save):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.info.update(save)
    return picture


@pytest.mark.parametrize(
    ("picture", "colour"),
    [
        (Image.new("RGB", (40, 30), (1, 2, 3)), (1, 2, 3)),
        (Image.new("RGB", (1, 1), (7, 8, 9)), (7, 8, 9)),
        (Image.new("L", (8, 8), 77), (77, 77, 77)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 51)), (255, 204, 204)),
        (Image.new("LA", (8, 8), (0, 51)), (204, 204, 204)),
        (palette(), (200, 100, 50)),
        (palette(transparency=1), (255, 255, 255)),
        (palette(transparency=0), (200, 100, 50)),
        (Image.new("CMYK", (8, 8), (255, 0, 0, 0)), (0, 255, 255)),
        (Image.new("I;16", (8, 8), 65535), (255, 255, 255)),
        (Image.new("I;16", (8, 8), 32896), (128, 128, 128)),
        (Image.new("I;16B", (8, 8), 257), (1, 1, 1)),
        (Image.new("I", (8, 8), 25700), (100, 100, 100)),
    ],
    ids=lambda value: f"{value.mode}-{value.size[0]}" if isinstance(value, Image.Image) else str(value),
)
def test_every_mode_becomes_rgb(picture, colour, processor):
    assert one(picture, processor) == colour


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_modes_survive_a_file(mode, tmp_path, processor):
    suffix = "tif" if mode == "CMYK" else "png"
    picture = Image.new(mode, (8, 8), {"LA": (90, 255), "RGBA": (90, 90, 90, 255), "I;16": 90 * 257}.get(mode, 90))
    if mode == "P":
        picture.putpalette([90] * 768)
    if mode == "CMYK":
        picture = Image.new(mode, (8, 8), (165, 165, 165, 0))
    picture.save(tmp_path / f"x.{suffix}")
    assert colours(load_images(tmp_path, processor)) == [(90, 90, 90)]


@pytest.mark.parametrize("how", ["object", "file"])
def test_exif_orientation_is_honoured(how, tmp_path, processor):
    pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    pixels[: SIZE // 2] = 200  # bright at the top
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: bright on the right
    picture.save(tmp_path / "x.png", exif=exif)
    data = load_images(tmp_path if how == "file" else [Image.open(tmp_path / "x.png")], processor)
    assert data.pixels[0, 0, :, SIZE - 1].unique().tolist() == [200] and data.pixels[0, 0, :, 0].unique().tolist() == [
        0
    ]


def test_pixels_are_those_of_the_processor_before_normalisation(processor):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    expected = processor.image_processor(picture, do_normalize=False, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(load_images([picture], processor)[0]["pixels"], torch.as_tensor(expected), atol=1e-6)


# sources


def test_a_folder_of_classes(folder, processor):
    data = load_images(folder, processor)
    assert data.class_names == ("blue", "green", "red")
    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert colours(data) == [COLOURS["blue"]] * 4 + [COLOURS["green"]] * 4 + [COLOURS["red"]] * 4
    assert data.pixels.shape == (12, 3, SIZE, SIZE) and data.skipped == ()
    assert load_images(str(folder), processor).digest() == data.digest()


def test_a_flat_folder_has_no_labels(folder, processor):
    data = load_images(folder / "red", processor)
    assert len(data) == 4 and data.labels is None and data.class_names is None
    (folder / "red" / "deeper").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "red" / "deeper" / "x.JPG")
    Image.new("RGB", (8, 8)).save(folder / "red" / "._0.png")
    (folder / "red" / "notes.txt").write_text("not a picture")
    data = load_images(folder / "red", processor)
    assert len(data) == 5 and data.labels is None and data.skipped == ()


def test_broken_pictures_are_named_and_skipped(folder, processor, caplog):
    (folder / "red" / "1.png").write_bytes(b"no picture")
    whole = (folder / "green" / "2.png").read_bytes()
    (folder / "green" / "2.png").write_bytes(whole[:60])
    Image.new("L", (2001, 1)).save(folder / "blue" / "strip.png")
    Image.new("F", (8, 8)).save(folder / "blue" / "float.tif")
    data = load_images(folder, processor)
    assert data.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 3
    assert len(data) == 10 and colours(data)[-1] == COLOURS["red"]
    skipped = "\n".join(data.skipped)
    assert len(data.skipped) == 4
    assert f"{folder / 'red' / '1.png'}: of no known picture format" in data.skipped
    assert f"{folder / 'green' / '2.png'}: " in skipped
    assert "strip.png: 2001x1 pixels are too thin a strip" in skipped
    assert "float.tif: floats (mode F) have no known range" in skipped
    assert "Skipped 4 picture(s) that could not be read: " in caplog.text and "1.png" in caplog.text


def test_a_decompression_bomb_counts_as_broken(folder, processor, monkeypatch):
    Image.new("L", (200, 200)).save(folder / "red" / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)  # 40,000 pixels: a warning by itself
    data = load_images(folder, processor)
    assert len(data) == 12 and "large.png" in data.skipped[0] and "exceeds limit" in data.skipped[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # more than twice the limit: an error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "decompression bomb" in load_images(folder, processor).skipped[0]


def test_the_content_counts_not_the_suffix(tmp_path, processor):
    Image.new("RGB", (8, 8), COLOURS["red"]).save(tmp_path / "a.png", format="BMP")
    frames = [Image.new("RGB", (8, 8), colour) for colour in COLOURS.values()]
    frames[1].save(tmp_path / "b.JPG", format="GIF", save_all=True, append_images=frames[2:])
    (tmp_path / "c.png").write_bytes(b"")
    data = load_images(tmp_path, processor)
    assert colours(data) == [COLOURS["red"], COLOURS["green"]]  # of the animated one the first frame
    assert data.skipped == (f"{tmp_path / 'c.png'}: of no known picture format",)


@pytest.mark.parametrize("error", [AssertionError(), KeyError("tile"), MemoryError(), RecursionError("too deep")])
def test_whatever_a_decoder_raises_the_picture_is_skipped(folder, processor, monkeypatch, error):
    opened = Image.open

    def open_or_raise(file):
        if str(file).endswith("1.png"):
            raise error
        return opened(file)

    monkeypatch.setattr(Image, "open", open_or_raise)
    data = load_images(folder, processor)
    assert len(data) == 9 and len(data.skipped) == 3
    assert data.skipped[0].endswith(f"1.png: {str(error) or type(error).__name__}")


def test_a_missing_row_is_skipped(processor):
    picture = Image.new("RGB", (8, 8), (5, 6, 7))
    rows = datasets.Dataset.from_dict({"image": [picture, None]}, features=datasets.Features(image=datasets.Image()))
    data = load_images(rows, processor)
    assert colours(data) == [(5, 6, 7)] and data.skipped == ("picture 1: the row is empty",)


def test_a_datasets_dataset_with_names(table, processor):
    data = load_images(table, processor)
    assert data.class_names == ("red", "green", "blue") and data.labels.tolist() == [0, 1, 2] * 2
    assert colours(data) == list(COLOURS.values()) * 2
    shown = table.with_format("torch").select([4, 3])
    assert load_images(shown, processor).labels.tolist() == [1, 0]


def test_a_parquet_file_keeps_its_class_names(table, processor, tmp_path):
    path = tmp_path / "x.parquet"
    table.to_parquet(path)
    data = load_images(path, processor, class_names=["blue", "white", "green", "red"])
    assert data.class_names == ("blue", "white", "green", "red")
    assert data.labels.tolist() == [3, 2, 0] * 2
    assert colours(data) == list(COLOURS.values()) * 2


def test_undeclared_image_bytes_and_text_labels(table, processor):
    files = table.cast_column("image", datasets.Image(decode=False))["image"]
    rows = [{"bytes": file["bytes"], "path": None} for file in files]
    plain = datasets.Dataset.from_dict({"img": rows, "labels": ["red", "green", "blue"] * 2})
    data = load_images(plain, processor, class_names=["blue", "green", "red"])
    assert data.labels.tolist() == [2, 1, 0] * 2 and colours(data)[0] == COLOURS["red"]
    named = load_images(plain, processor)
    assert named.class_names == ("blue", "green", "red") and torch.equal(named.labels, data.labels)


def test_a_tensor_and_a_list(processor):
    pixels = torch.rand(3, 3, SIZE, SIZE)
    data = load_images(pixels, processor)
    assert torch.equal(data.pixels, (pixels * 255).round().to(torch.uint8)) and data.labels is None
    wide = torch.tensor([0.0, 0.2, 1.0]).view(1, 3, 1, 1).expand(2, 3, 40, 80)
    assert colours(load_images(wide, processor)) == [(0, 51, 255)] * 2


def test_a_pixel_dataset_is_returned_as_it_is(processor):
    data = make_data(6, [0, 1, 2, 0, 1, 2])
    assert load_images(data, processor) is data
    named = load_images(data, processor, class_names=["a", "b", "c"])
    assert named.class_names == ("a", "b", "c") and named.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert load_images(named, processor, class_names=["c", "b", "a"]).labels.tolist() == [2, 1, 0, 2, 1, 0]
    assert load_images(data, processor, limit=3).labels.tolist() in ([0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1])
    small = PixelDataset(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(InputError, match="`source`: its pixels are 16x16 and the processor gives 32x32"):
        load_images(small, processor)


def test_limit_draws_each_class_in_proportion_by_seed(folder, processor):
    draws = [load_images(folder, processor, limit=6, seed=seed) for seed in range(4)]
    assert all(draw.labels.tolist() == [0, 0, 1, 1, 2, 2] for draw in draws)
    assert load_images(folder, processor, limit=100).digest() == load_images(folder, processor).digest()
    pictures = [Image.new("L", (8, 8), i) for i in range(20)]
    values = [[colour[0] for colour in colours(load_images(pictures, processor, limit=5, seed=s))] for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2] and all(len(set(value)) == 5 for value in values)


def test_the_selection_is_recorded(folder, processor):
    assert load_images(folder, processor).selection == {}
    assert load_images(folder, processor, limit=5, seed=3).selection == {"limit": 5, "seed": 3}


def test_a_broken_picture_within_the_limit_is_replaced(folder, processor):
    for i in range(3):
        (folder / "red" / f"{i}.png").write_bytes(b"")
    data = load_images(folder, processor, limit=9)
    assert len(data) == 9 and len(data.skipped) >= 2 and data.labels.bincount().sum() == 9


def test_labels_are_checked_and_matched_by_name(table, processor):
    with pytest.raises(
        InputError, match=r"`class_names`: 'blue', 'red' \(2 in all\) label pictures and are not among"
    ):
        load_images(table, processor, class_names=["green", "white"])
    # a name that labels no picture need not be among them
    data = load_images(table.select([1, 4]), processor, class_names=["white", "green"])
    assert data.labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        ([0, 1, 2, 0, 1, 3], ["a", "b", "c"], "got 3; 0 to 2 can be used"),
        ([0, 1, 2, 0, 1, -2], None, "got -2; 0 or more can be used"),
        ([0.0, 1.0, 2.0, 0.5, 1.0, 2.0], ["a", "b", "c"], "got 0.5; a label must be an integer"),
        ([[0], [1], [2], [0], [1], [2]], ["a", "b", "c"], r"got \[0\]; a label must be an integer"),
    ],
)
def test_labels_out_of_range_or_of_the_wrong_type(labels, class_names, message, table, processor):
    rows = table.remove_columns("label").add_column("label", labels)
    with pytest.raises(InputError, match=f"`source`: labels out of range or of the wrong type: {message}"):
        load_images(rows, processor, class_names=class_names)


def test_integer_labels_index_the_class_names(table, processor):
    rows = table.cast_column("label", datasets.Value("int64"))
    assert load_images(rows, processor).class_names is None
    data = load_images(rows, processor, class_names=["a", "b", "c"])
    assert data.labels.tolist() == [0, 1, 2] * 2 and data.class_names == ("a", "b", "c")


def test_columns_are_found_or_named(table, processor):
    two = table.rename_columns({"image": "img", "label": "fine_label"}).add_column("coarse", [0, 0, 1] * 2)
    two = two.cast_column("coarse", datasets.ClassLabel(names=["warm", "cold"]))
    assert load_images(two, processor).class_names == ("red", "green", "blue")
    data = load_images(two, processor, image_column="img", label_column="coarse")
    assert data.class_names == ("warm", "cold") and data.labels.tolist() == [0, 0, 1] * 2
    assert load_images(table.remove_columns("label"), processor).labels is None


def test_column_errors_list_the_columns(table, processor):
    with pytest.raises(InputError, match="`image_column`: there is no column 'photo'; the columns are image, label"):
        load_images(table, processor, image_column="photo")
    with pytest.raises(InputError, match="`label_column`: there is no column 'species'; the columns are image, label"):
        load_images(table, processor, label_column="species")
    with pytest.raises(InputError, match="`image_column`: 'label' holds ClassLabel.*, not images; the columns are"):
        load_images(table, processor, image_column="label")
    with pytest.raises(InputError, match="`image_column`: no column holds images; name one of the columns label"):
        load_images(table.remove_columns("image"), processor)
    twice = datasets.concatenate_datasets(
        [table.rename_column("image", "front"), table.select_columns("image").rename_column("image", "back")], axis=1
    )
    with pytest.raises(InputError, match="`image_column`: the columns front, back would all do; name one"):
        load_images(twice, processor)


def test_errors_of_the_arguments(folder, processor, tmp_path, table):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "bad.parquet").write_bytes(b"junk")
    (tmp_path / "broken").mkdir()
    for i in range(2):
        (tmp_path / "broken" / f"{i}.png").write_bytes(b"junk")
    picture = Image.new("RGB", (8, 8))
    cases = [
        (tmp_path / "none", {}, "`source`: there is no folder or file .*none"),
        ("./none", {}, "`source`: there is no folder or file ./none"),
        ("~/no/such", {}, "`source`: there is no folder or file ~/no/such"),
        ("no/such/place", {}, "`source`: there is no folder or file no/such/place"),
        ("none.parquet", {}, "`source`: there is no folder or file none.parquet"),
        (tmp_path / "empty", {}, "`source`: the folder .*empty holds no pictures"),
        (tmp_path / "a.txt", {}, "`source`: .*a.txt is one file; pass a folder"),
        (tmp_path / "bad.parquet", {}, "`source`: .*bad.parquet cannot be read .*; it may be damaged"),
        (tmp_path / "broken", {}, r"`source`: none of its 2 picture\(s\) could be read; .*0.png: of no known"),
        (folder, {"minimum": 20}, r"`source`: 12 picture\(s\) came and at least 20 are needed"),
        ([], {}, r"`source`: 0 picture\(s\) came and at least 1 are needed"),
        (make_data(3), {"minimum": 4}, r"`source`: 3 picture\(s\) came and at least 4 are needed"),
        (folder, {"limit": 0}, "`limit`: got 0; pass a positive number"),
        (folder, {"class_names": "red"}, "`class_names`: got one string"),
        ([picture, "x.png"], {}, "`source`: item 1 is a str; pass a list of PIL images"),
        (torch.zeros(3, 32, 32), {}, "`source`: got a torch.float32 tensor of shape"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), {}, "`source`: got a torch.uint8 tensor of shape"),
        (torch.full((1, 3, 32, 32), 2.0), {}, r"`source`: the tensor holds values outside \[0, 1\]"),
        (torch.full((1, 3, 32, 32), float("nan")), {}, r"`source`: the tensor holds values outside \[0, 1\]"),
        (datasets.DatasetDict(train=table), {}, "`source`: got a DatasetDict; pass a folder"),
    ]
    for source, arguments, message in cases:
        with pytest.raises(InputError, match=message):
            load_images(source, processor, **arguments)


# the Hub


def test_a_local_folder_goes_before_the_hub(folder, processor, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert len(load_images("pictures/red", processor)) == 4
