"""What an unexpected exception is for a person: one error that says so, without what a library may have put into it."""

import os

from reprod.core.redact_known import redact_known
from reprod.errors import ReprodError


def bug(unexpected: BaseException) -> ReprodError:
    """Return the error to show. The text of an exception may hold an address with a password, or a variable's value."""
    what = redact_known(f"unexpected {type(unexpected).__name__}: {unexpected}", os.environ)
    return ReprodError(what, hint="this is a bug; report it")
