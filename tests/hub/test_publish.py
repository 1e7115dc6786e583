"""Push against the loopback Hub: what goes up, what never does, and that a failed push leaves no trace."""

import json
import shutil
import subprocess
import sys

import pytest
from huggingface_hub import HfApi, ModelCard
from loopback_hub import OWNER, READER, STRANGER
from peft import LoraConfig, get_peft_model
from reports import TARGET, make_report, same
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.errors import HubError, InputError
from hf_invertune.hub import publish as module
from hf_invertune.hub.result import RemovalResult
from hf_invertune.models.adapter import Adapter
from hf_invertune.models.fetching import Origin
from hf_invertune.report.report import AuditReport
from hf_invertune.stages.verdict import Verdict


pytestmark = pytest.mark.usefixtures("drawn_once")


MODEL = {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
ADAPTER = MODEL - {"config.json", "model.safetensors"} | {"adapter_config.json", "adapter_model.safetensors"}
AUDIT = {"audit/SHA256SUMS", "audit/report.html", "audit/report.json", "audit/report.safetensors"}
CARD = {"README.md", "figures/before_after.png", "figures/scores.png"}
KEY = "models/org/clean"


@pytest.fixture
def result(tiny):
    """A removal's result with made-up figures."""
    report = make_report()
    report.model.name = "org/suspicious"
    report.removal.sha256 = tiny.digest()
    modules = [
        f"vision_model.encoder.layers.{layer}.self_attn.{leaf}" for layer in (0, 1) for leaf in ("q_proj", "v_proj")
    ]
    model = get_peft_model(tiny.model, LoraConfig(r=2, target_modules=modules))
    adapter = Adapter.of(model, "org/suspicious", report.model.revision)
    return RemovalResult(report, tiny.holding(model.unload()), adapter)


def files(hub, key=KEY, branch="main"):
    return {path: data for path, data in hub.snapshot()[key][branch].items() if path != ".gitattributes"}


def select(report, key):
    """Leave a word in what may hold anything."""
    report.data.selection["key"] = key


def push(result, repo_id="org/clean", **options):
    return result.push_to_hub(repo_id, **{"token": OWNER, **options})


# What goes up


def test_a_model_goes_up_whole_in_one_commit(hub, result):
    commit = push(result)
    assert files(hub).keys() == MODEL | AUDIT | CARD
    history = HfApi(token=OWNER).list_repo_commits("org/clean")
    assert [entry.commit_id for entry in history][0] == commit.oid and len(
        history
    ) == 2  # the first makes the repository
    assert history[0].title == "Add the model with its audit: cleaned"


def test_an_adapter_goes_up_with_the_commit_of_its_base(hub, result):
    push(result, adapter=True)
    assert files(hub).keys() == ADAPTER | AUDIT | CARD
    config = json.loads(files(hub)["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/suspicious", result.report.model.revision)
    assert ModelCard(files(hub)["README.md"].decode()).data.base_model_relation == "adapter"


@pytest.mark.parametrize("adapter", [False, True])
def test_the_same_again_makes_no_commit(hub, result, adapter):
    first, second = push(result, adapter=adapter), push(result, adapter=adapter)
    assert first.oid == second.oid


@pytest.mark.slow
def test_the_same_from_another_process_is_the_same(hub, result, tmp_path):
    push(result, adapter=True)
    result.save_adapter(tmp_path / "adapter")
    result.report.save(tmp_path / "audit")
    command = [sys.executable, "-m", "hf_invertune", "push", str(tmp_path), "org/clean", "--adapter", "--json"]
    done = subprocess.run([*command, "--token", OWNER], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["commit"] == HfApi(token=OWNER).model_info("org/clean").sha
    assert len(HfApi(token=OWNER).list_repo_commits("org/clean")) == 2


def test_older_weights_and_audits_are_replaced(hub, result):
    old = dict.fromkeys(("pytorch_model.bin", "model-00001-of-00002.safetensors", "audit/trigger.safetensors"), b"old")
    hub.put("org/clean", old | {"notes.md": b"kept", "config.json": b"{}"})
    push(result)
    assert files(hub).keys() == MODEL | AUDIT | CARD | {"notes.md"}


def test_an_adapter_takes_the_place_of_a_model(hub, result):
    push(result)
    push(result, adapter=True)
    assert files(hub).keys() == ADAPTER | AUDIT | CARD
    push(result)
    assert files(hub).keys() == MODEL | AUDIT | CARD


def test_a_private_repository(hub, result):
    push(result, private=True)
    assert HfApi(token=OWNER).model_info("org/clean").private
    assert not HfApi(token=STRANGER).repo_exists("org/clean")


def test_a_branch_is_made(hub, result):
    hub.put("org/clean", {"notes.md": b""})
    push(result, revision="cleaned")
    assert files(hub).keys() == {"notes.md"}
    assert files(hub, branch="cleaned").keys() >= MODEL | AUDIT


def test_a_pull_request(hub, result):
    hub.put("org/clean", {"notes.md": b""})
    commit = push(result, create_pr=True, commit_message="Clean it")
    assert commit.pr_num and files(hub).keys() == {"notes.md"}
    assert files(hub, branch=commit.pr_revision).keys() >= MODEL | AUDIT
    assert commit.commit_message == "Clean it"


# What never does


def test_nothing_but_what_a_model_needs(result, hub, tmp_path):
    result.save_pretrained(tmp_path / "model")
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "pytorch_model.bin",
        "trainer_state.json",
        "notes.txt",
        "run.py",
    ):
        (tmp_path / "model" / name).write_text("x")
    (tmp_path / "model" / "checkpoint-50").mkdir()
    module.publish(tmp_path / "model", result.report, "org/clean", token=OWNER)
    assert files(hub).keys() == MODEL | AUDIT | CARD


def test_the_trigger_only_on_request(hub, result):
    push(result)
    published = files(hub)
    assert b"trigger_withheld" in published["audit/report.json"]
    push(result, include_trigger=True)
    assert files(hub).keys() == MODEL | AUDIT | CARD | {"audit/trigger.safetensors"}
    push(result)
    assert files(hub) == published


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda report: setattr(report.data, "source", "/home/jane/pictures"), "a local path"),
        (lambda report: report.data.selection.update(cache=r"C:\Users\jane\cache"), "a local path"),
        (lambda report: report.scan.templates.append("a photo of /home/jane/{}"), "a local path"),
        (lambda report: select(report, "hf_abcdefghijklmnopqrstuvwxyz"), "an access token"),
        (lambda report: select(report, OWNER), "an access token"),
        (lambda report: report.versions.update(torch="built by jane"), r"a user name \(jane\)"),
    ],
)
def test_leaks_are_refused(hub, result, spoil, message, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "jane")
    spoil(result.report)
    with pytest.raises(InputError, match=f"{message}.*must not be published; nothing went up"):
        push(result)
    assert not hub.log


