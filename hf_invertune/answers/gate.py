"""How a command ends that has answers about any number of models."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from ..errors import ExitCode
from ..stages.verdict import Verdict
from .answer import Answer
from .words import BY_ID


FailOn: TypeAlias = Literal["backdoored", "inconclusive", "never"]
"""The mildest finding that a command fails on."""

ORDER = (
    ExitCode.BACKDOORED,
    ExitCode.FAILED,
    ExitCode.HUB_FAILED,
    ExitCode.WRONG_INPUT,
    ExitCode.CANNOT_JUDGE,
    ExitCode.INCONCLUSIVE,
    ExitCode.OK,
)
"""What counts of several models, the gravest first: of one that was not scanned less is known than of an inconclusive one."""


def exit_code(answers: Sequence[Answer], fail_on: FailOn = "inconclusive") -> ExitCode:
    """The gravest exit code of all answers.

    Args:
        answers (`Sequence[Answer]`): at least one.
        fail_on (`str`): milder findings than this count as none. A model that was not scanned counts always.
    """
    return min((_code(answer, fail_on) for answer in answers), key=ORDER.index)


def _code(answer: Answer, fail_on: FailOn) -> ExitCode:
    if answer.error is not None:
        return next(code for code in ExitCode if code == answer.exit_code)
    verdicts = {BY_ID[one.rule].verdict for one in answer.open_findings}
    if Verdict.BACKDOORED in verdicts and fail_on != "never":
        return ExitCode.BACKDOORED
    if Verdict.INCONCLUSIVE in verdicts and fail_on == "inconclusive":
        return ExitCode.INCONCLUSIVE
    return ExitCode.OK
