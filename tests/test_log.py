"""The daemon's log: one object a line or words for a person, without secrets, whatever happens to standard error."""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from reprod.log import _Forward, configure, get_logger


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


def test_a_terminal_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the line is for people, secrets masked as well."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure(stream)
    get_logger().warning("mlflow_unreachable", uri="http://me:hunter2@h")
    assert "mlflow_unreachable" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert "hunter2" not in stream.getvalue()


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
