"""Access tokens of the Hub: they are looked at before they are used, and never shown."""

import re

from huggingface_hub import get_token

from ..errors import InputError


TOKEN = re.compile(r"\b(?:hf|api_org|sk|ghp|gho)_[A-Za-z0-9]{16,}")
"""What tokens of the Hub and of its kind look like."""


def usable_token(token: str | bool | None) -> str | bool | None:
    """`token` without the blanks around it, or None when nothing else was in it; what is no text comes back as it is.

    Raises:
        InputError: when it is none that a Hub gives: printable ASCII without blanks. It is not shown.
    """
    if not isinstance(token, str):
        return token
    stripped = token.strip()
    if any(not "!" <= character <= "~" for character in stripped):
        raise InputError(
            "`token`: it holds blanks, control characters or letters that are not ASCII, so it is no access token of the "
            "Hub; copy it anew from its page of tokens."
        )
    return stripped or None


def sent_token(token: str | bool | None) -> str | None:
    """What the client sends when it is given `token`: that, or the one that is logged in, or none.

    Raises:
        InputError: as [`usable_token`] does.
    """
    given = usable_token(token)
    try:
        sent = usable_token(get_token()) if given in (None, True) else given
    except UnicodeDecodeError as error:
        raise InputError("`token`: the stored one is no text; store it anew with `hf auth login`.") from error
    return sent if isinstance(sent, str) else None


def hidden(text: str, token: str | None) -> str:
    """`text` without `token` and whatever else looks like one."""
    text = text if token is None else text.replace(token, "<token>")
    return TOKEN.sub("<token>", text)


def hide_token(error: BaseException, token: str | None) -> None:
    """Take `token` out of what `error`, and all that led to it, say: of what a traceback shows."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop()
        seen.add(id(link))
        said = str(link)
        if hidden(said, token) != said:
            link.args = (hidden(said, token),)
        waiting += [e for e in (link.__cause__, link.__context__) if e is not None and id(e) not in seen]
