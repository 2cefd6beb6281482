"""Owns where a distribution came from if not from an index: the known fields of its ``direct_url.json``.

Only values of the form that they must have come out, and addresses without their credentials. The file's fields are
those of the direct URL specification (PEP 610).
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from reprod.capture.bounded import read_bounded
from reprod.core.redact import redact_url

DIRECT_URL_BYTES = 1 << 16

_URL = re.compile(r"[a-z][a-z0-9+.-]{1,30}://[^\x00-\x20\x7f]{1,2048}\Z", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SUBDIRECTORY = re.compile(r"[^\x00-\x1f\x7f]{1,512}\Z")
_VCS = frozenset({"git", "hg", "bzr", "svn"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where an installer fetched or built from; all fields are empty for what came from an index."""

    url: str | None = None
    commit: str | None = None
    editable: bool = False
    vcs: str | None = None
    subdirectory: str | None = None
    archive_sha256: str | None = None


#: Of what came from an index.
NO_SOURCE = Source()


def read_source(record_fd: int) -> Source:
    """Return what ``direct_url.json`` in the open directory ``record_fd`` says; NO_SOURCE if there is none.

    Raises OSError when it is not readable and ValueError with the reason when it has no address.
    """
    try:
        data = read_bounded("direct_url.json", DIRECT_URL_BYTES, dir_fd=record_fd)
    except FileNotFoundError:
        return NO_SOURCE
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    url = _matched(value, "url", _URL) if isinstance(value, dict) else None
    if url is None:
        raise ValueError("no valid url")
    vcs, archive = _object(value, "vcs_info"), _object(value, "archive_info")
    kind = vcs.get("vcs")
    return Source(
        url=redact_url(url),
        commit=_matched(vcs, "commit_id", _COMMIT),
        editable=_object(value, "dir_info").get("editable") is True,
        vcs=kind if isinstance(kind, str) and kind in _VCS else None,
        subdirectory=_matched(value, "subdirectory", _SUBDIRECTORY),
        archive_sha256=_archive_sha256(archive),
    )


def _archive_sha256(archive: dict[str, Any]) -> str | None:
    """Return the checksum in its present form, else in the one that older installers wrote: ``sha256=...``."""
    known = _matched(_object(archive, "hashes"), "sha256", _SHA256)
    old = archive.get("hash")
    if known is None and isinstance(old, str) and old.startswith("sha256="):
        known = old.removeprefix("sha256=") if _SHA256.match(old.removeprefix("sha256=")) else None
    return known


def _object(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _matched(value: dict[str, Any], key: str, form: re.Pattern[str]) -> str | None:
    found = value.get(key)
    return found if isinstance(found, str) and form.match(found) else None
