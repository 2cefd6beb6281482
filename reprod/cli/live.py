"""A terminal as a place that is drawn again and again: its other screen, the lines that changed, resized, left tidy.

Rule: whatever ends the process by way of Python (Ctrl-C, SIGTERM, an error), and while it is stopped (Ctrl-Z), the
terminal is as it was before. A line is written only if it is another than the one that stands there, all of a picture
in one write, so nothing flickers. Sizes are columns and lines.
"""

import os
import signal
from collections.abc import Callable
from typing import Any, Self, TextIO

from reprod.cli import render

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the other screen, no cursor; and back

Draw = Callable[[int], tuple[list[str], list[str]]]
"""Makes the lines of a picture for so many columns, and those at its foot, which shall be seen in a low window too."""


class Live:
    """One terminal, of its own from ``with`` on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: list[str] = []
        self._draw: Draw | None = None
        self._drawing = self._again = self._clear = self._away = self._stop = False
        self._handlers: dict[int, Any] = {}
        self._echo: tuple[int, list[Any]] | None = None

    def __enter__(self) -> Self:
        for number, handler in (
            (signal.SIGWINCH, self._resized),
            (signal.SIGTSTP, self._stopped),
            (signal.SIGCONT, self._continued),
        ):
            self._handlers[number] = signal.signal(number, handler)
        self._enter()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        try:
            if not self._away:
                self._leave()
        except OSError:  # the terminal is gone
            pass

    def show(self, draw: Draw) -> None:
        """Draw a picture, and again whenever the terminal's size changes, until the next."""
        self._draw = draw
        self._picture()

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _picture(self) -> None:
        """Draw what is to be seen. A signal that comes in the middle of it has to wait: two writes at once are none."""
        if self._drawing:
            self._again = True
            return
        self._drawing = True
        try:
            self._again = True
            while self._again and self._draw is not None and not self._away:
                self._again = False
                width, height = self._size()
                # One column less: what is written into the last one may be erased with what comes after it.
                self._write(_fitted(*self._draw(width - 1), height))
        finally:
            self._drawing = False
        if self._stop:
            self._give_back()

    def _write(self, lines: list[str]) -> None:
        parts = []
        if self._clear:
            self._clear, self._shown = False, []
            parts.append("\x1b[H\x1b[J")
        for i, line in enumerate(lines):
            if i >= len(self._shown) or self._shown[i] != line:
                parts.append(f"\x1b[{i + 1};1H{line}\x1b[K")
        if len(lines) < len(self._shown):
            parts.append(f"\x1b[{len(lines) + 1};1H\x1b[J")
        self._shown = lines
        if parts:
            self._put("".join(parts))

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _size(self) -> tuple[int, int]:
        try:
            found = os.get_terminal_size(self._stream.fileno())
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24

    # --- the terminal ------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        self._clear = True
        self._quiet()
        self._put(_ENTER)

    def _leave(self) -> None:
        self._loud()
        self._put(_LEAVE)

    def _quiet(self) -> None:
        """Let what is typed not be shown. Only in the foreground: in the background the kernel would stop us."""
        import termios

        try:
            typed = 0
            if os.tcgetpgrp(typed) != os.getpgrp():
                return
            before = termios.tcgetattr(typed)
            now = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
            termios.tcsetattr(typed, termios.TCSADRAIN, now)
            self._echo = (typed, before)
        except (OSError, termios.error):  # standard input is no terminal, or another one
            pass

    def _loud(self) -> None:
        import termios

        if self._echo is not None:
            typed, before = self._echo
            self._echo = None
            try:
                termios.tcsetattr(typed, termios.TCSADRAIN, before)
            except (OSError, termios.error):
                pass

    # --- signals -----------------------------------------------------------------------------------------------------

    def _resized(self, _number: int, _frame: object) -> None:
        self._clear = True
        self._picture()

    def _stopped(self, _number: int, _frame: object) -> None:
        self._stop = True
        if not self._drawing:
            self._give_back()

    def _give_back(self) -> None:
        """Leave the terminal to others while we are stopped, and stop."""
        self._stop = False
        if not self._away:
            self._away = True
            self._leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)

    def _continued(self, _number: int, _frame: object) -> None:
        """Take the terminal again; in the background (``bg``) it belongs to somebody else."""
        signal.signal(signal.SIGTSTP, self._stopped)
        if self._away and self._has_foreground():
            self._away = False
            self._enter()
            self._picture()

    def _has_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except OSError:  # it is not the terminal that rules this process
            return True


def _fitted(lines: list[str], foot: list[str], height: int) -> list[str]:
    """Return as many lines as fit; where some do not, a line says how many. The foot gets half of the window."""
    if len(lines) + len(foot) <= height:
        return [*lines, *foot]
    told = [line for line in foot if line]
    if len(lines) + len(told) <= height:
        return [*lines, *told]
    most = max(1, height // 2)
    shown = [*told[: most - 1], *told[-1:]] if len(told) > most else told
    room = max(0, height - len(shown) - 1)
    hidden = len(lines) - min(room, len(lines)) + len(told) - len(shown)
    return [*lines[:room], f"  {render.plural(hidden, 'more line')}: make the window higher", *shown][:height]
