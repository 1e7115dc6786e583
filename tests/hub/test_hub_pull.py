"""Pulling models and datasets with the real client, from a Hub that may be unkind."""

import io
import json
import pickle
import re
import subprocess
import sys

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from loopback_hub import OWNER, READER, STRANGER
from PIL import Image
from pulling import pull, refused

from hf_invertune.data.loading import load_images
from hf_invertune.errors import HubError, InputError
from hf_invertune.models.loading import load_model, state_digest
from hf_invertune.utils.hub_errors import hub_errors


def fetched(hub):
    """The files that were asked for, by name."""
    return {request.path.rsplit("/")[-1] for request in hub.log if "/resolve/" in request.path}


# Models


def test_a_hub_id(hub, files, digest):
    sha = hub.put("org/clip", files)
    loaded = pull()
    assert (loaded.name, loaded.revision) == ("org/clip", sha) and len(sha) == 40
    assert state_digest(loaded.model, torch.float32) == digest
    assert fetched(hub) == files.keys()
    hub.log.clear()
    pull()
    assert not fetched(hub)


def test_a_revision_is_resolved_to_its_commit(hub, files):
    config = json.loads(files["config.json"])
    shas = {}
    for revision, scale in (("v1", 1.0), ("main", 2.0), ("feature/one", 3.0)):
        config["logit_scale_init_value"] = scale
        hub.put("org/clip", files | {"config.json": json.dumps(config).encode()})
        if revision != "main":
            make = {"v1": huggingface_hub.HfApi().create_tag, "feature/one": huggingface_hub.HfApi().create_branch}
            keyword = "tag" if revision == "v1" else "branch"
            make[revision]("org/clip", token=OWNER, **{keyword: revision})
        shas[revision] = hub.state.repositories["models/org/clip"].resolve("main").sha
        if revision == "feature/one":
            hub.state.repositories["models/org/clip"].heads["main"] = shas["main"]
    for revision, scale in (("v1", 1.0), (None, 2.0), ("main", 2.0), ("feature/one", 3.0)):
        loaded = pull(revision=revision)
        assert loaded.revision == shas[revision or "main"] and loaded.model.config.logit_scale_init_value == scale
    for sha in (shas["v1"], shas["v1"][:8]):
        loaded = pull(revision=sha)
        assert loaded.revision == shas["v1"] and loaded.model.config.logit_scale_init_value == 1.0
    refused("`revision`: org/clip has no revision 'v9'", revision="v9")


TOKENS = [
    (None, "`model`: org/clip is neither a folder here nor a model on the Hub .* pass `token`"),
    (STRANGER, "`model`: org/clip is neither a folder here nor a model on the Hub that this token may read"),
    ("hf_wrong", r"`token`: the Hub does not accept it \(401: Invalid credentials in Authorization header\)"),
]


@pytest.mark.parametrize(("token", "message"), TOKENS)
def test_a_private_model(hub, files, token, message):
    sha = hub.put("org/clip", files, private=True)
    refused(message, token=token)
    assert not fetched(hub)
    assert pull(token=READER).revision == sha


def test_a_gated_model(hub, files):
    sha = hub.put("org/clip", files, gated=True)
    for token in (None, STRANGER):
        refused("`model`: org/clip is gated; ask for access on its page and pass `token`", token=token)
    assert pull(token=READER).revision == sha


@pytest.mark.parametrize("name", ["org/no-such-clip", "org/bad..name"])
def test_no_model(hub, name):
    refused(f"`model`: {name} is neither a folder here nor a model on the Hub", name)


def run_offline(code):
    """Stdout of Python code in offline mode; it has no other way to the Hub than the caches."""
    code = f"import os; os.environ['HF_HUB_OFFLINE'] = '1'\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOAD = """
from hf_invertune.errors import InputError
from hf_invertune.models.loading import load_model
for revision in {revisions}:
    try:
        print(load_model("org/clip", revision=revision, device="cpu").revision)
    except InputError as error:
        print(error)
