"""One record to systemd's journal, by its native protocol: a datagram of fields, each with any bytes.

Owns that protocol in the standard library. Rule: whatever the journal does (slow, full, restarting, away), a record
costs its sender at most the time that it allows, and raises nothing. A record that is too long for a datagram goes as a
sealed memfd, as journald's own library sends it; where that is refused, its values are cut, and say so. Sizes are
bytes, times milliseconds.
"""

import array
import errno
import fcntl
import os
import re
import select
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Literal

SOCKET = "/run/systemd/journal/socket"

#: "full": it took too long, "gone": there is no journal to send to.
Outcome = Literal["sent", "full", "gone"]

#: A cut record is a datagram of any system: 20 fields of this fit into the smallest send buffer (208 KiB) twice.
CUT_BYTES = 4096

_LONGEST_NAME = 64  # journald drops a field whose name is longer, or has other letters than these
_NO_NAME = re.compile(r"[^A-Z0-9_]")
_TOO_LONG = {errno.EMSGSIZE, errno.ENOBUFS}
_FULL = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR}


def is_journal(descriptor: int) -> bool:
    """Return whether systemd has connected this descriptor (standard error) with the journal."""
    try:
        seen = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{seen.st_dev}:{seen.st_ino}"


def field_name(key: str, prefix: str = "") -> str:
    """Return a key as the journal writes names: in capitals, digits and ``_``, and not too long."""
    return (prefix + _NO_NAME.sub("_", key.upper()))[:_LONGEST_NAME]


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the record. A value with a line break is preceded by its length, so that none can begin a field."""
    parts = []
    for name, text in fields.items():
        key, value = name.encode("ascii"), text.encode("utf-8", "backslashreplace")
        parts.append(
            b"%s\n%s%s\n" % (key, struct.pack("<Q", len(value)), value) if b"\n" in value else b"%s=%s\n" % (key, value)
        )
    return b"".join(parts)


class Journal:
    """Sends records; connected anew when the journal was. Not for two threads at once."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address or SOCKET
        self._channel: socket.socket | None = None

    def send(self, fields: Mapping[str, str], wait_ms: int) -> Outcome:
        """Send a record, waiting at most ``wait_ms`` for room in the journal's queue."""
        for _ in range(2):  # the second for a journal whose socket was made anew
            try:
                return self._send(fields, wait_ms)
            except OSError:
                self.close()
        return "gone"

    def is_ready(self) -> bool:
        """Return whether a record could be sent now."""
        try:
            return self._has_room(self._connected(), 0)
        except OSError:
            return False

    def close(self) -> None:
        """Let the connection go; the next record makes another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _send(self, fields: Mapping[str, str], wait_ms: int) -> Outcome:
        """Send a record. Raises OSError for anything but a full queue."""
        channel = self._connected()
        if not self._has_room(channel, wait_ms):
            return "full"
        record = encode(fields)
        try:
            channel.send(record)
        except OSError as error:
            if error.errno in _FULL:
                return "full"
            if error.errno not in _TOO_LONG:
                raise
            return self._send_long(channel, fields, record)
        return "sent"

    def _send_long(self, channel: socket.socket, fields: Mapping[str, str], record: bytes) -> Outcome:
        try:
            try:
                _send_file(channel, record)
            except OSError as error:
                if error.errno in _FULL:
                    return "full"
                channel.send(encode({name: _cut(text) for name, text in fields.items()}))
        except OSError as error:
            if error.errno in _FULL | _TOO_LONG:
                return "full"
            raise
        return "sent"

    def _connected(self) -> socket.socket:
        """Return the socket. Connected, it can be waited for: of a journal that is full it is not writable."""
        if self._channel is None:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            try:
                channel.connect(self._address)
            except OSError:
                channel.close()
                raise
            self._channel = channel
        return self._channel

    @staticmethod
    def _has_room(channel: socket.socket, wait_ms: int) -> bool:
        ready = select.poll()
        ready.register(channel, select.POLLOUT)
        return bool(ready.poll(wait_ms))


def _send_file(channel: socket.socket, record: bytes) -> None:
    """Hand over a sealed file in memory instead of a datagram; journald takes no other from an ordinary user."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "no memfd")
    descriptor = os.memfd_create("reprod-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(record)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(
            descriptor,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL,
        )
        channel.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
    finally:
        os.close(descriptor)


def _cut(text: str) -> str:
    return text if len(text) <= CUT_BYTES else f"{text[:CUT_BYTES]}... (cut, {len(text)} characters)"
