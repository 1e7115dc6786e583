"""Whatever is damaged ends in an `InputError`, or is read: pictures, tables, names and settings, by the thousand."""

import io
import shutil
import tarfile

import datasets
import numpy as np
import pytest
from damage import outcomes
from PIL import Image, features

from hf_invertune.data.loading import load_images
from hf_invertune.data.names import read_class_names, read_templates
from hf_invertune.data.pictures import UnreadableError, read_picture
from hf_invertune.errors import InputError
from hf_invertune.stages.configs import RemovalConfig


FEW_OR_MANY = pytest.mark.parametrize("many", [1, pytest.param(50, marks=pytest.mark.slow)])


def stored(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **options)
    return buffer.getvalue()


def pictures():
    noise = np.random.default_rng(0).integers(0, 256, (12, 10, 4), np.uint8)
    rgb, rgba = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield stored(rgb, "JPEG", exif=exif)
    yield stored(rgb, "JPEG", progressive=True)
    yield stored(rgb.convert("CMYK"), "JPEG")
    yield stored(rgba, "PNG")
    yield stored(rgb.convert("P"), "PNG", transparency=0)
    yield stored(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG")
    yield stored(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
    yield stored(rgb, "BMP")
    yield stored(rgb, "PPM")
    for compression in (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        yield stored(rgb, "TIFF", compression=compression)
    yield stored(rgb.convert("CMYK"), "TIFF")
    yield stored(rgba, "ICO")
    yield stored(rgb, "TGA")
    yield stored(rgb, "PCX")
    yield stored(rgb, "SGI")
    yield stored(rgb, "DDS")
    for form in filter(features.check, ("webp", "avif", "jpg_2000")):
        yield stored(rgb, {"jpg_2000": "JPEG2000"}.get(form, form.upper()))


def png(seed):
    return stored(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)), "PNG")


def table(form):
    """Three labelled pictures, as a file of that form."""
    rows = {"image": [{"bytes": png(i), "path": None} for i in range(3)], "label": [0, 1, 0]}
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    buffer = io.BytesIO()
    if form == "parquet":
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(buffer)
    elif form == "tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for i in range(3):
                for suffix, content in (("png", png(i)), ("cls", b"1"), ("json", b'{"x": 1}')):
                    entry = tarfile.TarInfo(f"{i}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    else:
        paths = datasets.Dataset.from_dict({"file_name": ["0.png", "1.png", "2.png"], "label": ["a", "b", "a"]})
        getattr(paths, f"to_{form.rstrip('l')}")(buffer)
    return buffer.getvalue()


def settle(counts, number):
    """All were tried, and some were refused."""
    assert counts.total() == number and counts["refused"] > number / 10, counts


@FEW_OR_MANY
def test_pictures(processor, many):
    contents = list(pictures())

    def read(data, place):
        read_picture({"bytes": data, "path": None}, processor)

    settle(outcomes(read, contents, 20 * many, refused=UnreadableError), len(contents) * 20 * many)


@FEW_OR_MANY
@pytest.mark.parametrize("form", ["parquet", "tar", "csv", "jsonl"])
def test_tables(processor, tmp_path, form, many):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    path = tmp_path / f"table.{form}"

    def read(data, place):
        path.write_bytes(data)
        load_images(path, processor)

    settle(outcomes(read, [table(form)], 8 * many), 8 * many)


@FEW_OR_MANY
def test_a_saved_dataset(processor, tmp_path, many):
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(3)], "label": [0, 1, 0]}
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    datasets.Dataset.from_dict(columns, features=kinds).save_to_disk(tmp_path / "whole")
    files = sorted((tmp_path / "whole").iterdir())
    assert len(files) == 3

    def read(data, place):
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
        (tmp_path / "damaged" / files[place].name).write_bytes(data)
        load_images(tmp_path / "damaged", processor)

    settle(outcomes(read, [file.read_bytes() for file in files], 12 * many), 36 * many)


@FEW_OR_MANY
def test_names_and_templates(tmp_path, many):
    files = {
        "x.txt": "cat\ndog\nhot dog\n",
        "x.csv": '0,cat\n1,"dog, hot"\n2,fish\n',
        "y.csv": "name\ncat\ndog\n",
        "x.json": '["cat", "dog", "fish"]',
        "y.json": '{"id2label": {"0": "cat", "1": "dog"}}',
        "templates": "a photo of a {}.\nart of the {}.\n",
    }
    names = list(files)

    def read(data, place):
        path = tmp_path / names[place]
        path.write_bytes(data)
        read_templates(path) if names[place] == "templates" else read_class_names(str(path))

    settle(outcomes(read, [text.encode() for text in files.values()], 50 * many), len(files) * 50 * many)


@FEW_OR_MANY
def test_settings(tmp_path, many):
    yaml = b"""seed: 3
scan: {steps: [60, 200], families: [masked, {kind: additive, epsilon: 0.03}], looks: 2}
tuning:
  learning_rate: 1e-4
  report_to: [tensorboard]
  lora_r: 0x10
"""
    toml = b"""seed = 3
[scan]
families = ["masked", {kind = "additive"}]
[tuning]
learning_rate = 1e-4
report_to = ["tensorboard"]
"""
    names = ["x.yaml", "x.toml"]

    def read(data, place):
        path = tmp_path / names[place]
        path.write_bytes(data)
        RemovalConfig.load(path)

    settle(outcomes(read, [yaml, toml], 40 * many), 80 * many)


@pytest.mark.parametrize(
    "text", ["seed: 2001-99-99", "seed: " + "[" * 5000, "seed: !!int x", "seed: !!timestamp x", "\0"]
)
def test_settings_that_the_parser_stumbles_over(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match="`config`: .*x.yaml is no YAML"):
        RemovalConfig.load(tmp_path / "x.yaml")
