"""The one error type for input that cannot be used."""


class InputError(ValueError):
    """Input that cannot be used: the message names the argument, what came and what to do. Exit code 2 of the CLI."""
