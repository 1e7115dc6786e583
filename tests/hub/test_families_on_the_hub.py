"""Families other than CLIP from the Hub and back, and what their cards say of how they are used."""

import pytest
from family_checks import EXACT, check_on_the_hub
from reports import make_report
from tiny_families import FAMILIES

from hf_invertune.hub.card import make_card, reproduction
from hf_invertune.models.clip import ChineseCLIPEncoder


pytestmark = pytest.mark.usefixtures("drawn_once")


@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["SiglipModel", "CLIPSegForImageSegmentation"])
def test_pushed_pulled_and_used_by_its_card(hub, tmp_path, name):
    figures = check_on_the_hub(hub, tmp_path, name)
    assert figures["pulled_equal"] and figures["cards_valid"] and figures["cards_run"] <= EXACT


def card_of(name, **options):
    report = make_report()
    report.model.architecture = name
    return make_card(report.published(), "me/clean", **options)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("adapter", [True, False])
def test_a_card_names_the_classes(name, adapter):
    card, processor = card_of(name, adapter=adapter), FAMILIES[name][0]
    piped = (
        not adapter
        and "Siglip" not in name
        and name not in ("CLIPSegForImageSegmentation", "VisionTextDualEncoderModel")
    )
    assert (f"from transformers import {name}, {processor}" in card.text) != piped
    assert ("import pipeline" in card.text) == piped
    assert ('"padding": "max_length"' in card.text) == ("Siglip" in name)
    task = "image-segmentation" if "Segmentation" in name else "zero-shot-image-classification"
    assert card.data.pipeline_tag == task
    assert ("clip" in card.data.tags) == (name == "CLIPModel")


def test_the_command_names_no_templates_where_they_are_the_familys():
    report = make_report()
    assert "--templates" not in reproduction(report)
    report.model.architecture = "ChineseCLIPModel"
    assert "--templates" in reproduction(report)
    report.scan.templates = list(ChineseCLIPEncoder.templates)
    assert "--templates" not in reproduction(report)
