"""The rules are what the document says, and stay what they were."""

import re
from pathlib import Path

import pytest

from hf_invertune.answers.answer import rule_of
from hf_invertune.answers.baseline import Baseline
from hf_invertune.answers.rules import RULES
from hf_invertune.cli.project import ProjectFile
from hf_invertune.stages.configs import RemovalConfig
from hf_invertune.stages.verdict import Verdict


DOCS = Path(__file__).parents[2] / "docs"


def test_an_id_keeps_its_meaning():
    """New rules are added here; those that are here stay."""
    assert {rule.id: rule.name for rule in RULES} == {
        "HFI001": "backdoor-gathering",
        "HFI002": "backdoor-label",
        "HFI003": "suspicious-gathering",
        "HFI004": "suspicious-label",
        "HFI101": "cannot-be-judged",
        "HFI102": "not-scanned",
    }
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("verdict", [Verdict.BACKDOORED, Verdict.INCONCLUSIVE])
@pytest.mark.parametrize("gathered", [True, False])
def test_every_part_that_is_not_judged_clean_has_one_rule(verdict, gathered):
    assert [rule for rule in RULES if (rule.verdict, rule.gathered) == (verdict, gathered)] == [
        rule_of(verdict, gathered)
    ]


def test_the_files_that_the_document_shows_can_be_read(tmp_path, monkeypatch):
    baseline, options = re.findall(r"```toml\n(.*?)```", (DOCS / "formats.md").read_text(), re.DOTALL)
    (tmp_path / "accepted.toml").write_text(baseline)
    assert len(Baseline.load(tmp_path / "accepted.toml").accepted) == 1
    (tmp_path / "hf-invertune.toml").write_text(options)
    monkeypatch.chdir(tmp_path)
    project = ProjectFile.find()
    assert project.options["fail-on"] == "backdoored"
    assert RemovalConfig.of(project.settings).scan.restarts == 3
