"""The loopback Hub, asked by the real client."""

import io
import json

import datasets
import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from loopback_cards import validate
from loopback_hub import OWNER, READER, STRANGER, Request


FILES = {"config.json": b"{}", "deep/vocab.txt": b"a\nb\n", "model.safetensors": bytes(range(256)) * 40}
CARD = b"---\nlicense: mit\ntags:\n- clip\n---\n# A model\n"


@pytest.fixture
def api(hub):
    return HfApi(token=OWNER)


def adds(files):
    return [CommitOperationAdd(path, content) for path, content in files.items()]


def content(hub, revision="main", key="models/org/clip"):
    return {path: data for path, data in hub.snapshot()[key][revision].items() if path != ".gitattributes"}


def parquet(number):
    buffer = io.BytesIO()
    datasets.Dataset.from_dict({"x": list(range(number))}).to_parquet(buffer)
    return buffer.getvalue()


def test_push_and_pull(hub, api):
    api.create_repo("org/clip")
    first = api.create_commit("org/clip", adds(FILES | {"README.md": CARD}), commit_message="first")
    assert content(hub) == FILES | {"README.md": CARD}
    folder = snapshot_download("org/clip")
    assert folder.endswith(first.oid)
    info = api.model_info("org/clip")
    assert info.sha == first.oid and info.card_data.license == "mit" and info.tags == ["clip"]
    sent = {request.path for request in hub.log if request.method == "PUT"}
    assert len(sent) == 1 and sent.pop().startswith("/lfs/")  # the weights alone are LFS
    second = api.create_commit(
        "org/clip", [*adds({"config.json": b"[]"}), CommitOperationDelete("deep/")], commit_message="second"
    )
    assert content(hub).keys() == {"config.json", "model.safetensors", "README.md"}
    assert [commit.commit_id for commit in api.list_repo_commits("org/clip")][:2] == [second.oid, first.oid]
    with open(hf_hub_download("org/clip", "deep/vocab.txt", revision=first.oid), "rb") as file:
        assert file.read() == FILES["deep/vocab.txt"]
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("org/clip", "deep/vocab.txt")
    api.delete_repo("org/clip")
    assert not api.repo_exists("org/clip") and not hub.snapshot()


def test_an_identical_push_makes_no_commit(hub, api):
    sha = hub.put("org/clip", FILES)
    assert api.create_commit("org/clip", adds(FILES), commit_message="again").oid == sha
    assert api.upload_file(path_or_fileobj=b"new", path_in_repo="config.json", repo_id="org/clip").oid != sha


def test_a_commit_on_an_old_parent_is_refused(hub, api):
    sha = hub.put("org/clip", FILES)
    hub.put("org/clip", {"config.json": b"[]"})
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("org/clip", adds({"a": b"a"}), commit_message="late", parent_commit=sha)


def test_revisions(hub, api):
    sha = hub.put("org/clip", FILES)
    api.create_tag("org/clip", tag="v1")
    api.create_branch("org/clip", branch="feature/one")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch("org/clip", branch="feature/one")
    api.upload_file(path_or_fileobj=b"[]", path_in_repo="config.json", repo_id="org/clip", revision="feature/one")
    assert content(hub)["config.json"] == content(hub, "v1")["config.json"] == b"{}"
    assert content(hub, "feature/one")["config.json"] == b"[]"
    assert api.model_info("org/clip", revision="v1").sha == api.model_info("org/clip", revision=sha).sha == sha
    assert {ref.name for ref in api.list_repo_refs("org/clip").branches} == {"main", "feature/one"}
    with pytest.raises(RevisionNotFoundError):
        snapshot_download("org/clip", revision="v2")
    api.delete_branch("org/clip", branch="feature/one")
    assert hub.snapshot()["models/org/clip"].keys() == {"main", "v1"}


def test_pull_requests(hub, api):
    hub.put("org/clip", FILES)
    theirs = HfApi(token=STRANGER)
    change = {"repo_id": "org/clip", "path_or_fileobj": b"[]", "path_in_repo": "config.json"}
    with pytest.raises(HfHubHTTPError, match="403"):
        theirs.upload_file(**change)
    made = theirs.upload_file(**change, create_pr=True)
    assert (made.pr_url, made.pr_num) == (f"{hub.url}/org/clip/discussions/1", 1)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="org/clip", revision=made.pr_revision)
    assert content(hub)["config.json"] == b"{}"
    assert content(hub, "refs/pr/1") == FILES | {"config.json": b"[]", "x": b"x"}
    with open(hf_hub_download("org/clip", "config.json", revision="refs/pr/1"), "rb") as file:
        assert file.read() == b"[]"


def test_tokens(hub, api):
    assert api.whoami()["name"] == "owner"
    hub.put("org/clip", FILES, private=True)
    assert snapshot_download("org/clip", token=READER)
    with pytest.raises(HfHubHTTPError, match="403.*read rights"):
        api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="org/clip", token=READER)
    with pytest.raises(HfHubHTTPError, match="(?s)403.*rights to create"):
        api.create_repo("org/new", token=STRANGER)
    for token in (False, STRANGER):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("org/clip", token=token)
    with pytest.raises(HfHubHTTPError, match="401.*\n*.*Invalid credentials") as caught:
        api.model_info("org/clip", token="hf_wrong")
    assert not isinstance(caught.value, RepositoryNotFoundError)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("org/clip")
    api.create_repo("org/clip", exist_ok=True)


def test_gated(hub):
    hub.put("org/clip", FILES, gated=True)
    assert HfApi().model_info("org/clip", token=STRANGER).gated == "manual"
    with pytest.raises(GatedRepoError):
        hf_hub_download("org/clip", "config.json", token=STRANGER)
    assert hf_hub_download("org/clip", "config.json", token=READER)


