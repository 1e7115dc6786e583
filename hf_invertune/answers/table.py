"""Answers as tables for a terminal."""

from collections.abc import Sequence

from rich.table import Table

from ..stages.calibration import by_chance
from ..utils.tables import as_text, make_table
from .answer import Answer, Finding, Part
from .words import origin, verdict_line


COLUMNS = ("model", "verdict", "what was found", "stands out by")


def to_table(answers: Sequence[Answer]) -> str:
    """The parts of a model's scan, and its verdict, which comes last; of several models a row each."""
    if len(answers) == 1:
        return as_text(*_one(answers[0]))
    lines = [_line(answer) for answer in answers]
    used = [place for place in range(len(COLUMNS)) if any(line[place] for line in lines)]
    rows = [[line[place] for place in used] for line in lines]
    table = make_table(f"{len(answers)} models", [COLUMNS[place] for place in used], rows)
    return as_text(table, *dict.fromkeys(answer.calibration for answer in answers))


def _line(answer: Answer) -> list[str]:
    found = [f"{one.rule} {one.family}, {one.label!r}{accepted(one)}" for one in answer.findings]
    out = [f"{one.family} {one.statistic} {one.value:.2f} (z {one.z:.0f})" for one in answer.stands_out]
    return [answer.model, verdict_line(answer), "\n".join(found), "\n".join(out)]


def _one(answer: Answer) -> list[Table | str]:
    if answer.error is not None:
        return [verdict_line(answer)]
    shown: list[Table | str] = []
    titles = {"concentration": "Where triggers gather pictures", "lead": "The label easiest to reach"}
    for statistic, title in titles.items():
        rows = [_row(part) for part in answer.evidence if part.statistic == statistic]
        labelled = bool(answer.class_names)
        columns = ["trigger", *["label"] * labelled, *["share"] * (labelled and statistic == "concentration")]
        columns += [statistic, "by chance", "verdict"]
        shown += [make_table(title, columns, rows)] if rows else []
    for one in answer.findings:
        label = "" if one.label is None else f", {one.label!r}"
        shown.append(f"{one.rule} {one.fingerprint}: {one.family}{label}{accepted(one)}")
    said = origin(answer)
    return [*shown, answer.calibration, *[said] * bool(said), verdict_line(answer)]


def accepted(finding: Finding) -> str:
    """That a finding is accepted, where it is."""
    return "" if finding.accepted is None else f"; accepted: {finding.accepted}"


def _row(part: Part) -> list[str]:
    label = [] if part.label is None else [part.label]
    share = [] if part.share is None else [f"{part.share:.2f}"]
    return [part.family, *label, *share, f"{part.value:.2f}", by_chance(part.chance), part.verdict]
