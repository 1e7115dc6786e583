"""Image towers without text towers from the Hub and back, as what they came as."""

import re

import pytest
import torch
import transformers
from huggingface_hub import ModelCard, hf_hub_download, list_repo_files
from lone_towers import save_tower, stored
from loopback_cards import validate
from loopback_hub import OWNER
from tiny import CLASS_NAMES
from tiny_families import save_family
from tiny_plan import pictures, removal_config

from hf_invertune.errors import InputError
from hf_invertune.hub.card import reproduction
from hf_invertune.models.loading import load_model
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report.verify import verify_report


pytestmark = pytest.mark.usefixtures("drawn_once")


@pytest.fixture
def put(hub, tmp_path):
    """Puts a tower in a folder of a repository, and the model that it is judged in into another; gives its remover."""

    def put(kind):
        save_family(tmp_path / "whole", "CLIPModel")
        save_tower(tmp_path / "tower", kind, tmp_path / "whole")
        (tmp_path / "tower" / "chat_template.jinja").write_text("{{ messages }}")
        (tmp_path / "tower" / "training_args.bin").write_bytes(b"a pickle")
        for name, within in (("whole", ""), ("tower", "models/image_encoder/")):
            hub.put(f"org/{name}", {within + path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
        return BackdoorRemover.from_pretrained(
            "org/tower", subfolder="models/image_encoder", text_model="org/whole", device="cpu"
        )

    return put


@pytest.mark.parametrize(
    ("kind", "verdict", "task"),
    [
        ("CLIPVisionModelWithProjection", "clean", "image-feature-extraction"),
        ("LLaVA", "backdoored", "image-text-to-text"),
    ],
)
def test_pushed_and_pulled_as_what_it_was(put, tmp_path, kind, verdict, task):
    remover = put(kind)
    origin = remover.source.origin.tower
    assert (origin.text_model, len(origin.text_revision)) == ("org/whole", 40)
    result = remover.remove(pictures(32), CLASS_NAMES, config=removal_config(verdict))
    with pytest.raises(InputError, match="tower alone, so there is no adapter"):
        remover.push_to_hub("org/adapter", token=OWNER, force=True, adapter=True)
    remover.push_to_hub("org/clean", token=OWNER, force=True)
    pulled = load_model("org/clean", text_model="org/whole", device="cpu")
    assert pulled.digest() == result.report.sha256_after == remover.source.digest()
    assert (pulled.digest() == result.report.model.sha256) == (verdict == "clean")
    names = list_repo_files("org/clean")
    assert "chat_template.jinja" in names and "training_args.bin" not in names
    card = ModelCard.load(hf_hub_download("org/clean", "README.md"))
    assert validate(str(card)) == ([], []) and card.data.pipeline_tag == task
    assert f"the image tower of a {origin.architecture}, judged with the text tower of org/whole" in card.text
    scope = {}
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    exec(compile(code, "card", "exec"), scope)
    assert type(scope["model"]) is getattr(transformers, origin.architecture)
    remover.save_pretrained(tmp_path / "saved")
    old, new = stored(tmp_path / "tower"), stored(tmp_path / "saved")
    assert all(torch.equal(old[name], new[name]) for name in old if "encoder.layers" not in name)


def test_a_report_names_the_text_tower_and_is_verified_with_it(put, tmp_path):
    remover = put("CLIPVisionModel")
    result = remover.remove(pictures(32), CLASS_NAMES, config=removal_config("clean"))
    report = result.report
    report.data.source = "org/pictures"
    assert "org/tower --revision" in reproduction(report) and "--text-model org/whole" in reproduction(report)
    report.save(tmp_path / "audit")
    assert "judged with the text tower of org/whole" in (tmp_path / "audit" / "report.html").read_text()
    own = transformers.CLIPVisionModel.from_pretrained(tmp_path / "tower")
    for model in (remover.source, own):
        claims = {claim.name: claim for claim in verify_report(tmp_path / "audit", model)}
        assert claims["model"].holds and claims["readable"].holds
