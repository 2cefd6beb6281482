"""Single fields of an entry in ``data_manifest.json``, as anybody may have written them."""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from reprod.core.claims import LARGEST, Refused, shorten
from reprod.core.entry import display

_OCTAL = re.compile(r"(?:0o)?([0-7]{3,5})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_path(entry: Mapping[str, Any]) -> bytes:
    """Return the path of an entry: ``path_b64`` where there is one, and it must be shown as ``relative_path``."""
    shown = entry.get("relative_path")
    if not isinstance(shown, str):
        raise Refused("relative_path is no text")
    encoded = entry.get("path_b64")
    if encoded is None:
        try:
            return shown.encode()
        except UnicodeEncodeError:
            raise Refused("relative_path holds half a character (a lone surrogate)") from None
    if not isinstance(encoded, str):
        raise Refused("path_b64 is no text")
    try:
        path = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("path_b64 is not base64") from None
    if display(path) != shown:
        raise Refused(f"path_b64 is {shorten(display(path))}, but relative_path {shorten(shown)}")
    return path


def parse_mode(text: object) -> int | None:
    """Return permission bits written in octal; None for any other notation, because they are only reported."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise Refused("permissions is no text")
    found = _OCTAL.fullmatch(text)
    return int(found[1], 8) & 0o7777 if found else None


def parse_time_ns(text: object) -> int | None:
    """Return an RFC 3339 time; None for one without a zone, which nobody can compare, or beyond 1677 to 2262.

    Such a time is passed over rather than refused: file systems keep it, so our own manifests may have it.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise Refused("modified_time is no text")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        return None
    since = found - _EPOCH
    nanoseconds = (since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    return nanoseconds if abs(nanoseconds) <= LARGEST else None