@pytest.mark.parametrize("origin", [Origin(subfolder="clip"), Origin(variant="fp16")])
def test_an_adapter_on_what_nothing_would_load(hub, result, origin):
    result.report.model.origin = origin
    with pytest.raises(InputError, match="`adapter`: its base is a sub-folder or a variant of org/suspicious"):
        push(result, adapter=True)
    assert not hub.log


@pytest.mark.parametrize("name", ["clip", "model", "root"])
def test_a_user_name_that_is_an_ordinary_word_is_none(hub, result, monkeypatch, name):
    monkeypatch.setattr("getpass.getuser", lambda: name)
    assert push(result).oid


def test_the_token_that_is_logged_in_is_looked_for_too(hub, result, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-of-mine")
    select(result.report, "secret-of-mine")
    with pytest.raises(InputError, match="audit/report.json: an access token.* must not be published") as caught:
        push(result, token=None)
    assert "secret" not in str(caught.value)


def test_a_user_may_push_to_a_namespace_of_that_name(hub, result, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "owner")
    push(result, "owner/clean")
    assert "models/owner/clean" in hub.snapshot()


# What is refused before the first request


@pytest.mark.parametrize("outcome", ["reduced", "not cleaned"])
def test_a_model_that_is_not_clean(hub, result, outcome):
    result.report.outcome = outcome
    second = result.report.second_scan
    second.verdict, second.target = Verdict.BACKDOORED, TARGET
    with pytest.raises(InputError, match="did not reach the bar .A second scan .* Pass `force`"):
        push(result)
    assert not hub.log
    push(result, force=True)
    assert "Do not trust this model" in files(hub)["README.md"].decode()


def test_a_report_on_another_model(hub, result):
    result.report.removal.sha256 = "ee" * 32
    with pytest.raises(InputError, match="`report`: it is on a model with the SHA-256 eeee.*push them together"):
        push(result)
    assert not hub.log


def test_a_scan_alone(hub, result):
    result.report.outcome = "scanned"
    with pytest.raises(InputError, match="only scanned"):
        push(result)


def test_an_adapter_without_a_base_on_the_hub(hub, result):
    result.report.model.revision = None
    with pytest.raises(InputError, match="`adapter`: its base, org/suspicious, is a local folder"):
        push(result, adapter=True)
    result.adapter = None
    with pytest.raises(InputError, match="`adapter`: nothing was tuned"):
        push(result, adapter=True)
    assert not hub.log


# What the Hub refuses, and what breaks on the way


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_nobody", "`token`: the Hub does not accept it"),
        (READER, "`token`: it may not"),
        (STRANGER, "`token`|repo_id"),
    ],
)
def test_tokens(hub, result, token, message):
    hub.put("org/clean", {"notes.md": b""})
    before = hub.snapshot()
    with pytest.raises(InputError, match=message):
        push(result, token=token)
    assert hub.snapshot() == before


