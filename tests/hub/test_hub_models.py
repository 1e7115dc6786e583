"""Which weights are taken of a repository on the Hub, and what is said of where they came from."""

import json
import logging
import pickle

import huggingface_hub
import pytest
import torch
from loopback_hub import OWNER, READER
from PIL import Image
from pulling import pull, refused
from reports import make_report
from safetensors.torch import save
from transformers import CLIPModel
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.errors import InputError
from hf_invertune.models import fetching
from hf_invertune.models.fetching import BOT, BOT_TITLE, HubScan, Origin
from hf_invertune.models.loading import state_digest
from hf_invertune.report.html import render


def fetched(hub):
    """The files that were asked for, and how often."""
    paths = [request.path.partition("/resolve/")[2] for request in hub.log if request.method == "GET"]
    return sorted(path.partition("/")[2] for path in paths if path)


def weights(files):
    return {"model.safetensors": files["model.safetensors"]}


def without_weights(files):
    pickles = {"pytorch_model.bin": pickle.dumps({})}
    return {name: content for name, content in files.items() if name != "model.safetensors"} | pickles


# One set of weights


OTHERS = (
    "open_clip_pytorch_model.safetensors",
    "open_clip_model.safetensors",
    "model.fp16.safetensors",
    "a.safetensors",
)


def test_one_set_of_weights_is_fetched(hub, files, digest):
    beside = dict.fromkeys(OTHERS, b"other weights") | {"pytorch_model.bin": b"", "open_clip_config.json": b"{}"}
    hub.put("org/clip", files | beside)
    assert state_digest(pull().model, torch.float32) == digest
    assert fetched(hub) == sorted({*files, "open_clip_config.json"})


def test_shards_are_fetched_by_their_index(hub, files, digest, tiny_folder, tmp_path):
    CLIPModel.from_pretrained(tiny_folder).save_pretrained(tmp_path, max_shard_size="40KB")
    shards = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "config.json"}
    assert len(shards) > 3
    others = {"model-00001-of-00009.safetensors": b"of an earlier index"}
    hub.put("org/clip", without_weights(files) | shards | others)
    assert state_digest(pull().model, torch.float32) == digest
    assert fetched(hub) == sorted({*files, *shards} - {"model.safetensors"})


def test_a_model_of_another_kind_is_refused_before_its_weights_are_fetched(hub, files):
    hub.put("org/clip", files | {"config.json": b'{"model_type": "bert"}'})
    refused("`model`: org/clip is a 'bert' model")
    assert "model.safetensors" not in fetched(hub)


@pytest.fixture(scope="module")
def half(tiny_folder):
    """The weights in half precision."""
    return save(CLIPModel.from_pretrained(tiny_folder).half().state_dict(), metadata={"format": "pt"})


@pytest.mark.parametrize("local", [True, False])
def test_a_variant(hub, files, half, tmp_path, local):
    content = files | {"model.fp16.safetensors": half}
    hub.put("org/clip", content)
    for name, data in content.items() if local else ():
        (tmp_path / name).write_bytes(data)
    source = tmp_path if local else "org/clip"
    assert pull(source).dtype is torch.float32
    loaded = pull(source, variant="fp16")
    assert loaded.dtype is torch.float16 and loaded.origin.variant == "fp16"
    refused(
        "`variant`: .* holds no weights of the variant 'int8', and has those of 'fp16'; pass one",
        source,
        variant="int8",
    )


def test_only_a_variant(hub, files, half):
    hub.put("org/clip", without_weights(files) | {"model.fp16.safetensors": half})
    refused("`variant`: org/clip holds no weights, and has those of 'fp16'; pass one that it has")
    hub.log.clear()
    assert pull(variant="fp16").dtype is torch.float16 and fetched(hub) == ["model.fp16.safetensors"]


def test_shards_of_a_variant(hub, files, tiny_folder, tmp_path):
    CLIPModel.from_pretrained(tiny_folder).half().save_pretrained(tmp_path, max_shard_size="40KB", variant="fp16")
    shards = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "config.json"}
    assert "model.safetensors.index.fp16.json" in shards
    hub.put("org/clip", files | shards)
    assert pull(variant="fp16").dtype is torch.float16
    assert fetched(hub) == sorted({*files, *shards} - {"model.safetensors"})


# Where in it


@pytest.mark.parametrize("local", [True, False])
def test_a_subfolder(hub, files, digest, tmp_path, local):
    content = {f"clip/{name}": data for name, data in files.items()}
    content |= {f"clip/deep/{name}": b"" for name in files} | {"README.md": b"---\nlicense: mit\n---\n"}
    content["model_index.json"] = b"{}"
    hub.put("org/pipeline", content)
    for name, data in content.items() if local else ():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    source = tmp_path if local else "org/pipeline"
    for given in ("clip", "/clip/"):
        loaded = pull(source, subfolder=given)
        assert state_digest(loaded.model, torch.float32) == digest and loaded.origin.subfolder == "clip"
    assert loaded.license == ({} if local else {"license": "mit"})
    assert local or fetched(hub) == sorted(["README.md", *(f"clip/{name}" for name in files)])
    refused("`subfolder`: .* holds no folder vae", source, subfolder="vae")
    refused("`subfolder`: got '../clip'; pass the path of a folder within", source, subfolder="../clip")
    refused("`model`: .* holds no config.json", source)


