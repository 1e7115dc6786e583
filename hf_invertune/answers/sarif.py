"""Answers as SARIF 2.1.0 (OASIS), such as code scanning takes."""

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..models.open_clip import CONFIG
from ..stages.verdict import Verdict
from ..utils.files import finite
from ..utils.project import root
from .answer import Answer, Finding
from .rules import RULES, Rule
from .words import BY_ID, searched, sentence, verdict_line


SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
CONFIGS = {"transformers": "config.json", "open_clip": CONFIG}
"""Where a finding is shown: a text that every model of the format has beside its weights."""
SEVERITY = {"error": "9.0", "warning": "5.0"}
"""What code scanning calls critical, and medium."""
FINDINGS = [rule.id for rule in RULES if rule.verdict]
REFUSALS = [rule.id for rule in RULES if not rule.verdict]
"""The rules in the order of the log, where results and notifications refer to them by their place."""


def to_sarif(answers: Sequence[Answer]) -> str:
    """One run, with a result for each finding and an invocation for each model; the same answers give the same text."""
    found = [(answer, finding) for answer in answers for finding in answer.findings]
    driver = {
        "name": "hf-invertune",
        "version": version("hf_invertune"),
        "informationUri": "https://arxiv.org/abs/2506.12411",
        "rules": [_descriptor(BY_ID[id]) for id in FINDINGS],
        "notifications": [_descriptor(BY_ID[id]) for id in REFUSALS],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(answer) for answer in answers],
        "results": [_result(answer, finding) for answer, finding in found],
    }
    return json.dumps(finite({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}), indent=2, allow_nan=False) + "\n"


def _descriptor(rule: Rule) -> dict[str, Any]:
    said = {"Evidence": rule.evidence, "What to do": rule.remedy}
    level = _level(rule)
    properties = (
        {"tags": ["security"], "security-severity": SEVERITY[level]} if rule.verdict else {"tags": ["security"]}
    )
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.meaning},
        "fullDescription": {"text": f"{rule.meaning} {rule.evidence}"},
        "help": {
            "text": " ".join([rule.meaning, *(f"{title}: {text}" for title, text in said.items())]),
            "markdown": "\n\n".join([rule.meaning, *(f"**{title}**: {text}" for title, text in said.items())]),
        },
        "defaultConfiguration": {"level": level},
        "properties": properties,
    }


def _level(rule: Rule) -> str:
    """That a model could not be scanned is an error of the run."""
    return "warning" if rule.verdict is Verdict.INCONCLUSIVE else "error"


def _result(answer: Answer, finding: Finding) -> dict[str, Any]:
    result = {
        "ruleId": finding.rule,
        "ruleIndex": FINDINGS.index(finding.rule),
        "level": _level(BY_ID[finding.rule]),
        "message": {"text": f"{answer.model}: {sentence(finding)} {searched(answer)}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": place(answer)}, "region": {"startLine": 1}}}],
        "fingerprints": {"hf-invertune/v1": finding.fingerprint},
        "partialFingerprints": {"primaryLocationLineHash": f"{finding.fingerprint}:1"},  # the one that GitHub reads
        "properties": {
            "model": answer.model,
            "revision": answer.source.get("revision"),
            "family": finding.family,
            "label": finding.label,
            finding.statistic: finding.value,
            "bar": finding.bar,
        },
    }
    if finding.accepted is not None:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": finding.accepted}]
    return result


def _invocation(answer: Answer) -> dict[str, Any]:
    invocation: dict[str, Any] = {
        "executionSuccessful": answer.error is None,
        "exitCode": answer.exit_code,
        "properties": {"model": answer.model, "verdict": answer.verdict},
    }
    if answer.error is not None:
        rule = answer.rule
        invocation["toolExecutionNotifications"] = [
            {
                "descriptor": {"id": rule.id, "index": REFUSALS.index(rule.id)},
                "level": _level(rule),
                "message": {"text": f"{answer.model}: {verdict_line(answer)}"},
            }
        ]
    return invocation


def place(answer: Answer) -> str:
    """The URI of the model's settings: from the repository's root, or of a model on the Hub, its id and the file.

    Code scanning shows results at relative URIs alone, so that of the Hub is no address; a folder outside the repository
    has one with the scheme `file`.
    """
    file = CONFIGS[answer.source["format"]]
    inside = [part for part in (answer.source.get("subfolder"), file) if part]
    if answer.source["revision"] is not None:
        return quote("/".join([answer.source["name"], *inside]))
    path = Path(os.path.abspath(Path(answer.model, *inside)))
    return quote(os.fsencode(path.relative_to(root()).as_posix())) if path.is_relative_to(root()) else path.as_uri()
