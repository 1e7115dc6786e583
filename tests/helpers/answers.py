"""Answers of made-up scans."""

from dataclasses import replace
from types import SimpleNamespace

import torch
from reports import make_report

from hf_invertune.answers.answer import Answer
from hf_invertune.errors import CannotJudgeError, InputError
from hf_invertune.models.fetching import HubScan, Origin
from hf_invertune.stages.gathering import Gathering
from hf_invertune.stages.verdict import Verdict


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_place(scan, concentration, label=1):
    """A window place of that concentration."""
    return Gathering("window", scan.evidence[0].candidates[0].trigger, concentration, label, 0.75, 0.2, torch.ones(4))


def make_answer(verdict=Verdict.BACKDOORED, model="org/clip", names=None, concentrations=(), revision=COMMIT, **where):
    """The answer of one model, on the Hub unless `revision` is `None`; the lower bar of its places is 0.7."""
    scan = make_report("scanned", verdict, **({"names": names} if names else {})).scan
    scan = replace(scan, gatherings=[make_place(scan, one) for one in concentrations])
    source = SimpleNamespace(name=model.rsplit("/", 1)[-1], revision=None, format="transformers", origin=Origin())
    if revision is not None:
        origin = Origin(pull_request="refs/pr/1", hub_scan=HubScan(True, {"a.bin": "unsafe"}), **where)
        source = SimpleNamespace(name=model, revision=revision, format="transformers", origin=origin)
    return Answer.of(model, source, scan)


def make_answers():
    """One of each kind."""
    return [
        make_answer(concentrations=(0.9, 0.8, 0.72)),
        make_answer(Verdict.INCONCLUSIVE, "org/unsure"),
        make_answer(Verdict.CLEAN, "models/clean one", revision=None),
        Answer.failed("org/nowhere", InputError("`model`: org/nowhere is no\nmodel on the Hub.")),
        Answer.failed("org/dumb", CannotJudgeError("`class_names`: the model reads them no better than chance.")),
    ]