PAGES = [
    "org/clip/",
    "https://huggingface.co/org/clip",
    "https://huggingface.co/org/clip/",
    "http://hf.co/org/clip/tree/main",
    "huggingface.co/org/clip/tree/main/",
    "https://huggingface.co/org/clip/blob/main/config.json",
    "https://huggingface.co/org/clip?library=transformers#how",
    "{hub}/org/clip",
]


@pytest.mark.parametrize("page", PAGES)
def test_the_address_of_a_page(hub, files, page):
    sha = hub.put("org/clip", files)
    loaded = pull(page.format(hub=hub.url))
    assert (loaded.name, loaded.revision) == ("org/clip", sha)


def test_the_address_of_a_folder_at_a_revision(hub, files):
    hub.put("org/clip", {f"one/two/{name}": content for name, content in files.items()})
    huggingface_hub.HfApi().create_branch("org/clip", branch="feature/one", token=OWNER)
    sha = hub.put("org/clip", {"README.md": b"---\nlicense: mit\n---\n"}, revision="feature/one")
    for file in ("tree/feature%2Fone/one/two", "blob/feature%2Fone/one/two/config.json"):
        loaded = pull(f"https://huggingface.co/org/clip/{file}")
        assert (loaded.revision, loaded.origin.subfolder) == (sha, "one/two")
    address = "https://huggingface.co/org/clip/tree/main/one"
    refused(
        "`revision`: got 'v1', and the address of the model names 'main'; pass one of them", address, revision="v1"
    )
    refused("`subfolder`: got 'two', and the address of the model names 'one'", address, subfolder="two")


@pytest.mark.parametrize(
    "address",
    ["https://example.org/org/clip", "ftp://huggingface.co/org/clip", "https://huggingface.co/"]
    + ["https://huggingface.co/org/clip/discussions/3"],
)
def test_an_address_that_is_no_page_of_a_model(hub, address):
    refused("`model`: .* is no page of a model on the Hub; pass its id", address)
    assert not hub.log


def test_the_page_of_something_else(hub):
    refused("`model`: .* is the page of something else than a model", "https://huggingface.co/datasets/data")


def test_an_address_with_a_token_is_not_shown():
    with pytest.raises(InputError, match="`model`: its address holds a user or a token") as caught:
        pull("https://user:s3cret@huggingface.co/org/clip")
    assert "s3cret" not in str(caught.value)


def test_an_id_without_an_owner(hub, files):
    sha = hub.put("openai-community/clip", files)
    hub.state.old_names["clip"] = "openai-community/clip"
    for given in ("clip", "https://huggingface.co/clip"):
        loaded = pull(given)
        assert (loaded.name, loaded.revision) == ("openai-community/clip", sha)
    refused("`model`: nowhere is neither a folder here nor a model on the Hub", "nowhere")


# The bot's pull request


def test_the_safetensors_of_the_bot(hub, files, digest, caplog):
    hub.put("org/clip", without_weights(files))
    hub.put("org/clip", {"README.md": b"spam"}, pull="Better", author="somebody")
    sha = hub.put("org/clip", weights(files), pull=BOT_TITLE, author=BOT)
    with caplog.at_level(logging.INFO, "hf_invertune"):
        loaded = pull()
    assert (loaded.name, loaded.revision, loaded.origin.pull_request) == ("org/clip", sha, "refs/pr/2")
    assert state_digest(loaded.model, torch.float32) == digest
    assert f"org/clip, commit {sha}: the weights are those of refs/pr/2 by SFconvertbot" in caplog.text
    assert fetched(hub).count("model.safetensors") == 1 and "pytorch_model.bin" not in fetched(hub)
    assert pull(revision=sha).revision == sha


@pytest.mark.parametrize("private", [True, False])
def test_a_private_repository_too(hub, files, private):
    hub.put("org/clip", without_weights(files), private=private)
    hub.put("org/clip", weights(files), pull=BOT_TITLE, author=BOT, private=private)
    assert pull(token=READER).origin.pull_request == "refs/pr/1"


def test_the_safetensors_of_somebody_else(hub, files):
    hub.put("org/clip", without_weights(files))
    hub.put("org/clip", weights(files), pull=BOT_TITLE, author="mallory")
    refused(
        r"only pickled weights \(pytorch_model.bin\), which .*; refs/pr/1 is by mallory, not by SFconvertbot; it needs"
    )
    assert "model.safetensors" not in fetched(hub)


def test_safetensors_that_somebody_else_put_into_the_bots_pull_request(hub, files):
    hub.put("org/clip", without_weights(files))
    hub.put("org/clip", {"README.md": b"one"}, pull=BOT_TITLE, author=BOT)
    hub.put("org/clip", weights(files), revision="refs/pr/1", author="mallory")
    refused("refs/pr/1 is by mallory, not by SFconvertbot")