"""


def test_offline(hub, files):
    sha = hub.put("org/clip", files)
    message = (
        "`model`: org/clip is no folder here, and the Hub cannot be reached in offline mode; unset HF_HUB_OFFLINE"
    )
    pull()
    hub.log.clear()
    known, also_known, unknown = run_offline(LOAD.format(revisions=(None, sha, "v1"))).splitlines()
    assert known == also_known == sha and unknown.startswith(message)
    assert not hub.log


def test_the_cache_serves_when_the_hub_is_down(hub, files):
    sha = hub.put("org/clip", files)
    pull()
    hub.fail(lambda request: True, 500, times=None)
    assert pull().revision == sha


# What a model's author may have put there


class Canary:
    """Leaves a file behind when its pickle is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def trace(tmp_path):
    """The file that a canary makes."""
    return tmp_path / "ran"


PICKLES = ("adapter_model.bin", "model.ckpt", "model.pkl", "pytorch_model.bin", "training_args.bin", "weights.pt")


def test_pickles_only(hub, files, trace):
    canary = pickle.dumps(Canary(trace), protocol=2)
    others = {name: content for name, content in files.items() if name != "model.safetensors"}
    hub.put("org/clip", others | dict.fromkeys(PICKLES, canary))
    refused(
        rf"`model`: org/clip holds only pickled weights \({', '.join(PICKLES)}\), which are never opened; it needs "
        r"model.safetensors. Convert pickles in a sandbox, e.g. with https://huggingface.co/spaces/safetensors/convert"
    )
    assert fetched(hub) == others.keys() and not trace.exists()


def test_no_weights(hub, files):
    hub.put("org/clip", {"config.json": files["config.json"]})
    refused("`model`: org/clip holds no weights; it needs model.safetensors")


def test_pickles_beside_the_weights_are_not_fetched(hub, files, trace):
    sha = hub.put("org/clip", files | dict.fromkeys(PICKLES, pickle.dumps(Canary(trace), protocol=2)))
    assert pull().revision == sha
    assert fetched(hub) == files.keys() and not trace.exists()


def test_what_is_in_folders_is_not_fetched(hub, files):
    hub.put("org/clip", files | {f"checkpoint-500/{name}": content for name, content in files.items()})
    pull()
    assert not [request for request in hub.log if "checkpoint" in request.path]


OWN = """
open({trace!r}, "w")
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
class OwnConfig(CLIPConfig): pass
class OwnImageProcessor(CLIPImageProcessor): pass
class OwnModel(CLIPModel): pass
class OwnProcessor(CLIPProcessor): pass
class OwnTokenizer(CLIPTokenizer): pass
"""
TRUST = {"trust_remote_code": True}
CONFIG = {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
PROCESSOR = {"processor_class": "OwnProcessor", "auto_map": {"AutoProcessor": "own.OwnProcessor"}}
IMAGES = {"image_processor_type": "OwnImageProcessor", "auto_map": {"AutoImageProcessor": "own.OwnImageProcessor"}}
TOKENIZER = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
ELSEWHERE = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["evil/code--own.OwnTokenizer", None]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.json": CONFIG | TRUST}, None),
        (
            {"config.json": CONFIG | TRUST | {"model_type": "own", "architectures": ["OwnModel"]}},
            r"`model`: org/clip needs code of its own \('own.OwnModel'\), which is never run",
        ),
        ({"processor_config.json": PROCESSOR | TRUST}, None),
        (
            {"processor_config.json": {"image_processor": IMAGES | TRUST}},
            "`processor`: .* of org/clip cannot be used .*contains custom code",
        ),
        ({"preprocessor_config.json": IMAGES | TRUST}, None),
        ({"tokenizer_config.json": TOKENIZER | TRUST}, None),
        ({"tokenizer_config.json": ELSEWHERE | TRUST}, None),
    ],
)
def test_code_of_the_models_own_does_not_run(hub, files, trace, monkeypatch, changes, message):
    own = OWN.format(trace=str(trace)).encode()
    user = io.StringIO("y\n" * 9)
    monkeypatch.setattr("sys.stdin", user)
    changed = {
        name: json.dumps(json.loads(files.get(name, b"{}")) | change).encode() for name, change in changes.items()
    }
    hub.put("org/clip", files | changed | {"own.py": own})
    hub.put("evil/code", {"own.py": own})
    if message is None:
        loaded = pull()
        parts = (loaded.model, loaded.processor, loaded.processor.tokenizer, loaded.processor.image_processor)
        assert all(type(part).__module__.startswith("transformers.") for part in parts)
    else:
        refused(message)
    assert not [request for request in hub.log if request.path.endswith(".py") or "evil" in request.path]
    assert not trace.exists() and user.tell() == 0  # nobody was asked to trust it


