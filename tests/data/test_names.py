import json
from pathlib import Path

import pytest

from hf_invertune.data.names import read_class_names, read_templates
from hf_invertune.errors import InputError


NAMES = ("a cat", "dog, hot")
FILES = {
    "names.txt": "a cat\n\n dog, hot \n",
    "NAMES.TXT": "a cat\r\ndog, hot\r\n",
    "list.json": json.dumps(NAMES),
    "map.json": json.dumps({"1": "dog, hot", "0": "a cat"}),
    "config.json": json.dumps({"model_type": "vit", "id2label": {"0": "a cat", "1": "dog, hot"}}),
    "plain.csv": 'a cat\n"dog, hot"\n',
    "row.csv": 'a cat,"dog, hot"\n',
    "head.CSV": 'id,Name\n1,"dog, hot"\n0,a cat\n',
    "indexed.csv": '1,"dog, hot"\n0,a cat\n',
    "one.csv": 'label\na cat\n"dog, hot"\n',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", FILES)
def test_class_names_file(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes(FILES[name].encode(encoding))
    assert read_class_names(str(path)) == NAMES


def test_class_names_in_words():
    assert read_class_names("a cat, dog") == ("a cat", "dog")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "0,cat\n0,dog\n", "is no csv file .*twice"),
        ("x.csv", "0,cat\n1\n", "a row holds one name, or an index and a name"),
        ("x.csv", "cat,miaow\ndog,bark\n", "maps other keys than 0, 1, 2"),
        ("x.csv", "", r"got 0 name\(s\)"),
        ("x.json", '{"1": "cat", "2": "dog"}', "maps other keys than 0, 1, 2"),
        ("x.json", '{"id2label": 3}', "maps other keys"),
        ("x.json", '"cat"', "holds a str; it must be a list"),
        ("x.json", "[" * 100_000, "is no json file"),
    ],
)
def test_wrong_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"`class_names`: .*{message}"):
        read_class_names(str(tmp_path / name))


def test_templates_file(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("\ufeffa photo of a {}.\n\nart of the {}\n")
    assert read_templates(path) == ("a photo of a {}.", "art of the {}")
    path.write_text("a photo\n")
    with pytest.raises(InputError, match="`templates`: got .* each with `{}`"):
        read_templates(path)
    with pytest.raises(InputError, match="`templates`: .* cannot be read"):
        read_templates(Path(tmp_path, "none.txt"))
