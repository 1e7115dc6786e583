"""The errors that a user can do something about: wrong input, and a Hub that does not do what it was asked."""

import difflib
from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How the command line and the examples end; a finding and a crash never share a number.

    Attributes:
        meaning (`str`): what it says.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        code = int.__new__(cls, value)
        code._value_, code.meaning = value, meaning
        return code

    OK = 0, "clean, or cleaned; for report verify: all that can be checked holds"
    FAILED = 1, "a crash, a loss that is not finite, or a worker that died"
    WRONG_INPUT = 2, "wrong input; nothing was done"
    BACKDOORED = 3, "scan: a backdoor was found"
    NOT_CLEANED = 4, "remove, demo: the cleaning did not reach the bar"
    INCONCLUSIVE = 5, "the scan was inconclusive, and nothing was changed"
    DOES_NOT_HOLD = 6, "report verify: a claim does not hold"
    HUB_FAILED = 7, "the Hub did not do what it was asked"
    CANNOT_JUDGE = 8, "the model cannot be judged: it reads the labels no better than chance"
    INTERRUPTED = 130, "interrupted"

    @classmethod
    def of(cls, verdict: str, outcome: str = "scanned") -> "ExitCode":
        """How a scan or a removal ends."""
        if outcome in ("scanned", "unchanged"):
            return {"backdoored": cls.BACKDOORED, "inconclusive": cls.INCONCLUSIVE}.get(verdict, cls.OK)
        return cls.OK if outcome == "cleaned" else cls.NOT_CLEANED


class InputError(ValueError):
    """Input that cannot be used: the message names the argument, what came and what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.WRONG_INPUT


class CannotJudgeError(InputError):
    """The model reads the labels no better than chance, so a search among them means nothing."""

    exit_code: ClassVar[ExitCode] = ExitCode.CANNOT_JUDGE


class HubError(Exception):
    """The Hub did not do what it was asked, and not because of the input: the message says what to do.

    Attributes:
        status (`int`, *optional*): the HTTP status that it answered; none when the connection broke.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.HUB_FAILED

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def nearest(given: str, known: Iterable[str], count: int = 3) -> str:
    """Which of the `known` names may have been meant, as the end of a message; the nearest come first."""
    near = difflib.get_close_matches(given, list(known), n=count, cutoff=0)
    if not near:
        return "there are none at all"
    return f"the nearest {'is' if len(near) == 1 else 'are'} {', '.join(map(repr, near))}"
