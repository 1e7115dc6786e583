import shlex

import pytest
from loopback_cards import validate
from reports import CASES, make_report
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.cli.options import Source
from hf_invertune.data.defaults import default_vocabulary
from hf_invertune.errors import InputError
from hf_invertune.hub.card import changes, make_card, reproduction
from hf_invertune.models.evaluation import Rate
from hf_invertune.stages.configs import Bars, InversionConfig, RemovalConfig, ScanConfig, TuningConfig
from hf_invertune.stages.families import AdditiveFamily, BlendFamily, MaskedFamily
from hf_invertune.stages.verdict import Verdict
from hf_invertune.utils.markdown import plain


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
    for outcome, what in (("reduced", "only reduced it"), ("not cleaned", "did not reach the bar")):
        text = card(outcome).text
        assert "Do not trust this model" in text and f"the attempt to remove it {what}." in text
    for case in ("unchanged clean", "unchanged inconclusive"):
        assert "unchanged copy" in card(case).text and "removed" not in card(case).text
    assert 'PeftModel.from_pretrained(base, "me/clean-clip")' in card(adapter=True).text


def test_names_cannot_forge_the_page():
    names = ["a | b", "<script>", "**bold**", "# title\n\n## more", *map(str, range(5))]
    report = make_report(names=names)
    report.removal.target = 3
    text = make_card(report, "me/clean-clip").text
    assert "\n## more" not in text and r"\# title \#\# more" in text
    for name in ("a\n```\n# title", "a`b"):
        report.scan.class_names[3] = report.data.source = name
        assert reproduction(report) is None and "\n# title" not in make_card(report, "me/clean-clip").text
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
    assert "--target" not in options and "--set" not in options  # the settings are the standard ones
    report.removal.target = 0
    command = shlex.split(reproduction(report))
    assert command[command.index("--target") + 1] == "red 'o'"
    report.data.source = "pictures in memory"
    assert reproduction(report) is None


def test_a_model_that_was_cleaned_by_force_is_cleaned_by_its_target():
    """The scan alone would leave it as it came."""
    report = make_report()
    report.data.source, report.scan.verdict = "org/photos", Verdict.INCONCLUSIVE
    assert "--target 'green square'" in reproduction(report)


def test_prompts_and_pictures_of_ones_own():
    report = make_report()
    report.data.source, report.scan.templates = "org/photos", ["a sketch of a {}"]
    report.data.selection = {"config": "small", "split": "train", "folder_classes": False}
    command = reproduction(report)
    assert "--images org/photos:small --no-folder-classes" in command and "--templates templates.txt" in command


def test_what_comes_by_default_is_not_named():
    report = make_report(labelled=False)
    report.data.source = "org/photos"
    report.scan.class_names, report.scan.templates = map(list, default_vocabulary())
    command = reproduction(report)
    assert "--class-names" not in command and "--templates" not in command


SETTINGS = {
    "the standard ones": RemovalConfig(),
    "single values": RemovalConfig(
        inversion=InversionConfig(learning_rate=1e-5),
        tuning=TuningConfig(lora_layers="0,2", lora_modules=["q_proj", "v_proj"], lr_scheduler_type="linear"),
        seed=7,
    ),
    "a range and bars": RemovalConfig(
        ScanConfig(steps=(5, 6), bars={"masked": Bars(1, 2), "additive": Bars(1.25, 3), "blend": Bars(1, 2)})
    ),
    "settings of a family": RemovalConfig(ScanConfig((MaskedFamily(mask_weight=500.0), AdditiveFamily(epsilon=1e-4)))),
    "one family": RemovalConfig(ScanConfig((AdditiveFamily(0.05),))),
    "families in another order": RemovalConfig(ScanConfig((AdditiveFamily(), MaskedFamily()))),
    "bars of one family": RemovalConfig(ScanConfig((MaskedFamily(),), bars={"masked": Bars(0.5, 0.6)})),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_the_command_line_takes_the_settings_of_the_card(case, monkeypatch, tmp_path):
    report, config, taken = make_report(), SETTINGS[case], []
    report.data.source, report.config = "org/photos", config
    settings = Source.settings

    def load(source, seed, target=None):
        taken.append((settings(source), seed))
        raise InputError("enough")

    monkeypatch.setattr(Source, "load", load)
    command = shlex.split(reproduction(report))
    assert ("--set" in command) == (config != RemovalConfig())
    done = CliRunner().invoke(cli.app, [*command[1:-1], str(tmp_path / "out")])
    assert (done.exit_code, done.stderr) == (2, "error: enough\n")
    assert taken == [(config, config.seed)]


def test_only_what_differs_is_named():
    config = RemovalConfig(ScanConfig((MaskedFamily(mask_weight=500.0), AdditiveFamily(), BlendFamily())), seed=3)
    standard = RemovalConfig().plain()
    assert dict(changes(config.plain(), standard)) == {"scan.families.masked.mask_weight": 500.0, "seed": 3}
    one = RemovalConfig(ScanConfig((MaskedFamily(),)))
    assert dict(changes(one.plain(), standard)) == {"scan.families": [MaskedFamily().plain()]}


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
