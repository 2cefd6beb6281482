"""Addresses of tracking servers: which are of this host, whether two lead to the same server, and its key."""

import hashlib
from urllib.parse import urlsplit

#: No proxy can reach these.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

#: Who asks this address asks its own host.
_ANY = "0.0.0.0"  # noqa: S104 - compared, not listened on

_PORTS = {"http": 80, "https": 443}


def same_server(one: str, other: str) -> bool:
    """Whether two URIs lead to the same server, as far as their text tells; users and passwords say nothing."""
    return _normal(one) == _normal(other)


def server_key(uri: str) -> str:
    """Return what stands for a tracking server in databases: its address without the user and password that lead in.

    So a changed password makes no other server. Where an address holds a secret elsewhere, its hash tells servers apart
    that look alike without it.
    """
    from reprod.core.redact import redact_url  # a training process, which only compares, is spared these 5 ms
    from reprod.core.redact_values import MASK

    shown = redact_url(uri)
    if MASK not in shown:
        return shown
    parts = urlsplit(uri)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return f"{shown}#{hashlib.sha256(bare.encode()).hexdigest()[:16]}"


def _normal(uri: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(uri.strip())
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    try:
        port = parts.port or _PORTS.get(scheme)
    except ValueError:
        port = None
    return scheme, "loopback" if host in LOOPBACK or host == _ANY else host, port, parts.path.rstrip("/")
