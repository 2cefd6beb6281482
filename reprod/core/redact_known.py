"""Owns which values a process's variables and settings say are secrets: what ``Redactor`` is told to take out.

A variable is one by its name, or holds one (an address with a password, a header). What is found is held in memory and
never shown. Pure: who has the variables passes them. Standard library only.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from reprod.core.redact import Redactor, is_secret, secrets_in
from reprod.core.redact_url import TOKEN_LENGTH
from reprod.core.redact_values import is_random


def redact_known(text: str, environ: Mapping[str, str]) -> str:
    """Return ``text`` without any secret that it shows or that these variables hold: what is told of a failure.

    It looks at the variables anew each time (1 ms for a hundred), since who fails may have set one since its start.
    """
    return Redactor(tuple(secrets_of_variables(environ))).text(text)


def secrets_of_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets that a process with these variables is known to hold."""
    for name, value in environ.items():
        if is_secret(name, value):
            yield value
        yield from secrets_of_text(value)


def secrets_of_text(text: str) -> Iterator[str]:
    """Yield the secrets that the rules of the redaction find in a text, as written and without percent escapes."""
    for found in secrets_in(text):
        secret = _of_user(found[:-1]) if found.endswith("@") else found
        yield secret
        yield unquote(secret)


def _of_user(user: str) -> str:
    """Return the secret part of ``user:password``: an account is found in paths and reports and must stay there."""
    name, colon, password = user.rpartition("@")[2].partition(":")
    if colon and password not in {"", "x-oauth-basic", "x-access-token"}:
        return password
    return name if len(name) >= TOKEN_LENGTH or colon or is_random(name) else ""
