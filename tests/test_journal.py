"""Records to the journal: what is sent to a real datagram socket, and what no state of that socket can do to us.

That real journald takes them is shown in tests/systemd/test_service_journal.py.
"""

import array
import errno
import fcntl
import gc
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprod import journal as journals
from reprod.journal import CUT_BYTES, Journal, encode, field_name, is_journal


def decode(record: bytes) -> dict[str, bytes]:
    """Read a record as systemd documents it (journald's native protocol), independently of reprod."""
    fields = {}
    while record:
        first, _, record = record.partition(b"\n")
        name, equals, value = first.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", record[:8])
            value, end, record = record[8 : 8 + size], record[8 + size : 9 + size], record[9 + size :]
            assert end == b"\n"
        fields[name.decode()] = value
    return fields


class Journald:
    """A journal's socket that keeps what comes until it is asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener: socket.socket | None = None
        self.begin()

    def begin(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(str(self.path))
        self._listener.settimeout(30)

    def end(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self.path.unlink()
            self._listener = None

    def receive(self) -> tuple[dict[str, bytes], bool]:
        """Return the next record, and whether it came as a file."""
        assert self._listener is not None
        data, ancillary, _, _ = self._listener.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if data:
            return decode(data), False
        ((_, kind, sent),) = ancillary
        assert kind == socket.SCM_RIGHTS
        (descriptor,) = array.array("i", sent)
        with os.fdopen(descriptor, "rb") as file:
            seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
            assert seals & fcntl.F_SEAL_WRITE
            assert seals & fcntl.F_SEAL_GROW
            assert seals & fcntl.F_SEAL_SHRINK
            file.seek(0)
            return decode(file.read()), True


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    made = Journald(tmp_path / "socket")
    yield made
    made.end()


@pytest.fixture
def journal(journald: Journald) -> Iterator[Journal]:
    made = Journal(str(journald.path))
    yield made
    made.close()


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text()))
def test_fields_come_back_as_they_were(fields: dict[str, str]) -> None:
    """Whatever a value holds, line breaks and what looks like a field included, is that field's value alone."""
    assert decode(encode(fields)) == {k: v.encode("utf-8", "backslashreplace") for k, v in fields.items()}


def test_a_name_is_one_that_journald_takes() -> None:
    """Keys become capitals, digits and underscores, at most 64 of them; others would be dropped with their value."""
    assert field_name("dataset", "REPROD_") == "REPROD_DATASET"
    assert field_name("a-b.c ü=\n", "REPROD_") == "REPROD_A_B_C____"
    assert len(field_name("x" * 100, "REPROD_")) == 64


def test_a_record_arrives(journald: Journald, journal: Journal) -> None:
    """A record is one datagram, and a value of several lines is one value."""
    assert journal.send({"MESSAGE": "a\nPRIORITY=0\nb", "PRIORITY": "6", "EMPTY": ""}, 0) == "sent"
    assert journald.receive() == ({"MESSAGE": b"a\nPRIORITY=0\nb", "PRIORITY": b"6", "EMPTY": b""}, False)


def test_a_long_record_goes_as_a_sealed_file(journald: Journald, journal: Journal) -> None:
    """What no datagram takes arrives whole, in a file in memory that nobody can change any more; none stays open."""
    gc.collect()  # what earlier tests left open
    before = len(os.listdir("/proc/self/fd"))
    assert journal.send({"MESSAGE": "x" * 3_000_000, "PRIORITY": "3"}, 0) == "sent"
    fields, as_file = journald.receive()
    assert (len(fields["MESSAGE"]), fields["PRIORITY"], as_file) == (3_000_000, b"3", True)
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "the connection"


def test_where_no_file_may_be_made_a_long_record_is_cut(
    journald: Journald, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox that refuses a memfd gets the beginnings of long values, which say that they were cut."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "refused")

    monkeypatch.setattr(journals.os, "memfd_create", refuse)
    assert journal.send({"MESSAGE": "x" * 3_000_000, "PRIORITY": "3"}, 0) == "sent"
    fields, as_file = journald.receive()
    assert fields["MESSAGE"] == b"x" * CUT_BYTES + b"... (cut, 3000000 characters)"
    assert (fields["PRIORITY"], as_file) == (b"3", False)


def test_a_full_journal_costs_what_it_may_and_no_more(journald: Journald, journal: Journal) -> None:
    """When the queue is full a record waits for as long as it may, long ones too; then there is room again."""
    while journal.send({"MESSAGE": "x"}, 0) == "sent":
        pass
    assert journal.is_ready() is False
    for text in ("x", "x" * 3_000_000):
        began = time.monotonic()
        assert journal.send({"MESSAGE": text}, 100) == "full"
        assert 0.05 < time.monotonic() - began < 30
    used = time.thread_time()
    assert journal.send({"MESSAGE": "x"}, 500) == "full"
    assert time.thread_time() - used < 0.25, "it sleeps while it waits"
    journald.receive()
    assert journal.is_ready() is True
    assert journal.send({"MESSAGE": "y"}, 0) == "sent"


def test_a_journal_that_goes_and_comes_back(journald: Journald, journal: Journal) -> None:
    """Without a journal a record is "gone", and nothing is raised; one that is there again gets the next record."""
    assert journal.send({"MESSAGE": "before"}, 0) == "sent"
    journald.end()
    assert journal.send({"MESSAGE": "lost"}, 0) == "gone"
    assert journal.is_ready() is False
    journald.begin()
    assert journal.send({"MESSAGE": "after"}, 0) == "sent"
    assert journald.receive()[0] == {"MESSAGE": b"after"}
    journald.end()
    journald.begin()  # between two records
    assert journal.send({"MESSAGE": "again"}, 0) == "sent"
    assert journald.receive()[0] == {"MESSAGE": b"again"}


def test_only_what_systemd_has_connected_is_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JOURNAL_STREAM names device and inode; another file, a closed one or no such variable is none."""
    with (tmp_path / "a").open("wb") as file, (tmp_path / "b").open("wb") as other:
        seen = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{seen.st_dev}:{seen.st_ino}")
        assert is_journal(file.fileno()) is True
        assert is_journal(other.fileno()) is False
        closed = other.fileno()
    assert is_journal(closed) is False
    with (tmp_path / "a").open("rb") as file:
        monkeypatch.delenv("JOURNAL_STREAM")
        assert is_journal(file.fileno()) is False
