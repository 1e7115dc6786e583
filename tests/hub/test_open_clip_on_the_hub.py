"""A model of open_clip from the Hub and back: scanned, cleaned, saved, and pushed in either format."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from loopback_cards import validate
from loopback_hub import OWNER
from open_clip_models import RESNET, config_of, save_open_clip
from safetensors.torch import load
from tiny_plan import pictures, removal_config
from typer.testing import CliRunner

from hf_invertune import BackdoorRemover, load_model
from hf_invertune.cli import main as cli
from hf_invertune.errors import InputError


pytestmark = pytest.mark.usefixtures("drawn_once")

FILES = {"open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json", "tokenizer_config.json"}


FORMATS = {"vit": ("transformers", "open_clip"), "resnet": ("open_clip",)}


@pytest.fixture(params=FORMATS)
def kind(request):
    """What the image tower is."""
    return request.param


@pytest.fixture
def origin(hub, tmp_path, kind):
    """What lies on the Hub as org/suspicious."""
    save_open_clip(tmp_path / "origin", config_of(vision=RESNET if kind == "resnet" else ()))
    files = {path.name: path.read_bytes() for path in (tmp_path / "origin").iterdir()}
    hub.put("org/suspicious", {**files, "README.md": b"---\nlicense: mit\n---\n# A CLIP\n"})
    return files


@pytest.fixture
def remover(origin):
    return BackdoorRemover.from_pretrained("org/suspicious", token=OWNER, device="cpu")


def on_hub(hub, repo_id):
    return hub.snapshot()[f"models/{repo_id}"]["main"]


def weights_of(files):
    return load(files["open_clip_model.safetensors"])


def test_from_scan_to_its_formats(hub, origin, remover, tmp_path, kind):
    config = removal_config(tuning={"max_steps": 4})
    scan = remover.scan(pictures(32), config=config)
    asked = len(hub.log)
    assert (scan.inputs.model.format, scan.inputs.model.name) == ("open_clip", "org/suspicious")
    result = remover.remove(pictures(32), scan=scan, target="blue square", config=config)
    assert result.report.removal is not None and result.report.model.sha256 != result.report.sha256_after

    assert len(hub.log) == asked

    for format in FORMATS[kind]:
        result.save_pretrained(tmp_path / format, format)
        again = load_model(tmp_path / format, device="cpu")
        assert (again.format, again.digest()) == (format, result.report.sha256_after)
    assert {path.name for path in (tmp_path / "open_clip").iterdir()} == FILES

    result.push_to_hub("org/clean", format="open_clip", force=True, token=OWNER)
    files = on_hub(hub, "org/clean")
    assert files.keys() >= FILES and not {"config.json", "model.safetensors"} & files.keys()
    assert json.loads(files["open_clip_config.json"]) == json.loads(origin["open_clip_config.json"])
    before, after = weights_of(origin), weights_of(files)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    parts = ("visual.transformer.resblocks.", "visual.layer", "visual.attnpool.")
    assert changed and all(name.startswith(parts) and name.endswith("weight") for name in changed)
    assert load_model("org/clean", token=OWNER, device="cpu").digest() == result.report.sha256_after

    card = ModelCard(files["README.md"].decode())
    assert validate(str(card)) == ([], [])
    assert (card.data.library_name, card.data.base_model) == ("open_clip", "org/suspicious")
    assert 'open_clip.create_model_from_pretrained("hf-hub:org/clean")' in card.text and "pipeline(" not in card.text

    result.push_to_hub("org/clean", force=True, token=OWNER)
    plain, own = {"config.json", "model.safetensors"}, {"open_clip_config.json", "open_clip_model.safetensors"}
    there, gone = (plain, own) if kind == "vit" else (own, plain)
    assert there <= on_hub(hub, "org/clean").keys() and not gone & on_hub(hub, "org/clean").keys()

    result.push_to_hub("org/adapter", adapter=True, force=True, token=OWNER)
    text = on_hub(hub, "org/adapter")["README.md"].decode()
    snippet = text.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(snippet, names)
    with torch.no_grad():
        values = torch.rand(2, 3, 32, 32)
        expected = result.model.get_image_features(pixel_values=values).pooler_output
        torch.testing.assert_close(names["model"].get_image_features(pixel_values=values).pooler_output, expected)


def test_an_untouched_model_goes_up_as_it_came(hub, origin, remover, tmp_path):
    result = remover.remove(pictures(32), config=removal_config("clean"))
    assert result.outcome == "unchanged"
    result.save_pretrained(tmp_path / "out" / "model")
    result.report.save(tmp_path / "out" / "audit")
    command = ["push", str(tmp_path / "out"), "org/clean", "--format", "open_clip", "--token", OWNER]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    files = on_hub(hub, "org/clean")
    assert files["open_clip_model.safetensors"] == origin["open_clip_model.safetensors"]
    assert json.loads(files["open_clip_config.json"]) == json.loads(origin["open_clip_config.json"])
    wrong = CliRunner().invoke(cli.app, [*command[:4], "onnx", *command[5:]])
    assert wrong.exit_code == 2 and "--format: got 'onnx'; this model can be saved as" in wrong.stderr


def test_an_adapter_has_one_format(hub, origin, remover):
    result = remover.remove(pictures(32), target="blue square", config=removal_config())
    with pytest.raises(InputError, match="`format`: got 'open_clip' for an adapter"):
        result.push_to_hub("org/adapter", adapter=True, format="open_clip", force=True, token=OWNER)
    assert "models/org/adapter" not in hub.snapshot()
