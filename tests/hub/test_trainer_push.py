"""`push_to_hub=True` in the arguments: one push, after the audit."""

import json

import pytest
from huggingface_hub import HfApi
from loopback_hub import OWNER
from tiny_plan import make_trainer, pictures, tiny_plan
from transformers import CLIPModel

from hf_invertune.errors import InputError
from hf_invertune.models.loading import state_digest
from hf_invertune.report import content
from hf_invertune.tuning.proof import AuditReportCallback


pytestmark = pytest.mark.usefixtures("drawn_once")


@pytest.fixture
def make(hub, tiny_folder, tmp_path, monkeypatch):
    """Trainers of a model on the Hub whose cleaning always reaches its bar."""
    monkeypatch.setattr(content, "missed_bars", lambda *figures: [])
    hub.put("org/suspicious", {path.name: path.read_bytes() for path in tiny_folder.iterdir()})

    class Source:
        """What `make_trainer` takes apart."""

        model, processor = "org/suspicious", None

    def make(**settings):
        callbacks = [AuditReportCallback()]
        settings = {"push_to_hub": True, "hub_model_id": "org/clean", "hub_token": OWNER, **settings}
        return make_trainer(
            Source, tmp_path / "out", plan=tiny_plan(), data=pictures(), eval_dataset=pictures(seed=9),
            callbacks=callbacks, save_strategy="steps", save_steps=1, **settings,
        )  # fmt: skip

    return make


def test_one_push_after_the_audit(hub, make, tmp_path):
    trainer = make()
    assert "models/org/clean" not in hub.snapshot()  # nothing before there is something to push
    trainer.train()
    assert len(HfApi(token=OWNER).list_repo_commits("org/clean")) == 2  # the first makes the repository
    names = hub.snapshot()["models/org/clean"]["main"].keys()
    assert {"README.md", "model.safetensors", "config.json", "audit/report.json"} <= names
    assert not any("checkpoint" in name or name.endswith((".bin", ".pt")) for name in names)
    report = json.loads((tmp_path / "out" / "audit" / "report.json").read_text())
    pulled = CLIPModel.from_pretrained("org/clean")
    before = report["scan"]["inputs"]["model"]
    assert report["removal"]["sha256"] == state_digest(pulled, pulled.dtype) != before["sha256"]
    assert (before["name"], len(before["revision"])) == ("org/suspicious", 40)
    assert "use_cache" not in json.loads(hub.snapshot()["models/org/clean"]["main"]["config.json"])
    first = HfApi(token=OWNER).model_info("org/clean").sha
    assert trainer.push_to_hub().oid == first  # nothing changed
    trainer.push_to_hub(include_trigger=True, revision="open", commit_message="All of it")
    assert "audit/trigger.safetensors" in hub.snapshot()["models/org/clean"]["open"]


def test_the_adapter(hub, make):
    make(hub_adapter=True, hub_private_repo=True, hub_revision="cleaned").train()
    names = hub.snapshot()["models/org/clean"]["cleaned"].keys()
    assert "adapter_model.safetensors" in names and "model.safetensors" not in names
    assert HfApi(token=OWNER).model_info("org/clean").private


def test_the_name_of_the_output_folder_is_the_default(hub, make):
    make(hub_model_id=None).train()
    assert "models/owner/out" in hub.snapshot()


def test_nothing_to_push_before_the_training(make):
    with pytest.raises(InputError, match="`push_to_hub`: nothing is audited yet"):
        make().push_to_hub()


def test_a_push_needs_images_to_measure_on(tiny, tmp_path):
    with pytest.raises(InputError, match="`eval_dataset`: got None with `push_to_hub`"):
        make_trainer(tiny, tmp_path, plan=tiny_plan(), push_to_hub=True)