def test_a_dataset_is_loaded_and_streamed(hub):
    data = {f"data/train-{i:05}-of-00003.parquet": parquet(100 + i) for i in range(3)}
    sha = hub.put("org/data", data, kind="dataset")
    assert len(datasets.load_dataset("org/data", split="train")) == 303
    hub.log.clear()
    assert next(iter(datasets.load_dataset("org/data", split="train", streaming=True))) == {"x": 0}
    files = {request.path for request in hub.log if request.path.endswith("parquet")}
    assert files == {f"/datasets/org/data/resolve/{sha}/data/train-00000-of-00003.parquet"}


def test_a_part_of_a_file(hub):
    hub.put("org/clip", FILES)
    files = huggingface_hub.HfFileSystem(token=False)
    assert files.cat_file("org/clip/model.safetensors", start=100, end=300) == FILES["model.safetensors"][100:300]
    assert set(files.ls("org/clip", detail=False)) == {
        f"org/clip/{name}" for name in (".gitattributes", "config.json", "deep", "model.safetensors")
    }


# The front matter of cards


def index(**changes):
    result = {
        "task": {"type": "zero-shot-image-classification"},
        "dataset": {"type": "org/data", "name": "data"},
        "metrics": [{"type": "accuracy", "value": 0.5}],
    }
    return {"model-index": [{"name": "clip", "results": [{**result, **changes}]}]}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"license": "Apache"}, '"license" must be one of'),
        ({"library_name": 3}, '"library_name" must be a string'),
        ({"tags": "clip"}, '"tags" must be an array'),
        ({"tags": ["clip", 3]}, r'"tags\[1\]" must be a string'),
        ({"base_model": "./models/clip"}, '"base_model" with value .* is not valid'),
        ({"base_model_relation": "cleaned"}, '"base_model_relation" must be one of'),
        ({"datasets": ["my pictures"]}, '"datasets" with value .* is not valid'),
        ({"model-index": [{"results": []}]}, r'"model-index\[0\].name" must be a str'),
        (index(task={}), r'"model-index\[0\].results\[0\].task.type" must be a str'),
        (index(dataset={"type": "org/data"}), r'results\[0\].dataset.name" must be a str'),
        (index(metrics=[{"type": "accuracy"}]), r'metrics\[0\].value" is required'),
        (index(metrics=[{"type": "accuracy", "value": float("nan")}]), r'metrics\[0\].value" is required'),
        ("tags: [", "Invalid YAML"),
    ],
)
def test_a_card_is_validated(hub, api, metadata, message):
    hub.put("org/clip", FILES)
    text = metadata if isinstance(metadata, str) else json.dumps(metadata).replace("NaN", ".nan")
    with pytest.raises(ValueError, match=f"(?s)Invalid metadata in README.md.*{message}"):
        api.upload_file(path_or_fileobj=f"---\n{text}\n---\n".encode(), path_in_repo="README.md", repo_id="org/clip")
    assert content(hub) == FILES


def test_a_good_card_passes():
    metadata = index() | {"license": "apache-2.0", "tags": ["clip"], "base_model": "org/clip", "datasets": "mnist"}
    metadata |= {"pipeline_tag": "zero-shot-image-classification", "base_model_relation": "finetune"}
    assert validate(f"---\n{json.dumps(metadata)}\n---\n# clip") == ([], [])
    assert validate("# clip") == ([], ["empty or missing yaml metadata in repo card"])
    assert validate("---\npipeline_tag: cleaning\n---")[1] == [
        'The pipeline tag "cleaning" is not in the official list.'
    ]


# Faults


def test_a_fault_once_and_for_ever(hub, naps):
    hub.put("org/clip", FILES)
    listing = hub.url + "/api/models/org/clip/tree/main"
    for fault, times in ((500, 1), (429, 2), ("cut", 1)):
        hub.fail(lambda request: "/tree/" in request.path, fault, times=times, retry_after=7)
        assert len(HfApi().list_repo_files("org/clip")) == 4
    assert naps == [1, 8, 8, 1] and len(hub.log) == 7
    for fault in (401, 403, 404, 409, 500):
        hub.fail(Request("GET", listing.removeprefix(hub.url)), fault, times=None)
        with pytest.raises(HfHubHTTPError, match=str(fault)):
            HfApi().list_repo_files("org/clip")
        hub.heal()
    assert len(HfApi().list_repo_files("org/clip")) == 4


def test_a_fault_at_the_nth_request(hub):
    hub.put("org/clip", FILES)
    api = HfApi()
    api.model_info("org/clip")
    hub.fail(1, 403)
    api.model_info("org/clip")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.model_info("org/clip")
    api.model_info("org/clip")


def test_a_file_that_is_cut_is_resumed(hub, monkeypatch):
    hub.put("org/clip", FILES)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # else smaller files start anew
    path = "/org/clip/resolve/main/model.safetensors"
    hub.fail(Request("GET", path), "cut")
    with open(hf_hub_download("org/clip", "model.safetensors"), "rb") as file:
        assert file.read() == FILES["model.safetensors"]
    assert hub.sent[path] == len(FILES["model.safetensors"])
    hub.fail(Request("HEAD", "/org/clip/resolve/main/config.json"), 500, times=None)
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("org/clip", "config.json")


def test_a_slow_file(hub, monkeypatch):
    hub.put("org/clip", FILES)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    path = "/org/clip/resolve/main/model.safetensors"
    hub.fail(Request("GET", path), "slow", seconds=0.5)
    with open(hf_hub_download("org/clip", "model.safetensors"), "rb") as file:
        assert file.read() == FILES["model.safetensors"]
    assert hub.log.count(Request("GET", path)) == 2
