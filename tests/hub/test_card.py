import shlex

import pytest
from loopback_cards import validate
from reports import CASES, make_report

from hf_invertune.errors import InputError
from hf_invertune.hub.card import make_card, plain, reproduction
from hf_invertune.models.evaluation import Rate


def card(case="cleaned", labelled=True, adapter=False, **options):
    outcome, verdict = CASES[case]
    report = make_report(outcome, verdict, labelled=labelled)
    return make_card(report.published(), "me/clean-clip", adapter=adapter, **options)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("scanned")])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("adapter", [True, False])
def test_every_card_is_valid(hub, case, labelled, adapter):
    made = card(case, labelled, adapter)
    made.validate()
    assert validate(str(made)) == ([], [])
    assert "None" not in made.text and "{%" not in made.text and "\n\n\n" not in made.text


def test_metadata():
    data = card().data
    assert (data.base_model, data.base_model_relation) == ("org/suspicious-clip", "finetune")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "zero-shot-image-classification")
    assert {"hf_invertune", "clip", "backdoor-removal"} <= set(data.tags)
    assert data.license is None and data.datasets is None
    found = {(result.metric_type, result.metric_name): result for result in data.eval_results}
    assert found["accuracy", "Clean accuracy (CA), before cleaning"].metric_value == round(113 / 127, 6)
    rates = [
        found["attack_success_rate", f"Attack success rate (ASR), trigger inverted, masked, {when} cleaning"]
        for when in ("before", "after")
    ]
    assert [rate.metric_value for rate in rates] == [round(107 / 109, 6), round(1 / 109, 6)]
    assert {result.dataset_name for result in data.eval_results} == {"127 held-out pictures of pictures"}


def test_metadata_of_an_adapter_on_data_of_the_hub():
    report = make_report()
    report.model.license = {"license": "other", "license_name": "ours", "license_link": "LICENSE"}
    report.data.source, report.data.selection = "org/photos", {"split": "train", "revision": "ab" * 20}
    data = make_card(report, "me/adapter", adapter=True).data
    assert (data.library_name, data.base_model_relation, data.datasets) == ("peft", "adapter", "org/photos")
    assert (data.license, data.license_name, data.license_link) == ("other", "ours", "LICENSE")
    assert {(result.dataset_type, result.dataset_revision) for result in data.eval_results} == {
        ("org/photos", "ab" * 20)
    }
    data = make_card(report, "me/adapter", adapter=True, license="mit").data
    assert data.license == "mit" and "license_name" not in data.to_dict()


def test_a_local_base_is_not_named_as_one_of_the_hub():
    report = make_report()
    report.model.revision = None
    data = make_card(report, "me/clean-clip").data
    assert data.base_model is None and "base_model_relation" not in data.to_dict()


def test_what_the_page_says():
    text = card().text
    assert "from which a backdoor was removed" in text and "No trigger found is not proof of absence" in text
    assert "| Clean accuracy (CA) | 89.0 % (113/127; 82.3 to 93.3) | 89.0 % (113/127; 82.3 to 93.3) |" in text
    assert "Its pixels are not published" in text
    assert "Its pixels are not published" not in make_card(make_report().published(include_trigger=True), "a/b").text
    assert "Do not trust this model" in card("not cleaned").text
    for case in ("unchanged clean", "unchanged inconclusive"):
        assert "unchanged copy" in card(case).text and "removed" not in card(case).text
    assert 'PeftModel.from_pretrained(base, "me/clean-clip")' in card(adapter=True).text


def test_names_cannot_forge_the_page():
    names = ["a | b", "<script>", "**bold**", "# title\n\n## more", *map(str, range(5))]
    report = make_report(names=names)
    report.target_name = names[3]
    text = make_card(report, "me/clean-clip").text
    assert "\n## more" not in text and r"\# title \#\# more" in text
    assert plain("a | <b>\n*c*") == r"a \| \<b\> \*c\*"


def test_reproduction():
    report = make_report()
    report.data.source, report.data.selection = "org/photos", {"split": "train", "limit": 500, "seed": 3}
    report.scan.class_names[0] = "red 'o'"
    command = shlex.split(reproduction(report))
    assert command[:5] == ["hf-invertune", "remove", "org/suspicious-clip", "--revision", "ab" * 20]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert options["--images"] == "org/photos" and (options["--split"], options["--limit"]) == ("train", "500")
    assert options["--class-names"].split(",") == report.scan.class_names
    assert (options["--seed"], options["--max-steps"]) == ("0", "100") and "--target" not in options
    report.target, report.target_name = 0, "red 'o'"
    assert shlex.split(reproduction(report))[-6:-4] != ["--seed", "0"]
    assert "--target" in shlex.split(reproduction(report))
    report.data.source = "pictures in memory"
    assert reproduction(report) is None


def test_a_template_of_ones_own(tmp_path):
    template = tmp_path / "card.md"
    template.write_text("---\n{{ card_data }}\n---\n# {{ model_name }} towards {{ target | plain }}\n")
    made = card(template=template)
    assert made.text.strip() == "# clean-clip towards green square" and made.data.base_model == "org/suspicious-clip"


@pytest.mark.parametrize(
    ("text", "message"),
    [("{{ nonsense }}", "'nonsense' is undefined"), ("{% if %}", "Expected an expression"), (None, "No such file")],
)
def test_a_template_that_cannot_be_used(tmp_path, text, message):
    template = tmp_path / "card.md"
    if text is not None:
        template.write_text(text)
    with pytest.raises(InputError, match=f"`card_template`: .*card.md cannot be filled in .*{message}"):
        card(template=template)


def test_a_rate_without_images_is_not_measured():
    report = make_report()
    report.measurements[0].after.attack_success_rate = Rate(0, 0)
    assert "not measured" in make_card(report, "me/clean-clip").text
    assert all(result.metric_value == result.metric_value for result in make_card(report, "me/x").data.eval_results)
