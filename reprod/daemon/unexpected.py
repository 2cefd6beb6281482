"""What an unexpected exception is for a person: one error that says so, without what a library may have put into it."""

from reprod.core.redact import redact_text
from reprod.errors import ReprodError


def bug(unexpected: BaseException) -> ReprodError:
    """Return the error to show. The text of an exception may hold an address with a password."""
    what = redact_text(f"unexpected {type(unexpected).__name__}: {unexpected}")
    return ReprodError(what, hint="this is a bug; report it")
