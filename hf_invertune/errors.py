"""The errors that a user can do something about: wrong input, and a Hub that does not do what it was asked."""


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
