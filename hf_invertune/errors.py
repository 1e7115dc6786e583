"""The errors that a user can do something about: wrong input, and a Hub that does not do what it was asked."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: the message names the argument, what came and what to do. Exit code 2 of the CLI."""


class HubError(Exception):
    """The Hub did not do what it was asked, and not because of the input: the message says what to do.

    Attributes:
        status (`int`, *optional*): the HTTP status that it answered; none when the connection broke.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def nearest(given: str, known: Iterable[str], count: int = 3) -> str:
    """Which of the `known` names may have been meant, as the end of a message; the nearest come first."""
    near = difflib.get_close_matches(given, list(known), n=count, cutoff=0)
    if not near:
        return "there are none at all"
    return f"the nearest {'is' if len(near) == 1 else 'are'} {', '.join(map(repr, near))}"
