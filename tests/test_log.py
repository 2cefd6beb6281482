"""The daemon's log: one object a line or words for a person, without secrets, whatever happens to standard error."""

import io
import json
import logging
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
