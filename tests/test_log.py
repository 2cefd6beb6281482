"""The daemon's log: one object a line, fields in the journal or words for a person; without secrets, whatever happens
to standard error and to the journal."""

import base64
import io
import json
import logging
import os
import pty
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog
from leak import find_leaks

from reprod.log import STALL_MS, _Forward, configure, get_logger


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _undo() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_without_secrets() -> None:
    """Each line is an object with time, level and event; secrets are masked in every place, tracebacks too."""
    stream = io.StringIO()
    configure(stream)
    log = get_logger(dataset="x")
    log.info("mlflow_unreachable", uri="http://me:hunter2@h:5000", more=["http://me:hunter2@h"], path=Path("/p"))
    try:
        raise RuntimeError("GET http://me:hunter2@h failed")
    except RuntimeError:
        log.exception("dataset_failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert list(first)[:3] == ["timestamp", "level", "event"]
    assert first["event"] == "mlflow_unreachable"
    assert first["level"] == "info"
    assert first["dataset"] == "x"
    assert first["path"] == "/p"
    assert first["timestamp"].endswith("Z")
    assert "Traceback" in second["exception"]
    assert "hunter2" not in stream.getvalue()


def test_no_line_holds_a_secret_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable says is secret, or whoever configures the log, is in no line: as it is, in a header, quoted, as a
    key, in a traceback; of any shape, for nothing but the variable tells that these words are a password."""
    password, credential = "correct horse battery", "tr0ub4dor/three"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    stream = io.StringIO()
    configure(stream, [credential])
    log = get_logger()
    login = base64.b64encode(f"me:{password}".encode()).decode()
    log.warning("x", said=f"401 for {password}", header=login, several={password: [credential, quote(password)]})
    try:
        raise RuntimeError(f"cannot ask with {credential}")
    except RuntimeError:
        logging.getLogger("urllib3").exception("retried with %s", password)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert find_leaks({"variable": password, "given": credential}, blobs={"log": stream.getvalue()}) == []
    assert (first["said"], first["several"]) == ("401 for ***", {"***": ["***", "***"]})
    assert "RuntimeError: cannot ask with ***" in second["exception"]


def test_no_value_takes_long() -> None:
    """A megabyte without a blank is left out, whatever it would hide; other long values come whole, and soon."""
    stream = io.StringIO()
    configure(stream)
    began = time.thread_time()
    get_logger().info("x", a="-" * 1_000_000, b="word " * 100_000, c="short http://me:hunter2@h/" + "x" * 5000 + " end")
    assert time.thread_time() - began < 10
    line = json.loads(stream.getvalue())
    assert line["a"] == "(a word of 1000000 characters)"
    assert line["b"] == "word " * 100_000
    assert line["c"] == "short (a word of 5020 characters) end"


def test_a_terminal_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the line is for people, secrets masked as well."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure(stream)
    get_logger().warning("mlflow_unreachable", uri="http://me:hunter2@h")
    assert "mlflow_unreachable" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert "hunter2" not in stream.getvalue()


def test_a_terminal_shows_lines_as_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback and a dump of stacks stand below their event, line by line; what is in them acts on nothing."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure(stream)
    get_logger().error("daemon.bug", traceback="Traceback:\n  File \x1b[2J\n", dump="thread a\n  File b", of=2)
    first, *rest = stream.getvalue().splitlines()
    assert "daemon.bug" in first
    assert "of=2" in first
    assert [line for line in rest if line] == ["Traceback:", "  File \\x1b[2J", "thread a", "  File b"]


def test_other_libraries_and_a_closed_stream() -> None:
    """Records of logging come out the same way; a closed stream is survived; configuring twice doubles nothing."""
    stream = io.StringIO()
    configure(io.StringIO())
    configure(stream)
    logging.getLogger("watchfiles").warning("slow %s", "disk")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == "slow disk"
    assert json.loads(line)["logger"] == "watchfiles"
    record = logging.LogRecord("watchfiles", logging.WARNING, "x.py", 1, "wrong %d", ("text",), None)
    _Forward().emit(record)
    assert "wrong %d" in stream.getvalue().splitlines()[1]
    stream.close()
    get_logger().error("nobody_reads")


LOGGED = r"""
from reprod import log
log.configure()
name = 'a\x1b[2J\x1b]0;x\x07b\r\x9b31m\u202ec\udcff'
log.get_logger(dataset=name).warning(name, path=name, several=[name], more={name: name})
try:
    raise RuntimeError(name)
except RuntimeError:
    log.get_logger().exception("dataset_failed")
import logging
logging.getLogger(name).warning("%s", name)
"""


@pytest.mark.parametrize("colour", [True, False])
def test_no_value_acts_on_a_terminal(colour: bool) -> None:
    """A name with escape sequences reaches a terminal as text, in every place where an event may hold one."""
    parent, child = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    environment = {**kept, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **({} if colour else {"NO_COLOR": "1"})}
    process = subprocess.Popen([sys.executable, "-c", LOGGED], env=environment, stdin=child, stdout=child, stderr=child)
    os.close(child)
    received = b""
    try:
        while chunk := os.read(parent, 65536):
            received += chunk
    except OSError:  # EIO: the other side is closed
        pass
    os.close(parent)
    assert process.wait(30) == 0, received
    shown = received.decode()
    assert ("\x1b[" in shown) is colour, "ours are there"
    plain = re.sub(r"\x1b\[\d*m", "", shown).replace("\r\n", "\n")
    assert set(plain) - {"\n"} == {character for character in plain if character.isprintable()}
    assert plain.count("a\\x1b[2J\\x1b]0;x\\x07b\\r\\x9b31m\\u202ec") >= 7
    assert "Traceback (most recent call last):\n  File " in plain


class Journald:
    """What the journal was sent, from a real socket; read by the description of the protocol in test_journal."""

    def __init__(self, base: Path) -> None:
        self.path = base / "socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(30)

    def receive(self) -> dict[str, bytes]:
        return dict(fields(self.socket.recv(1 << 20)))

    def drain(self) -> list[dict[str, bytes]]:
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.receive())
        except BlockingIOError:
            return found


def fields(record: bytes) -> Iterator[tuple[str, bytes]]:
    while record:
        first, _, record = record.partition(b"\n")
        name, equals, value = first.partition(b"=")
        if not equals:
            size = int.from_bytes(record[:8], "little")
            value, record = record[8 : 8 + size], record[9 + size :]
        yield name.decode(), value


@pytest.fixture
def journal_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Configure logging as under systemd, standard error being a file that is taken for the journal's stream."""
    file = (tmp_path / "stderr").open("w")
    seen = os.fstat(file.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{seen.st_dev}:{seen.st_ino}")
    monkeypatch.setattr("reprod.journal.SOCKET", str(tmp_path / "socket"))
    configure(file)
    yield tmp_path / "stderr"
    file.close()


@pytest.fixture
def journald(journal_stream: Path) -> Iterator[Journald]:
    made = Journald(journal_stream.parent)
    yield made
    made.socket.close()


def test_the_journal_gets_fields(journald: Journald, journal_stream: Path) -> None:
    """An event is one record: a sentence, a priority, who we are, and each of its keys; standard error gets nothing."""
    log = get_logger(dataset="imagenet")
    log.error("dataset.failed", error="/data is not mounted", hint="mount it", files=3, names=["a", "b"], none=None)
    assert journald.receive() == {
        "MESSAGE": b'dataset.failed imagenet: /data is not mounted files=3 names=["a", "b"] (hint: mount it)',
        "PRIORITY": b"3",
        "SYSLOG_IDENTIFIER": b"reprod",
        "REPROD_EVENT": b"dataset.failed",
        "REPROD_DATASET": b"imagenet",
        "REPROD_ERROR": b"/data is not mounted",
        "REPROD_HINT": b"mount it",
        "REPROD_FILES": b"3",
        "REPROD_NAMES": b'["a", "b"]',
    }
    for level, priority in (("info", b"6"), ("warning", b"4"), ("error", b"3"), ("critical", b"2")):
        getattr(log, level)("x")
        assert journald.receive()["PRIORITY"] == priority
    logging.getLogger("watchfiles").warning("slow %s", "disk")
    assert journald.receive()["REPROD_LOGGER"] == b"watchfiles"
    assert journal_stream.read_text() == ""


def test_a_traceback_is_one_record_without_secrets_and_escapes(journald: Journald) -> None:
    """34: all lines of a traceback are in one record, also in its sentence; secrets are masked in every field, and the
    sentence acts on no terminal and cannot be broken into two."""
    try:
        raise RuntimeError("GET http://me:hunter2@h/\x1b[2J failed\nPRIORITY=0")
    except RuntimeError:
        get_logger().exception("daemon.bug", name="a\x1b[2J\nPRIORITY=0", uri="http://me:hunter2@h")
    found = journald.receive()
    assert found["PRIORITY"] == b"3"
    assert found["REPROD_EXCEPTION"].startswith(b"Traceback (most recent call last):\n  File ")
    assert b"hunter2" not in b"".join(found.values())
    message = found["MESSAGE"].decode()
    assert "name=a\\x1b[2J\\nPRIORITY=0" in message.splitlines()[0]
    assert "Traceback (most recent call last):" in message.splitlines()
    assert all(character.isprintable() for line in message.split("\n") for character in line)
    assert found["REPROD_NAME"] == b"a\x1b[2J\nPRIORITY=0", "a field is exact"


def test_without_a_journal_standard_error_gets_the_line(journal_stream: Path) -> None:
    """Where the journal's socket cannot be reached (a changed root) nothing is lost: lines, with their priority."""
    get_logger().error("dataset.failed", dataset="x")
    get_logger().info("dataset.refreshed", dataset="x")
    lines = journal_stream.read_text().splitlines()
    assert [line[:3] for line in lines] == ["<3>", "<6>"]
    assert json.loads(lines[0][3:])["dataset"] == "x"


def test_a_full_journal_holds_nobody_up(journald: Journald) -> None:
    """The first record waits a moment, the others not at all; when there is room again the next says what was lost."""
    count, began = 2000, time.monotonic()
    for number in range(count):
        get_logger().info("x", number=number)
    assert time.monotonic() - began < count / 2 * STALL_MS / 1000
    arrived = journald.drain()
    assert 0 < len(arrived) < count
    assert "REPROD_LINES_LOST" not in arrived[-1]
    get_logger().info("again")
    (again,) = journald.drain()
    assert int(again["REPROD_LINES_LOST"]) == count - len(arrived)
