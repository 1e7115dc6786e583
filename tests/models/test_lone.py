"""An image tower that is looked at without a text tower: its embeddings, what a scan says of it, and what it cannot do."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from jsonschema import Draft202012Validator
from lone_towers import KINDS, image_embeddings, save_tower
from tiny import CLASS_NAMES
from tiny_families import SIDE, pictures, save_family
from tiny_plan import pictures as drawn
from tiny_plan import removal_config, scan_config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from hf_invertune.answers.answer import Answer
from hf_invertune.answers.formats import render
from hf_invertune.errors import InputError
from hf_invertune.models.loading import load_model
from hf_invertune.remover import BackdoorRemover
from hf_invertune.report.report import AuditReport
from hf_invertune.report.verify import verify_report
from hf_invertune.stages.configs import Bars, GatheringConfig
from hf_invertune.stages.families import WindowFamily


LONE = [kind for kind in KINDS if "Siglip2" not in kind and kind != "LLaVA of SigLIP"]


def gathering(verdict="backdoored"):
    bars = {"backdoored": Bars(0.0, 0.0), "inconclusive": Bars(0.0, 1.0), "clean": Bars(1.0, 1.0)}[verdict]
    return GatheringConfig((WindowFamily(),), starts=2, steps=2, batch_size=2, bars={"window": bars})


def settings(verdict="backdoored"):
    return removal_config(scan=scan_config("clean", gathering=gathering(verdict)))


def facts(place):
    """All of a place but how it is called."""
    return place.family, place.trigger.digest(), place.concentration, place.nearest, place.direction.tolist()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of a tower, with an image processor, and of the model that it is like, made when first asked for."""
    made = tmp_path_factory.mktemp("towers")

    def get(kind):
        like = KINDS[kind][1]
        if not (made / like).exists():
            save_family(made / like, like)
        if not (made / kind).exists():
            save_tower(made / kind, kind, made / like)
            pictures(SiglipImageProcessorPil if "Siglip" in like else CLIPImageProcessorPil).save_pretrained(
                made / kind
            )
        return made / kind, made / like

    return get


@pytest.fixture(scope="module")
def remover(folders):
    return BackdoorRemover.from_pretrained(folders("CLIPVisionModelWithProjection")[0], device="cpu")


@pytest.fixture(scope="module", params=["backdoored", "inconclusive", "clean"])
def scan(request, remover):
    return remover.scan(drawn(16), config=settings(request.param)), request.param


@pytest.mark.parametrize("kind", LONE)
def test_it_embeds_as_its_class_does_and_is_saved_as_it_came(kind, folders, tmp_path):
    folder, whole = folders(kind)
    loaded = load_model(folder, device="cpu")
    pixels = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    inputs = {"pixel_values": loaded.encoder.pixel_values(pixels)}
    if "Projection" in kind or "Siglip" in kind:
        direct = image_embeddings(folder, kind, whole, inputs)
    else:
        made = getattr(transformers, KINDS[kind][0]).from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            pooled = getattr(getattr(made, "model", made), "vision_tower", made)(**inputs).pooler_output
        direct = torch.nn.functional.normalize(pooled, dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encoder.embed_images(pixels), direct, rtol=0, atol=1e-6)
    assert not loaded.encoder.reads_text
    assert loaded.digest() == load_model(folder, text_model=whole, device="cpu").digest()
    loaded.save_pretrained(tmp_path / "saved")
    assert {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_the_places_are_those_that_the_whole_model_has(remover, folders):
    """With its own projection it embeds in the space of texts, and without labels the search is the same."""
    folder, whole = folders("CLIPVisionModelWithProjection")
    beside = BackdoorRemover.from_pretrained(folder, text_model=whole, device="cpu")
    (alone,) = remover.scan(drawn(16), config=settings()).gatherings
    (labelled,) = beside.scan(drawn(16, labelled=False), CLASS_NAMES, config=settings()).gatherings
    assert (alone.label, alone.share) == (None, None) != (labelled.label, labelled.share)
    assert facts(alone) == facts(labelled)


def test_what_a_scan_says(scan, remover, tmp_path):
    found, verdict = scan
    assert (str(found.verdict), found.target, found.target_name, found.labelled) == (verdict, None, None, False)
    assert (found.class_names, found.templates, found.evidence, found.simulations) == ([], [], [], [])
    assert found.gatherings and found.chance(found.gatherings[0]) is None
    assert not found.inputs.data.labelled and found.inputs.model.architecture == "CLIPVisionModelWithProjection"
    report = AuditReport("scanned", found, config=settings(verdict))
    report.save(tmp_path / "audit")
    page = (tmp_path / "audit" / "report.html").read_text()
    assert "reads no names" in page and "one label" not in page and "read as" not in page
    claims = verify_report(tmp_path / "audit", remover.source)
    assert [claim for claim in claims if claim.holds is False] == []
    again = AuditReport.load(tmp_path / "audit").scan
    assert (again.labelled, *map(facts, again.gatherings)) == (False, *map(facts, found.gatherings))


def test_a_report_that_names_a_target_without_labels_is_forged(remover, tmp_path):
    found = remover.scan(drawn(16), config=settings())
    AuditReport("scanned", replace(found, templates=["a {}"]), config=settings()).save(tmp_path)
    (first, *_) = [claim for claim in verify_report(tmp_path) if claim.holds is False]
    assert "no class names, and a target, templates or a race of labels" in str(first)


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "sarif", "junit", "markdown"])
def test_every_format_says_that_no_labels_were_looked_at(form, remover):
    found = remover.scan(drawn(16), config=settings())
    text = render([Answer.of("some/tower", remover.source, found)], form)
    assert "None" not in text and "towards" not in text
    if form.startswith("json"):
        assert '"class_names": 0' in text and '"label": null' in text
    elif form == "sarif":
        assert "without labels" in text and "no label is known" in text
    else:
        assert "no labels were looked at" in text


