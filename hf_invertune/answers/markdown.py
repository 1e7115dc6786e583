"""Answers as Markdown, for the summary of a job or a comment."""

from collections.abc import Sequence

from ..utils.markdown import markdown_table, plain
from .answer import Answer
from .words import BY_ID, origin, searched, sentence, verdict_line


def to_markdown(answers: Sequence[Answer]) -> str:
    """A table of the models, and of each what was found, on what search, and what to do."""
    rows = [[plain(answer.model), plain(verdict_line(answer)), _counted(answer)] for answer in answers]
    table = markdown_table(["model", "verdict", "findings"], rows)
    return "\n\n".join(["## hf-invertune scan", table, *map(_one, answers)]) + "\n"


def _counted(answer: Answer) -> str:
    accepted = len(answer.findings) - len(answer.open_findings)
    return f"{len(answer.findings)}{f', {accepted} accepted' if accepted else ''}"


def _one(answer: Answer) -> str:
    parts = [f"### {plain(answer.model)}", f"**{plain(verdict_line(answer))}**"]
    if answer.error is not None:
        return "\n\n".join([*parts, f"{answer.rule.id}: {answer.rule.remedy}"])
    lines = []
    for one in answer.findings:
        mark = "" if one.accepted is None else f"**accepted**: {plain(one.accepted)}. "
        lines.append(f"- {one.rule}: {mark}{plain(sentence(one))} Fingerprint `{one.fingerprint}`.")
    remedies = dict.fromkeys(BY_ID[one.rule].remedy for one in answer.open_findings)
    parts += ["\n".join(lines)] * bool(lines) + list(remedies)
    said = [plain(text) for text in (searched(answer), origin(answer)) if text]
    return "\n\n".join([*parts, *said])
