"""The daemon's log: to systemd's journal with fields, to a terminal for people, else one JSON object a line.

All of it goes where standard error goes. Rule: every string of an event, a traceback included, passes a ``Redactor``
that knows the secrets in this process's variables before it is written (law 10); no string acts on a terminal, as a
file name with an escape sequence would (JSON escapes by itself); and no state of standard error or of the journal
(closed, full, a reader that went away) may stop or kill the daemon: a line that nobody takes is dropped, and the next
one that gets through says how many were (``lines_lost``). Records of other libraries that use ``logging`` come out the
same way. Times are RFC 3339 UTC.
"""

import io
import json
import logging
import os
import re
import select
import sys
import threading
from collections.abc import Collection
from typing import Any, TextIO, cast

import structlog

from reprod.core.redact import Redactor
from reprod.core.redact_known import secrets_of_variables
from reprod.journal import Journal, field_name, is_journal

#: How long a line waits for a reader that was there a moment ago; while none is, no line waits.
STALL_MS = 100

#: No path is longer, and what is takes long to search for secrets (16 KB of one letter: 0.2 s): it is left out whole.
LONGEST_WORD = 4096

#: Values that are lines of our own, shown below the event and not within it.
_BLOCKS = ("exception", "traceback", "dump")

_WORD = re.compile(r"\S+")

#: syslog's numbers.
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def configure(stream: TextIO | None = None, secrets: Collection[str] = ()) -> None:
    """Send all logging of this process to ``stream`` (default: standard error); REPROD_DEBUG=1 adds debug lines.

    :param secrets: what else no line may hold, in any form, beside the secrets in this process's variables.
    """
    target = stream or sys.stderr or io.StringIO()  # there is no stderr where the process was started with it closed
    plain = _Output(target)
    output = _ToJournal(Journal(), plain) if plain.is_journal else plain
    level = logging.DEBUG if os.environ.get("REPROD_DEBUG", "") not in {"", "0"} else logging.INFO
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            output.confess,
            _Redact(Redactor([*secrets_of_variables(os.environ), *secrets])),
            *([_to_fields] if plain.is_journal else _rendering(target)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward())
    root.setLevel(logging.WARNING)


