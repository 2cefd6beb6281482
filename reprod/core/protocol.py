"""What the two ends of the control socket must agree on, and what is said where they do not.

``hello`` is what a daemon says of itself: ``protocol`` and ``version``, ``restart`` (the command that restarts it, if
the service manager started it), ``pid``; ``own`` is the version of who asks. Rule: the protocol rises when something
that was there changes its meaning, not when something is added: an older client works with a newer daemon for what both
know, and the other way round.
"""

from collections.abc import Mapping
from typing import Any

from reprod.errors import VersionsDifferError

#: What this program speaks.
PROTOCOL = 1

#: The lowest protocol of a daemon whose answers this program understands.
OLDEST = 1

#: No daemon speaks a lower one: as long as that is understood, nobody need ask.
FIRST = 1

#: Bytes of a line without its end. 64 KiB of the worst JSON hold the daemon's loop for 8 ms (measured); 1 MiB held it
#: for 127 ms, 8 MiB for 1.5 s with 320 MiB. The longest of what is asked, a path and a list of datasets, has 8 KB each.
MAX_LINE = 1 << 16

#: That of a handover alone: an environment of some 10,000 packages. Its text is passed on as it is, and read in a
#: thread.
MAX_HANDOVER = 8 << 20

TOO_OLD = "speaks what is not understood here any more"


def longest(method: str) -> int:
    """Return how many bytes a request of ``method`` may have, without the end of its line."""
    return MAX_HANDOVER if method == "handover" else MAX_LINE


def is_too_old(hello: Mapping[str, Any]) -> bool:
    """Return whether a daemon that says this of itself speaks a protocol whose answers are not understood here."""
    spoken = hello.get("protocol")
    return type(spoken) is int and spoken < OLDEST


def is_other(hello: Mapping[str, Any], own: str) -> bool:
    """Return whether a daemon says that it is of another version."""
    return hello.get("version") not in {None, own}


def too_old(hello: Mapping[str, Any], own: str) -> VersionsDifferError:
    """Return the error for a daemon that ``is_too_old``."""
    return differ(hello, TOO_OLD, own)


def differ(hello: Mapping[str, Any], why: str, own: str) -> VersionsDifferError:
    """Return the error that says which version the daemon is, which one this is, and what to do about it."""
    version = hello.get("version")
    named = f"reprod {version}" if isinstance(version, str) and version else "another version of reprod"
    return VersionsDifferError(f"the daemon is {named} and {why}; this is reprod {own}", hint=_cure(hello, own))


def _cure(hello: Mapping[str, Any], own: str) -> str:
    version, here = _numbers(hello.get("version")), _numbers(own)
    if version > here:
        return "upgrade this reprod, or use the one that the daemon runs with"
    why = "it was started before reprod was changed: " if version == here else ""
    restart, pid = hello.get("restart"), hello.get("pid")
    if isinstance(restart, str) and restart:
        return f"{why}restart it: {restart}"
    end = f"kill {pid}" if type(pid) is int else "end it"
    by_hand = f"{end}, and start it again as it was started: reprod daemon"
    if "restart" in hello:
        return f"{why}restart it: {by_hand}"
    service = "systemctl restart reprod, or systemctl --user restart reprod"
    return f"{why}restart it: {service}; if it is no service: {by_hand}"


def _numbers(version: object) -> list[int]:
    """Return the numbers of a version in order, to tell which of two is newer."""
    digits = "".join(c if c.isdecimal() and c.isascii() else " " for c in str(version or ""))
    return [int(number) for number in digits.split()][:3]
