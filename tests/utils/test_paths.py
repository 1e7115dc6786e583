"""Names that are no paths end in one clear error, wherever they are given."""

import pytest
from tiny_plan import pictures

from hf_invertune.data.loading import load_images
from hf_invertune.data.names import read_class_names
from hf_invertune.errors import HubError, InputError
from hf_invertune.models.loading import load_model
from hf_invertune.remover import BackdoorRemover
from hf_invertune.utils.files import given_path


NAMES = ("~nobody-has-this-home/x", "~nobody-has-this-home/x.txt", "a" * 400, f"a/{'b' * 400}", "a" * 400 + ".txt")


@pytest.mark.parametrize("name", NAMES, ids=["home", "file in it", "long", "long in a folder", "long file"])
def test_names_that_are_no_paths(name, tiny, hub):
    tries = (load_model, read_class_names, lambda given: load_images(given, tiny.processor))
    for attempt in tries:
        with pytest.raises((InputError, HubError), match="^[^\n]+$"):
            attempt(name)
    with pytest.raises((InputError, HubError), match="^[^\n]+$"):
        BackdoorRemover(tiny).scan(pictures(8), reference=name)


def test_a_home_that_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given_path("~/models") == tmp_path / "models"