def get_logger(**context: object) -> structlog.typing.FilteringBoundLogger:
    """Return a logger, used as ``get_logger().info("sealed", dataset="x")``; ``context`` is on every line."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(**context))


class _Output:
    """Writes one line at a time, survives whatever the stream does, and never waits long for its reader."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self.is_journal = self._fd is not None and is_journal(self._fd)
        self._lost = 0
        self._stalled = False
        self._cut = False  # a line was dropped half written

    def msg(self, message: str) -> None:
        try:
            with _LOCK:
                if self._fd is None:
                    self._stream.write(message + "\n")
                    self._stream.flush()
                else:
                    self._write(self._fd, message)
        except (OSError, ValueError):  # ValueError is "I/O operation on closed file"
            pass

    debug = info = warning = error = critical = exception = log = msg

    def confess(self, _logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Say with the first line that gets through again how many did not."""
        if self._lost and self._is_ready(0):
            event["lines_lost"], self._lost = self._lost, 0
        return event

    def _write(self, fd: int, message: str) -> None:
        """Write past the stream's buffer, which could only wait: a pipe that is ready takes ``PIPE_BUF`` at once."""
        encoded = (message + "\n").encode(self._stream.encoding or "utf-8", "backslashreplace")
        rest = memoryview(b"\n" + encoded if self._cut else encoded)
        size = len(rest)
        while rest:
            if not self._is_ready(0 if self._stalled else STALL_MS):
                self._stalled = True
                self._cut = self._cut or len(rest) < size
                self._lost += 1
                return
            rest = rest[os.write(fd, rest[: select.PIPE_BUF]) :]
        self._stalled = self._cut = False

    def _is_ready(self, wait_ms: int) -> bool:
        if self._fd is None:
            return True
        ready = select.poll()
        ready.register(self._fd, select.POLLOUT)
        return bool(ready.poll(wait_ms))


class _ToJournal:
    """Sends one record at a time; where there is no journal after all, standard error gets the line instead."""

    def __init__(self, journal: Journal, plain: _Output) -> None:
        self._journal, self._plain = journal, plain
        self._lost = 0
        self._stalled = False

    def msg(self, fields: dict[str, str], line: str) -> None:
        with _LOCK:
            outcome = self._journal.send(fields, 0 if self._stalled else STALL_MS)
            self._stalled = outcome == "full"
            self._lost += self._stalled
        if outcome == "gone":
            self._plain.msg(f"<{fields['PRIORITY']}>{line}")  # systemd reads the number, and takes it off

    debug = info = warning = error = critical = exception = log = msg

    def confess(self, _logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Say with the first record that gets through again how many did not."""
        with _LOCK:
            if self._lost and self._journal.is_ready():
                event["lines_lost"], self._lost = self._lost, 0
        return event


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # no file at all, or a closed one
        return None


# Threads and the event loop log alike; without it two lines can mix on a slow stream.
_LOCK = threading.Lock()


class _Forward(logging.Handler):
    """Hands a record of the standard ``logging`` module to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a library's wrong format string must not raise in our process
            message = f"{record.msg!r} (not formatted: {error})"
        get_logger().log(
            record.levelno, "library_log", logger=record.name, message=message, exc_info=record.exc_info or None
        )


def _rendering(stream: TextIO) -> list[structlog.typing.Processor]:
    """Return the last processors: what makes an event the text that this stream gets."""
    try:
        terminal = stream.isatty()
    except ValueError:
        terminal = False
    if terminal:
        colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        # plain_traceback: format_exc_info has made the text already, so that it could be redacted.
        return [
            _disarm,
            _blocks_last,
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback),
        ]
    return [structlog.processors.JSONRenderer(default=str)]


def _disarm(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what is shown as it is; values that are no strings are shown by ``repr``, which escapes."""
    return {key: _disarmed(key, value) if isinstance(value, str) else value for key, value in event.items()}


def _disarmed(key: str, text: str) -> str:
    if key in _BLOCKS:  # its lines are ours, what is in them is not
        return "\n".join(_disarmed("", line) for line in text.split("\n"))
    if text.isprintable():  # false for everything that controls, reorders or hides, and for odd kinds of space
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _blocks_last(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Leave the lines to the place below the event, where the renderer shows an exception."""
    blocks = [event.pop(key) for key in _BLOCKS if event.get(key)]
    return {**event, "exception": "\n".join(blocks)} if blocks else event


def _to_fields(_logger: Any, _method: str, event: structlog.typing.EventDict) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return an event as the journal's fields, and as a line for where there is none; the journal keeps the time."""
    line = json.dumps(event, default=str)
    fields = {
        "MESSAGE": _sentence(event),
        "PRIORITY": str(_PRIORITIES.get(str(event.get("level")), 6)),
        "SYSLOG_IDENTIFIER": "reprod",
    }
    for key, value in event.items():
        if value is not None and key not in {"timestamp", "level"}:
            fields[field_name(key, "REPROD_")] = _shown(value)
    return (fields, line), {}


def _sentence(event: structlog.typing.EventDict) -> str:
    """Return an event in words: what, which dataset, what is wrong, the other values, what to do, and its lines."""
    rest = {key: value for key, value in event.items() if value is not None and key not in {"timestamp", "level"}}
    words = [str(rest.pop("event", "")), str(rest.pop("dataset", ""))]
    wrong, hint = rest.pop("error", None), rest.pop("hint", None)
    blocks = [rest.pop(key) for key in _BLOCKS if key in rest]
    text = " ".join(word for word in words if word)
    text += f": {wrong}" if wrong is not None else ""
    text += "".join(f" {key}={_shown(value)}" for key, value in rest.items())
    text += f" (hint: {hint})" if hint else ""
    return "\n".join([_disarmed("", text), *(_disarmed("exception", str(block).rstrip()) for block in blocks)])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


class _Redact:
    """Cleans every value and name of an event, and puts first what every line has."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        first = [key for key in ("timestamp", "level", "event") if key in event]
        return {key: self._clean(event[key]) for key in dict.fromkeys([*first, *event])}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, dict):
            return {self._text(str(key)): self._clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._clean(item) for item in value]
        return self._text(str(value))

    def _text(self, text: str) -> str:
        if len(text) > LONGEST_WORD:
            text = _WORD.sub(_without_long, text)
        return self._redactor.text(text)


def _without_long(word: re.Match[str]) -> str:
    size = len(word.group())
    return word.group() if size <= LONGEST_WORD else f"(a word of {size} characters)"