# Faults

QUICK = [(401, None), (500, None), ("cut", None), ("slow", None), (429, 1)]
"""The others are the same proof, and take long."""
FAULTS = [
    pytest.param(fault, times, marks=[] if (fault, times) in QUICK else pytest.mark.slow)
    for fault, times in [
        *((fault, None) for fault in (401, 403, 404, 409, 429, 500, "cut", "slow")),
        *((fault, 1) for fault in (429, 500, "cut")),
    ]
]


def outcome(action):
    """What `action` gave, or the message of the one error that it may end with."""
    try:
        return action()
    except (HubError, InputError) as error:
        return str(error)


def is_clear(message, fault):
    """One line that names what failed, and why."""
    reason = {401: "`token`: the Hub does not accept it", 403: "`token`: it may not read"}
    expected = reason.get(
        fault, "the connection to http" if fault == "cut" else f"The Hub did not let us read .*{fault}"
    )
    return re.search(expected, message) and "\n" not in message and ("org/" in message or fault == 401)


@pytest.mark.no_cover
@pytest.mark.parametrize(("fault", "times"), FAULTS)
def test_a_fault_at_each_request_of_a_model(hub, files, digest, tmp_path, monkeypatch, fault, times):
    """It ends whole or with one clear error, and a later pull is not the worse for it."""
    sha = hub.put("org/clip", files)
    assert pull().revision == sha
    requests = list(dict.fromkeys(hub.log))
    scanners = ("GET", f"/api/models/org/clip/revision/{sha}")  # nothing hangs on what they say
    requests.remove(scanners)
    assert len(requests) == 2 + 2 * len(files)

    def pulled():
        loaded = pull()
        return loaded.revision, state_digest(loaded.model, torch.float32)

    for number, request in enumerate(requests):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / str(number)))
        hub.fail(request, fault, times=times, retry_after=3, seconds=0.01)
        found = outcome(pulled)
        hub.heal()
        if fault == "slow" or (times == 1 and fault == 429 and number > 0):
            assert found == (sha, digest)
        else:
            assert is_clear(found, fault) if isinstance(found, str) else found == (sha, digest) and times == 1
        assert pulled() == (sha, digest)


def test_the_hub_says_how_long_to_wait(hub, files, naps):
    hub.put("org/clip", files)
    hub.fail(lambda request: "/tree/" in request.path, 429, retry_after=7)
    pull()
    assert naps == [8]
    hub.fail(0, 429, retry_after=7)
    with pytest.raises(HubError, match="it had too many requests; wait 7 seconds") as caught:
        pull("org/other")
    assert caught.value.status == 429


def test_a_hub_that_stalls(hub, files, monkeypatch):
    hub.put("org/clip", files)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hub.fail(lambda request: request.path.endswith("model.safetensors"), "slow", times=None, seconds=0.2)
    with pytest.raises(HubError, match="`model`: the connection to .* broke on the way to org/clip .*timed out"):
        pull()


def test_no_hub(hub, monkeypatch):
    api = huggingface_hub.HfApi
    monkeypatch.setattr(api, "repo_info", lambda self, **options: api(endpoint="http://127.0.0.1:1").model_info("a/b"))
    with pytest.raises(HubError, match="`model`: the connection to .* broke on the way to org/clip"):
        pull()


def test_errors_that_are_not_the_hubs_pass(hub):
    with pytest.raises(HfHubHTTPError) as before:
        huggingface_hub.model_info("org/clip", token="hf_wrong")
    for error in (OSError(28, "No space left on device"), ValueError("no number")):
        try:
            raise before.value
        except OSError:  # what went before is no part of it
            with pytest.raises(type(error)) as caught, hub_errors("org/clip", argument="model"):
                raise error  # noqa: B904
        assert caught.value is error
    hub.put("org/clip", {"config.json": b"{}"})
    with pytest.raises(ValueError, match="no number"), hub_errors("org/clip", argument="model"):
        try:
            huggingface_hub.hf_hub_download("org/clip", "optional.json")
        except EntryNotFoundError:
            raise ValueError("no number")  # noqa: B904


# Datasets


