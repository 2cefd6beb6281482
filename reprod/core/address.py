"""Addresses of tracking servers: which hosts are this one, and whether two spellings lead to the same server."""

from urllib.parse import urlsplit

#: No proxy can reach these.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

#: Who asks this address asks its own host.
_ANY = "0.0.0.0"  # noqa: S104 - compared, not listened on

_PORTS = {"http": 80, "https": 443}


def same_server(one: str, other: str) -> bool:
    """Whether two URIs lead to the same server, as far as their text tells; users and passwords say nothing."""
    return _normal(one) == _normal(other)


def _normal(uri: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(uri.strip())
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    try:
        port = parts.port or _PORTS.get(scheme)
    except ValueError:
        port = None
    return scheme, "loopback" if host in LOOPBACK or host == _ANY else host, port, parts.path.rstrip("/")