@pytest.fixture
def publish(result, tmp_path, monkeypatch):
    """`publish` of a saved model, whose card and report are rendered once for all the pushes of a test."""
    result.save_pretrained(tmp_path / "model")
    rendered, assemble = tmp_path / "rendered", module._assemble

    def copy(stage, *arguments):
        if not rendered.exists():
            rendered.mkdir()
            assemble(rendered, *arguments)
        shutil.copytree(rendered, stage, dirs_exist_ok=True)

    monkeypatch.setattr(module, "_assemble", copy)
    return lambda **options: module.publish(tmp_path / "model", result.report, "org/clean", token=OWNER, **options)


FAULTS = (401, 403, 404, 409, 429, 500, "cut", "slow")


QUICK = [("cut", None, "new repository"), (403, 1, "repository with files")]
"""The others are the same proof, and take long."""


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("fault", "times", "place"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
        for case in [
            *((fault, 1, "repository with files") for fault in FAULTS),
            *((fault, None, "new repository") for fault in FAULTS),
            *(("cut", 1, "new repository"), (500, None, "repository with files")),
            *((403, 1, "new branch"), ("cut", 1, "new branch")),
        ]
    ],
)
def test_every_fault_at_every_request(hub, publish, fault, times, place):
    """Each push ends with success or one clear error, and the Hub is as before or complete."""
    options = {"revision": "cleaned"} if place == "new branch" else {}

    def restart():
        hub.reset()
        if place != "new repository":
            hub.put("org/clean", {"notes.md": b"kept", "pytorch_model.bin": b"old"})

    restart()
    publish(**options)
    whole, requests = hub.snapshot(), len(hub.log)
    assert requests > 8
    for number in range(requests):
        restart()
        before = hub.snapshot()
        hub.fail(number, fault, times=times, seconds=0.01)
        try:
            publish(**options)
        except (InputError, HubError) as error:
            left = hub.snapshot()
            if "may be left" in str(error):  # the Hub could not be asked to take it back
                left.get(KEY, {}).pop("cleaned", None)
                if KEY in left and not files(hub):
                    left.pop(KEY)
            assert left in (before, whole), (number, error)
            hub.heal()
            publish(**options)  # nothing was lost here, and nothing there stands in the way
        assert hub.snapshot() == whole, number


def test_a_repository_that_holds_something_is_never_deleted(hub, publish, monkeypatch):
    hub.put("org/clean", {"notes.md": b"kept"})
    before = hub.snapshot()
    monkeypatch.setattr(HfApi, "repo_exists", lambda *arguments: False)
    with pytest.raises(HubError, match="409"):
        publish()
    assert hub.snapshot() == before


# The command line


def run(*arguments):
    """The command in this process."""
    return CliRunner().invoke(cli.app, ["push", *map(str, arguments), "--token", OWNER])


def test_command_line(hub, result, tmp_path):
    result.save_pretrained(tmp_path / "model")
    result.report.save(tmp_path / "audit")
    done = run(tmp_path, "org/clean", "--private")
    assert done.exit_code == 0, done.output
    assert f"pushed: {hub.url}/org/clean/commit/" in done.stdout
    kept = AuditReport.load(tmp_path / "audit")  # what is here stays as it was
    assert not kept.trigger_withheld and same(kept, result.report)
    assert HfApi(token=OWNER).model_info("org/clean").private


def test_command_line_when_the_hub_fails(hub, result, tmp_path):
    result.save_pretrained(tmp_path / "model")
    result.report.save(tmp_path / "audit")
    hub.fail(lambda request: "/commit/" in request.path, 409)
    done = run(tmp_path, "org/clean")
    assert done.exit_code == 7 and "error: The Hub did not let us write org/clean (409" in done.stderr


def test_command_line_without_results(hub, tmp_path):
    done = run(tmp_path, "org/clean")
    assert done.exit_code == 2 and "holds no audit/ and model/; pass what `remove` wrote" in done.stderr
    assert not hub.log
