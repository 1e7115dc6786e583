"""Answers as tables for a terminal."""

from collections.abc import Sequence

from rich.table import Table

from ..stages.calibration import by_chance
from ..utils.tables import as_text, make_table
from .answer import Answer, Part
from .words import origin, verdict_line


def to_table(answers: Sequence[Answer]) -> str:
    """The parts of each model's scan, and its verdict, which comes last; of several models all the verdicts at the end."""
    shown: list[Table | str] = []
    for answer in answers:
        shown += [answer.model] * (len(answers) > 1) + _one(answer)
    if len(answers) > 1:
        rows = [[answer.model, verdict_line(answer)] for answer in answers]
        shown.append(make_table("Verdicts", ["model", "verdict"], rows))
    return as_text(*shown)


def _one(answer: Answer) -> list[Table | str]:
    if answer.error is not None:
        return [verdict_line(answer)]
    shown: list[Table | str] = []
    titles = {"concentration": "Where triggers gather pictures", "lead": "The label easiest to reach"}
    for statistic, title in titles.items():
        rows = [_row(part) for part in answer.evidence if part.statistic == statistic]
        columns = ["trigger", "label", *["share"] * (statistic == "concentration"), statistic, "by chance", "verdict"]
        shown += [make_table(title, columns, rows)] if rows else []
    for one in answer.findings:
        accepted = "" if one.accepted is None else f"; accepted: {one.accepted}"
        shown.append(f"{one.rule} {one.fingerprint}: {one.family}, {one.label!r}{accepted}")
    said = origin(answer)
    return [*shown, answer.calibration, *[said] * bool(said), verdict_line(answer)]


def _row(part: Part) -> list[str]:
    share = [] if part.share is None else [f"{part.share:.2f}"]
    return [part.family, part.label, *share, f"{part.value:.2f}", by_chance(part.chance), part.verdict]
