"""A terminal with a process in it: a real pseudo-terminal, and what a person would see on it.

``Glass`` understands what reprod writes and nothing else: an unknown sequence is a failure, so that none gets out.
"""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

#: What the caller's own terminal says about itself: it is not the terminal of these tests. Without ``env`` a child
#: gets COLUMNS even where os.environ has none: readline, which pytest loads, writes it into C's own environment.
SCREEN_VARIABLES = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TERM", "COLORTERM"}

#: What begins a picture of another size, and what may be the first half of a sequence.
_CLEAR = "\x1b[H\x1b[J"
_UNFINISHED = re.compile(r"\x1b(\[[?0-9;]*)?\Z")

_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n\x08\x07])|([^\x1b\r\n\x08\x07]+)|(\x1b.?)")


class Glass:
    """The pane: two screens of lines, a cursor, and which lines were written since ``forget``."""

    def __init__(self, width: int, height: int) -> None:
        self.resize(width, height)
        self.cursor_shown = True
        self.other = False
        self.written: set[int] = set()
        self.codes: set[str] = set()
        self._kept: list[str] = []
        self._kept_at = (0, 0)
        self.scrolled = 0

    def resize(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.lines = [""] * height
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for parameters, final, control, plain, rest in _TOKEN.findall(text):
            assert not rest, f"unknown sequence {rest!r}"
            if final:
                self._act(parameters, final)
            elif control:
                self._control(control)
            else:
                self._put(plain)

    def _act(self, parameters: str, final: str) -> None:
        if final == "m":
            self.codes.add(parameters)
        elif final == "H":
            row, _, column = (parameters or "1;1").partition(";")
            self.row, self.column = int(row) - 1, int(column or 1) - 1
        elif final == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif final == "J":
            self.lines[self.row :] = [self.lines[self.row][: self.column], *[""] * (self.height - self.row - 1)]
        elif parameters == "?25":
            self.cursor_shown = final == "h"
        elif parameters == "?1049":
            self.other = final == "h"
            if self.other:
                self._kept, self._kept_at = self.lines, (self.row, self.column)
                self.lines = [""] * self.height
            else:
                self.lines = self._kept
                self.row, self.column = self._kept_at
        else:
            raise AssertionError(f"unknown sequence CSI {parameters} {final}")

    def _control(self, control: str) -> None:
        if control == "\r":
            self.column = 0
        elif control == "\n":
            self.row += 1
            if self.row == self.height:
                self.scrolled += 1
                self.row -= 1
                self.lines = [*self.lines[1:], ""]

    def _put(self, text: str) -> None:
        if self.column + len(text) > self.width:
            assert not self.other, f"wider than {self.width}: {text!r}"
            room = self.width - self.column
            self._put(text[:room])
            self._control("\n")
            self.column = 0
            self._put(text[room:])
            return
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
        self.written.add(self.row)
        self.column += len(text)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


class Terminal:
    """``reprod ARGV`` (or another command) on a terminal of its own, whose keys work; ``stdout``: it goes elsewhere."""

    def __init__(
        self,
        argv: list[str],
        width: int = 80,
        height: int = 24,
        *,
        command: list[str] | None = None,
        stdout: int | None = None,
        **variables: str,
    ) -> None:
        self.glass = Glass(width, height)
        self.raw = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._unfinished = ""
        self._before_clear: str | None = None  # what came since a resize, while the old size may still be drawn
        kept = {name: value for name, value in os.environ.items() if name not in SCREEN_VARIABLES}
        self._parent, child = pty.openpty()
        self._set_size(width, height)
        self.before: list[Any] = termios.tcgetattr(child)
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "reprod", *argv],
            stdin=child,
            stdout=child if stdout is None else stdout,
            stderr=child,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call, no lock
            env=kept | {"TERM": "xterm-256color"} | variables,
        )
        self._child = child

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        os.close(self._parent)
        os.close(self._child)

    def _set_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self._parent, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def resize(self, width: int, height: int) -> None:
        """Make the window another size, as its user does; what is drawn until it is cleared is not looked at."""
        self.read()
        self._before_clear = ""
        self.glass.resize(width, height)
        self._set_size(width, height)

    def type(self, keys: str) -> None:
        os.write(self._parent, keys.encode())

    def read(self, *, last: bool = False) -> str:
        """Take in what was written until now, but not the first half of a sequence, unless it is the ``last`` time."""
        got = b""
        while select.select([self._parent], [], [], 0)[0]:
            try:
                got += os.read(self._parent, 1 << 16)
            except OSError:
                break
        text = self._unfinished + self._decoder.decode(got, final=last)
        half = None if last else _UNFINISHED.search(text)
        text, self._unfinished = (text, "") if half is None else (text[: half.start()], half[0])
        self.raw += text
        self._show(text)
        return text

    def _show(self, text: str) -> None:
        if self._before_clear is not None:
            _, clear, rest = (self._before_clear + text).partition(_CLEAR)
            self._before_clear, text = (None, clear + rest) if clear else (self._before_clear + text, "")
        self.glass.feed(text)

    def until(self, seen: Callable[[str], object], what: str, timeout_s: float = 60) -> str:
        """Read until what is to be seen satisfies ``seen``; return it."""
        give_up = time.monotonic() + timeout_s
        while True:
            self.read()
            if seen(self.glass.text):
                return self.glass.text
            assert time.monotonic() < give_up, f"not within {timeout_s} s: {what}; seen:\n{self.glass.text}"
            time.sleep(0.02)

    def ended(self, timeout_s: float = 60) -> int:
        """Return the exit code, having read to the end."""
        give_up = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < give_up, f"it does not end; seen:\n{self.glass.text}"
            time.sleep(0.02)
        self.read(last=True)
        return int(self.process.returncode)

    def is_as_before(self) -> bool:
        """Whether cursor, screen and typing are as they were before the command."""
        now = termios.tcgetattr(self._child)
        return self.glass.cursor_shown and not self.glass.other and now == self.before

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def seen_on(argv: list[str], width: int, *, environ: Mapping[str, str] | None = None) -> Glass:
    """Return the pane after a command that ends; tall enough that nothing leaves it."""
    with Terminal(argv, width, 200, **(environ or {})) as terminal:
        terminal.ended()
        return terminal.glass


def written_to(
    argv: list[str], width: int, *, command: list[str] | None = None, timeout_s: float = 60, **variables: str
) -> str:
    """Return all that a command which ends wrote to a terminal, as it was written."""
    with Terminal(argv, width, 200, command=command, **variables) as terminal:
        terminal.ended(timeout_s)
        return terminal.raw
