"""Findings that somebody has looked at and accepts for a while, each with a reason and an end date."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from ..errors import InputError
from ..utils.settings import load_file, read
from .answer import Answer, Finding


@dataclass(frozen=True)
class Acceptance:
    """One accepted finding, which later runs may have again.

    Attributes:
        fingerprint (`str`): that of the [`Finding`].
        reason (`str`): why it is accepted.
        until (`date`): the last day on which it is.
    """

    fingerprint: str
    reason: str
    until: date


@dataclass(frozen=True)
class _Content:
    accepted: list[Acceptance]


@dataclass(frozen=True)
class Baseline:
    """The accepted findings, by fingerprint.

    Attributes:
        accepted (`dict[str, Acceptance]`): all of them, whether their time is over or not.
    """

    accepted: dict[str, Acceptance] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path, argument: str = "baseline") -> "Baseline":
        """Read a .toml, .json or .yaml file: a list `accepted` of entries with `fingerprint`, `reason` and `until`.

        Raises:
            InputError: a file that cannot be read; an entry without a reason or an end date, with an unknown key, with what
                is no fingerprint, or one that is there twice.
        """
        value = load_file(path, argument)
        entries = value.get("accepted") if isinstance(value, dict) else None
        for place, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, dict) and isinstance(entry.get("until"), str):  # JSON has no dates
                entry["until"] = _date(entry["until"], f"accepted[{place}].until", argument)
        accepted: dict[str, Acceptance] = {}
        for place, one in enumerate(read(_Content, value, argument=argument).accepted):
            if not re.fullmatch("[0-9a-f]{32}", one.fingerprint):
                raise InputError(
                    f"`{argument}`: accepted[{place}].fingerprint is {one.fingerprint!r}; copy the 32 hex digits that the "
                    "scan prints."
                )
            if not one.reason.strip():
                raise InputError(f"`{argument}`: accepted[{place}].reason is empty; say why the finding is accepted.")
            if one.fingerprint in accepted:
                raise InputError(f"`{argument}`: {one.fingerprint} is accepted twice; leave one of the entries.")
            accepted[one.fingerprint] = one
        return cls(accepted)

    def mark(self, answer: Answer, today: date) -> Answer:
        """The same answer with each finding marked that is accepted `today`; its verdict and exit code stay."""
        return replace(answer, findings=[self._marked(one, today) for one in answer.findings])

    def expired(self, answers: Sequence[Answer], today: date) -> Iterator[str]:
        """Which findings of `answers` count again, since the time of their acceptance was over `today`, in a line each."""
        for one in (finding for answer in answers for finding in answer.findings):
            was = self.accepted.get(one.fingerprint)
            if was is not None and was.until < today:
                yield f"{one.fingerprint} ({one.rule}) was accepted until {was.until}, and counts again: {was.reason}"

    def _marked(self, finding: Finding, today: date) -> Finding:
        one = self.accepted.get(finding.fingerprint)
        if one is None or one.until < today:
            return finding
        return replace(finding, accepted=f"{' '.join(one.reason.split())}, until {one.until.isoformat()}")


def _date(text: str, path: str, argument: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"`{argument}`: {path} is {text!r}; it must be a day, such as 2027-01-31.") from error
