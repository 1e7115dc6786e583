"""No verb shows the access token, whatever the Hub does: not on the screen, in a log, in a traceback or in a file."""

import io
import logging
import shutil
import traceback

import datasets
import huggingface_hub
import numpy as np
import pytest
from loopback_state import Token
from PIL import Image
from reports import make_report
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.errors import HubError
from hf_invertune.models.loading import load_model


pytestmark = [pytest.mark.usefixtures("drawn_once"), pytest.mark.no_cover]

SECRET = "s3cret-of-the-owner"
"""Of no shape that tokens have, so that it is not hidden for that."""
FAULTS = (401, 403, 404, 409, 429, 500, "cut", "slow", "echo")
READS = {
    "scan": (),
    "invert": ("--output-dir", "out"),
    "remove": ("--output-dir", "out"),
    "evaluate": (),
    "attack": ("--attack", "badnet", "--target", "a", "--epochs", "1", "--output-dir", "out"),
}


@pytest.fixture
def place(hub, tiny_folder, tmp_path, monkeypatch):
    """The folder that the verbs run in, beside a Hub with a private model and dataset; a removal lies there."""
    hub.state.tokens[SECRET] = Token("owner", ("owner", "org"), writes=True)
    hub.put("org/clip", {path.name: path.read_bytes() for path in tiny_folder.iterdir()}, private=True)
    hub.put("org/data", {"data/train-00000-of-00001.parquet": pictures()}, kind="dataset", private=True)
    folder = tmp_path / "work"
    shutil.copytree(tiny_folder, folder / "done" / "model")
    report = make_report()
    report.removal.sha256 = load_model(tiny_folder, device="cpu").digest()
    report.save(folder / "done" / "audit")
    monkeypatch.chdir(folder)
    return folder


def pictures():
    """Too few for a scan or a removal, which refuse them once they have been read."""
    generator = np.random.default_rng(0)
    table = {
        "image": [Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(4)],
        "label": [0, 1, 0, 1],
    }
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(table, features=features).to_parquet(buffer)
    return buffer.getvalue()


def command(verb):
    """The verb's arguments, but for the token."""
    if verb == "push":
        return ["push", "done", "org/new"]
    if verb == "verify":
        return ["report", "verify", "done/audit", "--model", "org/clip"]
    return [verb, "org/clip", "--images", "org/data", "--device", "cpu", *READS[verb]]


def run(place, caplog, arguments, secret=SECRET, **environment):
    """Exit code and stderr of a verb, made sure that nothing it left says the secret."""
    shutil.rmtree(place / "out", ignore_errors=True)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "huggingface_hub"), caplog.at_level(logging.DEBUG, "datasets"):
        outcome = CliRunner().invoke(cli.app, [*arguments, "--verbose"], env=environment)
    written = [path.read_bytes() for path in place.parent.rglob("*") if path.is_file() and path.name != "token"]
    shown = [outcome.output, "".join(traceback.format_exception(*outcome.exc_info)), caplog.text]
    for part in secret.split():
        assert not [text for text in shown if part in text] and not [data for data in written if part.encode() in data]
    return outcome.exit_code, outcome.stderr


def forget(monkeypatch, place, number):
    """Empty caches."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(place.parent / f"hub {number}"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", place.parent / f"datasets {number}")
    huggingface_hub.HfFileSystem.clear_instance_cache()


STAGES = {
    "all": lambda request: True,
    "pictures": lambda request: "/datasets/" in request.path,
    "commit": lambda request: "/commit/" in request.path,
}
QUICK = {("scan", "all", fault) for fault in FAULTS} | {("scan", "pictures", "echo"), ("push", "commit", "echo")}
QUICK |= {(verb, "all", "echo") for verb in (*READS, "push", "verify")}
"""The others are the same proof, and take long."""
ALL = [(verb, stage, fault) for verb in READS for stage in ("all", "pictures") for fault in FAULTS]
ALL += [
    (verb, stage, fault)
    for verb, stage in (("push", "all"), ("push", "commit"), ("verify", "all"))
    for fault in FAULTS
]


@pytest.mark.parametrize(
    ("verb", "stage", "fault"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in ALL],
)
def test_a_fault(hub, place, caplog, verb, stage, fault):
    hub.fail(STAGES[stage], fault, times=None, seconds=0.01)
    code, said = run(place, caplog, [*command(verb), "--token", SECRET])
    assert code in ((0, 2) if fault == "slow" else (2, 7)), said
    assert "Traceback" not in said and ("<token>" in said) == (fault == "echo")


@pytest.mark.slow
@pytest.mark.parametrize("verb", [*READS, "push", "verify"])
def test_a_fault_at_each_request(hub, place, caplog, monkeypatch, verb):
    arguments = [*command(verb), "--token", SECRET]
    run(place, caplog, arguments)
    requests = list(dict.fromkeys(hub.log))
    assert len(requests) > 5
    for number, request in enumerate(requests):
        for fault in FAULTS:
            forget(monkeypatch, place, f"{number} {fault}")
            hub.state.repositories.pop("models/org/new", None)
            hub.fail(request, fault, times=None, seconds=0.01)
            assert run(place, caplog, arguments)[0] in (0, 2, 7)
            hub.heal()
            shutil.rmtree(place.parent / f"hub {number} {fault}", ignore_errors=True)


IMPOSSIBLE = ["hf_first hf_second", "hf_first\thf_second", "hf_s\u00e9cret", "hf_first\x1b"]


@pytest.mark.parametrize("way", ["option", "environment", "file"])
@pytest.mark.parametrize("token", IMPOSSIBLE)
def test_an_impossible_token(hub, place, caplog, monkeypatch, token, way):
    options, environment = [], {}
    if way == "option":
        options = ["--token", token]
    elif way == "environment":
        environment = {"HF_TOKEN": token}
    else:
        (place / "token").write_text(token, encoding="utf-8")
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(place / "token"))
    for verb in ("scan", "push", "verify") if token is IMPOSSIBLE[0] else ("verify",):
        code, said = run(place, caplog, [*command(verb), *options], token, **environment)
        assert code == 2 and "token`: it holds blanks, control characters" in said.replace("--token", "`token`"), said
    assert not hub.log


def test_a_stored_token_that_is_no_text(hub, place, caplog, monkeypatch):
    (place / "token").write_bytes(b"hf_\xe9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(place / "token"))
    assert run(place, caplog, command("verify"))[1].endswith("store it anew with `hf auth login`.\n")


@pytest.mark.parametrize(("verb", "token"), [("evaluate", f"{SECRET}\n"), ("push", f"\r\n{SECRET}\t")])
def test_blanks_around_a_token_are_no_part_of_it(hub, place, caplog, verb, token):
    assert run(place, caplog, [*command(verb), "--token", token])[0] == 0
    assert run(place, caplog, command(verb), HF_TOKEN=token)[0] == 0


def test_what_the_hub_says_of_other_tokens_is_not_shown_either(hub, place, monkeypatch):
    monkeypatch.setitem(hub.state.tokens, "hf_" + 20 * "x", hub.state.tokens[SECRET])
    hub.fail(0, "echo", times=None)
    with pytest.raises(HubError, match="no Bearer <token>") as caught:
        load_model("org/clip", token="hf_" + 20 * "x")
    assert "xxx" not in "".join(traceback.format_exception(caught.value))