@pytest.fixture(scope="module")
def processor(tiny_folder):
    return load_model(tiny_folder, device="cpu").processor


def pictures(number, size=32, seed=0):
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)) for _ in range(number)]


def parquet(images, group=25):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]))
    table = {"image": images, "label": [i % 3 for i in range(len(images))]}
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(table, features=features).to_parquet(buffer, batch_size=group)
    return buffer.getvalue()


def put_shards(hub, number, size=100, **options):
    """A dataset of `number` files of `size` pictures each."""
    names = [f"data/train-{i:05}-of-{number:05}.parquet" for i in range(number)]
    content = {name: parquet(pictures(size, seed=i)) for i, name in enumerate(names)}
    return hub.put("org/data", content, kind="dataset", **options), sum(map(len, content.values()))


def sent(hub):
    """How many bytes of which files."""
    return {path.rsplit("/")[-1]: size for path, size in hub.sent.items() if path.endswith((".parquet", ".png"))}


def test_a_dataset(hub, processor):
    sha, _ = put_shards(hub, 2)
    data = load_images("org/data", processor)
    assert len(data) == 200 and data.class_names == ("a", "b", "c") and data.source == "org/data"
    assert data.selection == {"split": "train", "revision": sha}
    labels = {picture.numpy().tobytes(): label for picture, label in zip(data.pixels, data.labels, strict=True)}
    drawn = load_images("org/data", processor, limit=9)
    assert [labels[picture.numpy().tobytes()] for picture in drawn.pixels] == drawn.labels.tolist()


def test_a_limit_fetches_no_more_files_than_it_needs(hub, processor):
    sha, size = put_shards(hub, 12)
    data = load_images("org/data", processor, limit=5, seed=3)
    assert len(data) == 5 and data.selection == {"limit": 5, "seed": 3, "split": "train", "revision": sha}
    assert len(sent(hub)) <= 2 and sum(sent(hub).values()) < size / 6  # one to draw from, and the first's schema
    assert load_images("org/data", processor, limit=5, seed=3).digest() == data.digest()
    assert load_images("org/data", processor, limit=5, seed=4).digest() != data.digest()


@pytest.mark.parametrize("limit", [None, 5])
def test_a_dataset_at_a_revision(hub, processor, limit):
    first, _ = put_shards(hub, 1)
    huggingface_hub.HfApi().create_tag("org/data", tag="v1", repo_type="dataset", token=OWNER)
    hub.put("org/data", {"data/train-00000-of-00001.parquet": parquet(pictures(100, seed=9))}, kind="dataset")
    old = load_images("org/data", processor, limit=limit, revision="v1")
    assert old.selection["revision"] == first
    assert old.digest() == load_images("org/data", processor, limit=limit, revision=first).digest()
    new = load_images("org/data", processor, limit=limit)
    assert new.selection["revision"] != first and new.digest() != old.digest()
    with pytest.raises(InputError, match="`revision`: org/data has no revision 'v9'"):
        load_images("org/data", processor, limit=limit, revision="v9")


def test_the_cache_stands_in_for_no_other_commit(hub, processor):
    old, _ = put_shards(hub, 1, size=6)
    load_images("org/data", processor)
    new, _ = put_shards(hub, 2, size=6)
    hub.fail(lambda request: "/resolve/" in request.path, 500, times=None)
    with pytest.raises(
        InputError, match=f"`revision`: org/data cannot be had at {new} now, .* the cache has it at {old}"
    ):
        load_images("org/data", processor)


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize(("token", "message"), TOKENS)
def test_a_private_dataset(hub, processor, token, message, limit):
    put_shards(hub, 1, private=True)
    message = message.replace("`model`: org/clip", "`source`: org/data").replace("a model", "a dataset")
    with pytest.raises(InputError, match=message):
        load_images("org/data", processor, limit=limit, token=token)
    assert len(load_images("org/data", processor, limit=limit, token=READER)) == limit or 100


@pytest.mark.parametrize("limit", [None, 5])
def test_a_dataset_without_that_split(hub, processor, limit):
    put_shards(hub, 1)
    with pytest.raises(InputError, match="`source`: org/data is no folder here, .* its split 'test' cannot be loaded"):
        load_images("org/data", processor, split="test", limit=limit)


