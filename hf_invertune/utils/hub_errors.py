"""What the Hub's client raises, as one `InputError` or `HubError` that says what to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from huggingface_hub import constants, is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from ..errors import HubError, InputError
from .tokens import hide_token, sent_token


ADVICE = {
    404: "it may just have been changed; look at its page and try again",
    409: "somebody else is changing it; try again",
    412: "somebody else has changed it meanwhile; try again",
    429: "it had too many requests; wait {wait}, then try again",
}


@contextmanager
def hub_errors(
    name: str,
    *,
    argument: str,
    kind: Literal["model", "dataset"] = "model",
    action: Literal["read", "write"] = "read",
    revision: str | None = None,
    token: str | bool | None = None,
) -> Iterator[None]:
    """While the client works on the `kind` called `name`: its errors become ours, others pass; none shows the token.

    Args:
        name: id of the repository.
        argument: the argument that gave it, for the message.
        revision: the revision asked for.
        token: what the client is given.

    Raises:
        InputError: no such repository or revision, a token that has not the right or is none, or offline mode.
        HubError: anything else that the Hub or the connection to it did.
    """
    outer, sent = sys.exception(), None
    try:
        sent = sent_token(token)
        yield
    except Exception as error:
        hide_token(error, sent)
        cause = _cause(error, outer)
        if cause is None:
            raise
        failure = _translated(cause, name, argument, kind, action, revision)
        hide_token(failure, sent)  # the Hub may have said it
        raise failure from error


def _cause(error: BaseException, outer: BaseException | None) -> Exception | None:
    """What went wrong at the Hub, in the chain of errors that led to this one; the client wraps it variously.

    The chain ends before an error that was being handled anyway: `outer`, or that an optional file is not there.
    """
    if not isinstance(error, (httpx.TransportError, OSError, ValueError, RuntimeError)):
        return None
    chain: list[BaseException] = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        if following is outer or isinstance(following, RemoteEntryNotFoundError):
            break
        chain.append(following)
    for kinds in _KINDS:
        for link in chain:
            if isinstance(link, kinds):
                return link
    # the client says so of a file that has not its size, without the number that errors of the disk have
    return next((link for link in chain if type(link) is OSError and "Consistency check failed" in str(link)), None)


_KINDS = (
    (HfHubHTTPError, HFValidationError),
    (OfflineModeIsEnabled,),
    (httpx.TransportError, ConnectionError, LocalEntryNotFoundError),
)


def _translated(
    error: Exception, name: str, argument: str, kind: str, action: str, revision: str | None
) -> InputError | HubError:
    if isinstance(error, GatedRepoError):
        return InputError(f"`{argument}`: {name} is gated; ask for access on its page and pass `token`.")
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"`revision`: {name} has no revision {revision!r}.")
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        found = f"neither a folder here nor a {kind}" if action == "read" else f"no {kind}"
        return InputError(
            f"`{argument}`: {name} is {found} on the Hub that this token may {action}; check the name, and pass "
            "`token` if it is private."
        )
    if not isinstance(error, HfHubHTTPError) and is_offline_mode():
        here = f"{name} is no folder here, and " if action == "read" else ""
        return InputError(
            f"`{argument}`: {here}the Hub cannot be reached in offline mode; unset HF_HUB_OFFLINE to {action} it there."
        )
    if not isinstance(error, HfHubHTTPError):
        broke = f"the connection to {constants.ENDPOINT} broke on the way to {name}"
        return HubError(f"`{argument}`: {broke} ({error}); check it and try again.")
    status = error.response.status_code
    said = error.server_message or error.response.reason_phrase
    if status == 401:
        page = f"{constants.ENDPOINT}/settings/tokens"
        return InputError(f"`token`: the Hub does not accept it (401: {said}); make another at {page}.")
    if status == 403:
        return InputError(f"`token`: it may not {action} {name} (403: {said}); pass one that has the right.")
    advice = ADVICE.get(status, "the Hub is at fault; try again later" if status >= 500 else "see what it said")
    seconds = error.response.headers.get("Retry-After")
    advice = advice.format(wait="a few minutes" if seconds is None else f"{seconds} seconds")
    return HubError(f"The Hub did not let us {action} {name} ({status}: {said}); {advice}.", status)
