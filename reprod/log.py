"""Log lines of the daemon: for a person on a terminal, else one JSON object a line, on standard error.

Rule: every string of an event, a traceback included, passes ``redact_text`` before it is written (law 10); no string
acts on a terminal, as a file name with an escape sequence would (JSON escapes by itself); and no state of standard
error (closed, full, a reader that went away) may stop or kill the daemon: a line that nobody takes is dropped, and the
next one that gets through says how many were (``lines_lost``). Records of other libraries that use ``logging`` come out
the same way. Times are RFC 3339 UTC.
"""

import io
import logging
import os
import select
import sys
import threading
from typing import Any, TextIO, cast

import structlog

from reprod.core.redact import redact_text

#: How long a line waits for a reader that was there a moment ago; while none is, no line waits.
STALL_MS = 100


def configure(stream: TextIO | None = None) -> None:
    """Send all logging of this process to ``stream`` (default: standard error); REPROD_DEBUG=1 adds debug lines."""
    target = stream or sys.stderr or io.StringIO()  # there is no stderr where the process was started with it closed
    output = _Output(target)
    level = logging.DEBUG if os.environ.get("REPROD_DEBUG", "") not in {"", "0"} else logging.INFO
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            output.confess,
            _redact,
            *_rendering(target),
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
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback),
        ]
    return [structlog.processors.JSONRenderer(default=str)]


def _disarm(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what is shown as it is; values that are no strings are shown by ``repr``, which escapes."""
    return {key: _disarmed(key, value) if isinstance(value, str) else value for key, value in event.items()}


def _disarmed(key: str, text: str) -> str:
    if key == "exception":  # its lines are ours, what is in them is not
        return "\n".join(_disarmed("", line) for line in text.split("\n"))
    if text.isprintable():  # false for everything that controls, reorders or hides, and for odd kinds of space
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Clean every value, and put first what every line has."""
    first = [key for key in ("timestamp", "level", "event") if key in event]
    return {key: _clean(event[key]) for key in dict.fromkeys([*first, *event])}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(item) for item in value]
    return redact_text(str(value))
