"""Ports for servers that tests start: nobody else is given one between being chosen and being listened on."""

import socket

#: Bound and never listened on, for as long as this process lives: the kernel gives a port that is bound to no other
#: socket by itself, and a server that says SO_REUSEADDR, as all do that are started here, may listen on it.
_held: list[socket.socket] = []


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of ``host`` that refuses connections until somebody listens there. Raises OSError without IPv6."""
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    _held.append(held)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, 0))
    return int(held.getsockname()[1])
