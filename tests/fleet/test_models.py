"""Which models are scanned: names, files, what the Hub finds."""

import pytest
from loopback_hub import Request

from hf_invertune.errors import HubError, InputError
from hf_invertune.fleet.models import ModelSpec, distinct_models, read_models, search_models


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fleet.txt", "# all of ours\norg/a\n\norg/b  # the second\norg/c#1\n"),
        ("fleet.yaml", "- org/a\n- model: org/b\n- {model: org/c#1}\n"),
        ("fleet.toml", 'models = ["org/a", {model = "org/b"}, "org/c#1"]\n'),
        ("fleet.jsonl", '"org/a"\n{"model": "org/b"}\n\n{"model": "org/c#1"}\n'),
    ],
)
def test_a_file_of_models(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert [spec.model for spec in read_models(tmp_path / name)] == ["org/a", "org/b", "org/c#1"]


def test_a_file_says_which_version(tmp_path):
    (tmp_path / "fleet.yaml").write_text("- {model: org/a, revision: refs/pr/1, subfolder: clip, variant: fp16}\n")
    (spec,) = read_models(tmp_path / "fleet.yaml")
    assert spec == ModelSpec("org/a", "refs/pr/1", "clip", "fp16") and str(spec) == "org/a (refs/pr/1, clip, fp16)"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fleet.yaml", "- {model: org/a, revison: main}\n", "revison is no known key; the nearest is 'revision'"),
        ("fleet.yaml", "- {revision: main}\n", "model is missing"),
        ("fleet.yaml", "model: org/a\n", "holds no list of models"),
        ("fleet.jsonl", "{\n", "line 1 of .* is no JSON"),
        ("fleet.txt", "\xff", "cannot be read"),
    ],
)
def test_a_file_that_holds_something_else(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=f"`models`: .*{message}"):
        read_models(tmp_path / name)


def test_each_model_counts_once(tmp_path):
    specs = distinct_models(["org/b", tmp_path, ModelSpec("org/b"), ModelSpec("org/b", "v1")])
    assert specs == [ModelSpec("org/b"), ModelSpec(str(tmp_path)), ModelSpec("org/b", "v1")]
    with pytest.raises(InputError, match="`models`: got none"):
        distinct_models([])


def test_a_search(hub):
    for name, tags in (("org/a", ["clip"]), ("org/b", ["clip", "tiny"]), ("org/c", ["bert"]), ("other/a", ["clip"])):
        hub.put(name, {"README.md": f"---\ntags: {tags}\n---\n".encode()})
    assert {spec.model for spec in search_models("author=org, filter=clip")} == {"org/a", "org/b"}
    assert [spec.model for spec in search_models("filter=clip,filter=tiny")] == ["org/b"]
    assert len(search_models("author=org, limit=2")) == 2
    with pytest.raises(InputError, match="`search`: the Hub finds no model for 'author=nobody'"):
        search_models("author=nobody")
    hub.fail(Request("GET", "/api/models"), 500, times=None)
    with pytest.raises(HubError, match="the models of 'author=org'"):
        search_models("author=org")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("autor=org", "got 'autor=org'; the nearest is 'author'"),
        ("author", "got 'author'; pass terms such as"),
        ("author=a, author=b", "got 'author' twice"),
        ("author=a, limit=none", "got limit=none"),
    ],
)
def test_a_search_that_is_none(search, message):
    with pytest.raises(InputError, match=f"`search`: {message}"):
        search_models(search)