def test_a_dataset_with_a_script_of_its_own(hub, processor, trace):
    hub.put("org/data", {"data.py": f"open({str(trace)!r}, 'w')".encode()}, kind="dataset")
    with pytest.raises(InputError, match="Dataset scripts are no longer supported"):
        load_images("org/data", processor)
    assert not trace.exists()


def test_a_dataset_of_several_configs(hub, processor):
    card = b"---\nconfigs:\n" + b"".join(
        f"- config_name: {name}\n  data_files: {name}/*.parquet\n".encode() for name in ("small", "large")
    )
    files = {f"{name}/x.parquet": parquet(pictures(n)) for name, n in (("small", 3), ("large", 5))}
    sha = hub.put("org/data", {"README.md": card + b"---\n", **files}, kind="dataset")
    for limit in (None, 2):
        data = load_images("org/data:small", processor, limit=limit)
        assert len(data) == (limit or 3) and data.source == "org/data"
        assert (data.selection["config"], data.selection["revision"]) == ("small", sha)
    with pytest.raises(InputError, match=r"`source`: org/data .* \(Config name is missing.*name:config"):
        load_images("org/data", processor)
    with pytest.raises(InputError, match="`source`: org/data .*'none' not found"):
        load_images("org/data:none", processor)


def test_a_dataset_of_paths(hub, processor):
    buffer = io.BytesIO()
    datasets.Dataset.from_dict({"path": ["/etc/hostname"]}).to_parquet(buffer)
    hub.put("org/data", {"x.parquet": buffer.getvalue()}, kind="dataset")
    with pytest.raises(InputError, match="`image_column`: 'path' holds paths, which lead nowhere on the Hub"):
        load_images("org/data", processor)


def test_a_damaged_dataset(hub, processor):
    hub.put("org/data", {"x.parquet": parquet(pictures(3))[:-9]}, kind="dataset")
    with pytest.raises(InputError, match=r"`source`: org/data .* \(Parquet magic bytes not found"):
        load_images("org/data", processor)


def put_folder(hub, **options):
    content = {}
    for i, image in enumerate(pictures(40)):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        content[f"train/{'ab'[i % 2]}/{i}.png"] = buffer.getvalue()
    return hub.put("org/data", content, kind="dataset", **options)


def test_a_dataset_of_loose_pictures(hub, processor):
    put_folder(hub, private=True)
    data = load_images("org/data", processor, limit=5, token=READER)
    assert len(data) == len(sent(hub)) == 5 and not data.skipped


def test_offline_with_a_dataset(hub, processor, tiny_folder):
    sha, _ = put_shards(hub, 1)
    code = f"""
from hf_invertune.data.loading import load_images
from hf_invertune.errors import InputError
from hf_invertune.models.loading import load_model
for source, limit in ("org/data", None), ("org/other", None), ("org/other", 5):
    try:
        print(load_images(source, load_model({str(tiny_folder)!r}).processor, limit=limit).selection["revision"])
    except InputError as error:
        print(error)
"""
    load_images("org/data", processor)
    known, *unknown = run_offline(code).splitlines()
    message = "`source`: org/other is no folder here, and the Hub cannot be reached in offline mode; unset"
    assert known == sha and all(line.startswith(message) for line in unknown) and len(unknown) == 2


@pytest.mark.no_cover
@pytest.mark.parametrize(("fault", "times"), FAULTS)
@pytest.mark.parametrize("way", ["whole", "streamed", pytest.param("loose", marks=pytest.mark.slow)])
def test_a_fault_at_each_request_of_a_dataset(hub, processor, tmp_path, monkeypatch, fault, times, way):
    put_folder(hub) if way == "loose" else put_shards(hub, 1, size=6)

    def pulled():
        data = load_images("org/data", processor, limit=None if way == "whole" else 2)
        return data.selection["revision"], data.digest()

    expected = pulled()
    requests = list(dict.fromkeys(hub.log))
    assert len(requests) >= 9
    for number, request in enumerate(requests):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / f"hub {number}"))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / f"datasets {number}")
        huggingface_hub.HfFileSystem.clear_instance_cache()
        hub.fail(request, fault, times=times, seconds=0.01)
        found = outcome(pulled)
        hub.heal()
        assert is_clear(found, fault) if isinstance(found, str) else found == expected
        assert pulled() == expected
