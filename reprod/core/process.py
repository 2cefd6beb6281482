"""Owns the identity of a process: what names one process of one machine for ever.

A pid alone is used again; (boot id, pid, start ticks) is not within one pid namespace, and containers that start
together do have the same ones. A context that comes from a tag or a socket is data: it selects a live process, which is
then checked, and never names a file to open. Start ticks are clock ticks since boot, as field 22 of ``/proc/PID/stat``
counts them.

Layouts: ``v`` 1 and every later one that still has these fields is understood, with or without more of them. What is
not understood is no context and never an error: then the run does not say which process it is.
"""

import json
import re
from dataclasses import dataclass
from typing import TypeGuard

#: A tag holds 8000 characters at most on MLflow; a path 4096. Anything longer is not ours.
MAX_TEXT = 8000
MAX_PATH = 4096

_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """Who a process is. ``v`` is the layout's version, ``prefix`` its ``sys.prefix`` (a claim, to be checked).

    ``pid_ns`` is the inode of its pid namespace; not every kernel says it.
    """

    v: int
    host: str
    boot_id: str
    pid: int
    start_ticks: int
    prefix: str
    pid_ns: int | None = None

    @property
    def key(self) -> str:
        """Return ``boot_id:pid:start_ticks:pid_ns``, unique for ever; where the namespace is not known, with the host.

        That is the second choice: containers may share its name, and it may change while a process runs.
        """
        where = f"@{self.host}" if self.pid_ns is None else str(self.pid_ns)
        return f"{self.boot_id}:{self.pid}:{self.start_ticks}:{where}"

    def to_object(self) -> dict[str, str | int]:
        """Return the fields that are known as a plain mapping."""
        fields: dict[str, str | int] = {
            "v": self.v,
            "host": self.host,
            "boot_id": self.boot_id,
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "prefix": self.prefix,
        }
        return fields if self.pid_ns is None else {**fields, "pid_ns": self.pid_ns}

    def to_json(self) -> str:
        """Return the value of the tag ``reprod.context``: one line of ASCII JSON."""
        return json.dumps(self.to_object(), separators=(",", ":"))

    @staticmethod
    def parse(text: str) -> "ProcessContext | None":
        """Return the context that ``text`` (a tag) holds, or None if it is not one; unknown keys are left out."""
        if len(text) > MAX_TEXT:
            return None
        try:
            return ProcessContext.from_object(json.loads(text))
        except (ValueError, RecursionError):
            return None

    @staticmethod
    def from_object(value: object) -> "ProcessContext | None":
        """Return the context in a decoded JSON value, or None if a field is missing or is not what it must be."""
        if not isinstance(value, dict):
            return None
        v, pid, ticks = value.get("v"), value.get("pid"), value.get("start_ticks")
        host, boot_id, prefix = value.get("host"), value.get("boot_id"), value.get("prefix")
        if not (_is_count(v, 1) and _is_count(pid, 1) and _is_count(ticks, 0)):
            return None
        if not (_is_plain(host, 255) and _is_plain(prefix, MAX_PATH) and prefix.startswith("/")):
            return None
        if not (isinstance(boot_id, str) and _BOOT_ID.match(boot_id)):
            return None
        pid_ns = value.get("pid_ns")
        if not (pid_ns is None or _is_count(pid_ns, 1)):
            return None
        return ProcessContext(v, host, boot_id, pid, ticks, prefix, pid_ns)


def _is_count(value: object, least: int) -> TypeGuard[int]:
    return type(value) is int and least <= value < 2**63


def _is_plain(value: object, longest: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= longest and not any(c < " " or c == "\x7f" for c in value)
