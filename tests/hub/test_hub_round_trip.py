"""From the Hub and back: a suspicious model is pulled, cleaned and pushed, and others pull it without this library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, hf_hub_download, snapshot_download
from jsonschema import Draft202012Validator
from loopback_cards import validate
from loopback_hub import OWNER, READER

from hf_invertune.data.prompts import TEMPLATES
from hf_invertune.lab.demo import demo_images, demo_victim, victim_truth
from hf_invertune.lab.drawings import CLASS_NAMES
from hf_invertune.models.loading import load_model
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report.report import AuditReport
from hf_invertune.report.verify import verify_report
from hf_invertune.stages.configs import GatheringConfig, InversionConfig, RemovalConfig, ScanConfig, TuningConfig
from hf_invertune.stages.families import AdditiveFamily, MaskedFamily


PLAIN = """
import json, sys
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor, pipeline

inputs = torch.load(sys.argv[1], weights_only=True)

def measure(model, processor):
    model = model.float().eval()
    image_processor = processor.image_processor
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (image_processor.image_mean, image_processor.image_std))
    head = []
    for texts in inputs["texts"]:
        tokens = processor.tokenizer(texts, padding=True, return_tensors="pt")
        embedded = model.get_text_features(**tokens).pooler_output
        head.append(torch.nn.functional.normalize(torch.nn.functional.normalize(embedded, dim=-1).mean(0), dim=-1))
    head = torch.stack(head)

    def read(pixels):
        images = model.get_image_features(pixel_values=(pixels.float() / 255 - mean) / std).pooler_output
        return (images @ head.T).argmax(1)

    print(json.dumps({
        "ca": int((read(inputs["clean"]) == inputs["labels"]).sum()),
        "asr": int((read(inputs["triggered"])[inputs["labels"] != inputs["target"]] == inputs["target"]).sum()),
        "library": [name for name in sys.modules if name.startswith("hf_invertune")],
    }))

classify = pipeline("zero-shot-image-classification", model="org/clean")
picture = Image.fromarray(inputs["clean"][0].permute(1, 2, 0).numpy())
assert classify(picture, candidate_labels=["red circle", "blue square"])[0]["score"] > 0.5
with torch.no_grad():
    measure(CLIPModel.from_pretrained("org/clean"), CLIPProcessor.from_pretrained("org/clean"))
    from peft import PeftModel

    base = CLIPModel.from_pretrained(sys.argv[2], revision=sys.argv[3])
    measure(PeftModel.from_pretrained(base, "org/adapter"), CLIPProcessor.from_pretrained("org/adapter"))
"""


@pytest.fixture
def cleaned(hub):
    """A removal of the demo's backdoor, which its test cuts short, from a model on the Hub."""
    files = {path.name: path.read_bytes() for path in demo_victim("poisoned").iterdir()}
    commit = hub.put("org/suspicious", {**files, "README.md": b"---\nlicense: mit\n---\n# A CLIP\n"}, private=True)
    remover = BackdoorRemover.from_pretrained("org/suspicious", token=READER, device="cpu")
    assert remover.source.revision == commit
    config = RemovalConfig(
        scan=ScanConfig(
            simulation_steps=2,
            steps=(2, 2),
            finalists=2,
            rivals=2,
            restarts=1,
            looks=1,
            families=(MaskedFamily(), AdditiveFamily()),
            gathering=GatheringConfig(families=()),
        ),
        inversion=InversionConfig(steps=40, batch_size=8),
        tuning=TuningConfig(max_steps=30),
    )
    remover.remove(demo_images(128, 1), target="purple triangle", config=config)
    return remover


@pytest.mark.no_cover
def test_others_get_the_same_model(hub, cleaned, tmp_path, monkeypatch):
    truth, trigger = victim_truth()
    test = demo_images(400, 2)
    measured = cleaned.evaluate(test, trigger=trigger, target=truth["target"])
    assert measured.attack_success_rate.value < 0.9  # it was 1.0: what is pushed is not the model that came
    triggered = (trigger(test.pixels / 255) * 255).round().to(torch.uint8)
    texts = [[template.format(name) for template in TEMPLATES] for name in CLASS_NAMES]
    target = CLASS_NAMES.index(truth["target"])
    inputs = {"clean": test.pixels, "triggered": triggered, "labels": test.labels, "texts": texts, "target": target}
    torch.save(inputs, tmp_path / "inputs.pt")
    expected = {"ca": measured.clean_accuracy.hits, "asr": measured.attack_success_rate.hits, "library": []}

    cleaned.push_to_hub("org/clean", token=OWNER, force=True)
    cleaned.push_to_hub("org/adapter", token=OWNER, force=True, adapter=True)
    monkeypatch.setenv("HF_TOKEN", READER)  # the adapter's base is private
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "inputs.pt"), "org/suspicious", cleaned.source.revision]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(map(json.loads, done.stdout.splitlines())) == [expected, expected]

    # what strangers read of it
    for repo_id in ("org/clean", "org/adapter"):
        card = ModelCard.load(hf_hub_download(repo_id, "README.md"))
        card.validate()
        assert validate(str(card)) == ([], [])
        assert card.data.license == "mit" and card.data.base_model == "org/suspicious"
        audit = snapshot_download(repo_id, allow_patterns="audit/*") + "/audit"
        schema = json.loads((Path(__file__).parents[2] / "docs/report-schema.json").read_text())
        with open(f"{audit}/report.json") as file:
            Draft202012Validator(schema).validate(json.load(file))
        report = AuditReport.load(audit)
        assert report.trigger_withheld and report.model.revision == cleaned.source.revision
        assert not Path(audit, "trigger.safetensors").exists()
        claims = verify_report(audit, load_model("org/clean", device="cpu"))
        assert [claim for claim in claims if claim.holds is False] == []