def test_safetensors_of_an_older_commit(hub, files):
    hub.put("org/clip", without_weights(files))
    stale = hub.put("org/clip", weights(files), pull=BOT_TITLE, author=BOT)
    hub.put("org/clip", {"pytorch_model.bin": pickle.dumps({"other": 1})})
    refused("refs/pr/1 was not made of the commit that the main branch stands at")
    assert "model.safetensors" not in fetched(hub)
    loaded = pull(revision="refs/pr/1")  # who asks for it gets it
    assert loaded.revision == stale and loaded.origin.pull_request is None


@pytest.mark.parametrize("status", [403, 404])
def test_a_repository_without_discussions(hub, files, status):
    hub.put("org/clip", without_weights(files))
    hub.fail(lambda request: request.path.endswith("/discussions"), status, times=None)
    refused("`model`: org/clip holds only pickled weights")


def test_a_revision_is_taken_by_its_word(hub, files):
    sha = hub.put("org/clip", without_weights(files))
    hub.put("org/clip", weights(files), pull=BOT_TITLE, author=BOT)
    refused("`model`: org/clip holds only pickled weights", revision=sha)


# What the Hub's scanners say


@pytest.mark.parametrize(
    ("scan", "said"),
    [
        ({"scansDone": True, "filesWithIssues": []}, "they flag nothing"),
        ({"scansDone": False, "filesWithIssues": []}, "they flag nothing, and are not through yet"),
        (
            {
                "scansDone": True,
                "filesWithIssues": [{"path": "a.bin", "level": "unsafe"}, {"path": "b.pkl", "level": "caution"}],
            },
            "they flag a.bin (unsafe), b.pkl (caution)",
        ),
        (None, "None"),
        ({}, "None"),
        ("none", "None"),
        ({"scansDone": True, "filesWithIssues": "none"}, "None"),
    ],
)
def test_what_the_scanners_of_the_hub_say(hub, files, scan, said):
    hub.put("org/clip", files)
    hub.state.repositories["models/org/clip"].scan = scan
    assert str(pull().origin.hub_scan) == said


@pytest.mark.parametrize("fault", [401, 403, 500, "cut"])
def test_a_hub_that_does_not_tell(hub, files, monkeypatch, fault):
    sha = hub.put("org/clip", files)
    hub.fail(lambda request: request.path.endswith(f"/revision/{sha}"), fault, times=None)
    assert pull().origin == Origin()


def test_all_of_it_on_the_command_line_and_in_the_report(hub, files, tmp_path):
    hub.put("org/clip", {f"clip/{name}": content for name, content in without_weights(files).items()})
    sha = hub.put("org/clip", {"clip/model.fp16.safetensors": files["model.safetensors"]}, pull=BOT_TITLE, author=BOT)
    hub.state.repositories["models/org/clip"].scan = {
        "scansDone": True,
        "filesWithIssues": [{"path": "clip/pytorch_model.bin", "level": "unsafe"}],
    }
    for number in range(10):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 100, 50)).save(tmp_path / "pictures" / f"{number}.png")
    settings = tmp_path / "quick.yaml"
    settings.write_text(
        "scan: {steps: [1, 1], simulation_steps: 1, families: [masked], bars: {masked: {quiet: 1.0e+9, suspicious: 1.0e+9}},"
        " gathering: {families: []}}"
    )
    arguments = ["scan", f"{hub.url}/org/clip", "--subfolder", "clip", "--variant", "fp16", "--class-names", "a,b,c"]
    arguments += ["--images", str(tmp_path / "pictures"), "--device", "cpu", "--config", str(settings), "--json"]
    outcome = CliRunner().invoke(cli.app, [*arguments, "--output-dir", str(tmp_path / "out")])
    assert outcome.exit_code == 0, outcome.output
    origin = {"subfolder": "clip", "variant": "fp16", "pull_request": "refs/pr/1", "tower": None}
    origin["hub_scan"] = {"done": True, "issues": {"clip/pytorch_model.bin": "unsafe"}}
    (answer,) = json.loads(outcome.stdout)["answers"]
    assert answer["source"] == {"name": "org/clip", "revision": sha, "format": "transformers", **origin}
    report = json.loads((tmp_path / "out" / "audit" / "report.json").read_text())
    assert report["scan"]["inputs"]["model"]["origin"] == origin


def test_the_page_of_a_report_says_it():
    report = make_report()
    report.model.origin = Origin("clip", "fp16", "refs/pr/7", HubScan(True, {"a.bin": "unsafe"}))
    page = render(report)
    for words in ("refs/pr/7, converted by SFconvertbot", "they flag a.bin (unsafe)", "fp16"):
        assert words in page


def test_one_pattern_reads_every_page():
    assert fetching.PAGE.fullmatch("/org/clip/tree/refs/pr/3/sub")["revision"] == "refs/pr/3"