def test_the_estimate_knows_that_nothing_is_raced(remover):
    estimate = remover.estimate(drawn(16), config=settings())
    assert estimate.least == estimate.most and (estimate.least.texts, estimate.pace.text) == (0, 0.0)
    assert estimate.least.learnt == 2 * 2 * 2


def test_labels_are_left_alone(remover):
    """Those of the pictures make no difference."""
    (one,) = remover.scan(drawn(16, labelled=False), config=settings()).gatherings
    (other,) = remover.scan(drawn(16), config=settings()).gatherings
    assert facts(one) == facts(other)


@pytest.mark.parametrize(
    "verb, given",
    [
        ("scan", {"class_names": CLASS_NAMES}),
        ("scan", {"templates": ["a {}"]}),
        ("scan", {"reference": "some/model"}),
        ("estimate", {"class_names": CLASS_NAMES}),
        ("invert", {"target": 0}),
        ("remove", {"force": True}),
        ("evaluate", {}),
        ("profile", {}),
    ],
)
def test_what_needs_names_asks_for_the_text_model(verb, given, remover):
    with pytest.raises(InputError, match="`text_model`: got none, and a CLIPVisionModelWithProjection reads no names"):
        getattr(remover, verb)(drawn(16), **given)


def test_names_that_were_asked_for_are_not_passed_over(remover):
    with pytest.raises(InputError, match="`text_model`: got none"):
        remover.scan(replace(drawn(16), labels=None), config=settings())


def test_a_scan_that_searches_nothing_is_refused(remover):
    config = removal_config(scan=scan_config(gathering=GatheringConfig(families=())))
    with pytest.raises(InputError, match=r"`scan.gathering.families`: got none"):
        remover.scan(drawn(16), config=config)


def test_a_scan_without_labels_is_no_start_for_a_removal(remover, folders):
    folder, whole = folders("CLIPVisionModelWithProjection")
    beside = BackdoorRemover.from_pretrained(folder, text_model=whole, device="cpu")
    scan = remover.scan(drawn(32), config=settings())
    with pytest.raises(InputError, match="`scan`: it was made with another text tower and other class names"):
        beside.remove(replace(drawn(32), labels=None), CLASS_NAMES, scan=scan, config=settings())


@pytest.mark.parametrize("kind", ["Siglip2VisionModel", "LLaVA of SigLIP"])
def test_a_tower_that_embeds_nothing_of_its_own_is_refused(kind, folders):
    with pytest.raises(InputError, match="`text_model`: got none, and the image tower of .* gives no embeddings"):
        load_model(folders(kind)[0], device="cpu")


def test_a_tower_is_no_text_model(folders):
    folder, _ = folders("CLIPVisionModel")
    with pytest.raises(
        InputError, match="`text_model`: .* is a CLIPVisionModel, and the image tower of .* one of a CLIPModel"
    ):
        load_model(folder, text_model=folder, device="cpu")


def test_without_an_image_processor_the_text_model_is_needed(folders, tmp_path):
    save_tower(tmp_path, "CLIPVisionModel", folders("CLIPVisionModel")[1])
    with pytest.raises(InputError, match="`processor`: .* or pass the `text_model` that it was trained in"):
        load_model(tmp_path, device="cpu")


def test_the_schema_knows_such_reports(remover, tmp_path, pytestconfig):
    found = remover.scan(drawn(16), config=settings())
    AuditReport("scanned", found, config=settings()).save(tmp_path)
    written = json.loads((tmp_path / "report.json").read_text())
    validator = Draft202012Validator(json.loads((pytestconfig.rootpath / "docs" / "report-schema.json").read_text()))
    assert list(validator.iter_errors(written)) == []
    written["scan"]["templates"] = ["a {}"]
    assert list(validator.iter_errors(written))
