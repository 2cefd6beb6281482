"""A stream as the place where text is shown: colour, marks, width, tables and a progress line.

Rule: a terminal gets colour, tables that fit and prose that is wrapped; anything else (pipe, file) gets plain text that
is never cut, and a path is never cut anywhere. Colour is never the only carrier of a meaning. --color, then NO_COLOR,
then FORCE_COLOR or CLICOLOR_FORCE, then TERM=dumb, then isatty decide. Nothing but those colours acts on a terminal,
even where a caller forgot ``render.safe``, as for what should have been a number. Widths are terminal columns.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, TextIO, TypeVar

from reprod.cli import render
from reprod.cli.width import PAINT, columns, cut, fitted, wrapped

__all__ = ["Cell", "Column", "ProgressLine", "Screen", "columns", "cut", "progress_text", "table"]

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
#: Where a terminal has 256 colours: yellow and cyan of the first 16 cannot be read on white. These have a contrast of
#: 4.3 or more to white and of 3.8 or more to black (WCAG 2); brighter ones lose there, darker ones here.
_DEEP_CODES = {**_CODES, "red": "38;5;160", "green": "38;5;28", "yellow": "38;5;130", "cyan": "38;5;30"}
_MARKS = {"good": ("●", "*"), "busy": ("◐", "~"), "new": ("○", "o"), "warn": ("▲", "!"), "bad": ("✗", "x")}
_ASCII = str.maketrans({"·": "|", "→": ">", "…": "~", "−": "-", "━": "=", "╸": ">"})

# Below this a name says nothing any more; columns are left out instead.
_SHORTEST_NAME = 8

_BAR = 20

#: Width of the labels beside values.
_LABEL = 9

#: A terminal is no place for a million names or versions.
_LISTED = 50

_T = TypeVar("_T")

Cell = tuple[str, str]
"""Text and its colour ("" for none)."""


class Screen:
    """One output stream; ``width`` is None where nothing is to be cut. ``colours``: as --color says, None: as usual."""

    colours: ClassVar[bool | None] = None

    def __init__(self, stream: TextIO | None) -> None:
        stream = stream or open(os.devnull, "w")  # noqa: SIM115 - a closed standard output, until the process ends
        self._stream = stream
        self.terminal = _is_terminal(stream)
        self.colour = _wants_colour(self.terminal) if Screen.colours is None else Screen.colours
        self.unicode = _shows_unicode(stream)
        self.rewritable = self.terminal and os.environ.get("TERM") != "dumb"
        self.width = _width() if self.terminal else None
        self._drawn = False
        self._codes = _DEEP_CODES if _has_256_colours() else _CODES

    def line(self, text: str = "") -> None:
        """Write one line."""
        text = "".join(part if i % 2 else render.safe(part) for i, part in enumerate(PAINT.split(text)))
        self._stream.write((text if self.unicode else _ascii(text)) + "\n")

    def drawn(self, draw: "Callable[[Screen], None]", width: int) -> list[str]:
        """Return what ``draw`` writes to a screen like this one, as lines of at most ``width`` columns."""
        import io

        stream = io.StringIO()
        inner = Screen(stream)
        inner.terminal = inner._drawn = True
        inner.colour, inner.unicode, inner.width = self.colour, self.unicode, width
        draw(inner)
        return [fitted(line, width) for line in stream.getvalue().splitlines()]

    def listed(self, entries: Sequence[_T]) -> Sequence[_T]:
        """Return what is listed of many: on a terminal the first, elsewhere all. The caller says how many are not."""
        return entries if self.width is None else entries[:_LISTED]

    def prose(self, text: str, indent: int = 0, colour: str = "") -> None:
        """Write text with ``indent`` spaces before it, wrapped at the width of a terminal."""
        for each in self._wrapped(text, indent):
            self.line(" " * indent + self.paint(each, colour))

    def field(self, label: str, value: str, *, whole: bool = False) -> None:
        """Write a value beside its label, wrapped under itself; ``whole``: as one line, which can be copied."""
        lines = [value] if whole and not self._drawn else self._wrapped(value, _LABEL + 3)
        for i, each in enumerate(lines):
            told = f"{label if i == 0 else '':<{_LABEL}}"
            self.line(f"  {self.paint(told, 'dim')} {each}")

    def entry(self, head: str, about: str) -> None:
        """Write a name and what is said of it: beside it, or below where the name leaves no room; no name is cut."""
        if self.width is not None and columns(PAINT.sub("", head)) + columns(about) + 4 > self.width:
            self.line(f"  {head}")
            self.prose(about, 5)
        else:
            self.line(f"  {head}  {about}")

    def _wrapped(self, text: str, indent: int) -> list[str]:
        return [text] if self.width is None else wrapped(text, max(20, self.width - indent))

    def paint(self, text: str, colour: str) -> str:
        """Return ``text`` in ``colour`` where colour is wanted."""
        return f"\x1b[{self._codes[colour]}m{text}\x1b[0m" if colour and self.colour and text else text

    def mark(self, kind: str) -> str:
        """Return the sign for good, busy, new, warn or bad."""
        return _MARKS[kind][0 if self.unicode else 1]

    def rewrite(self, text: str) -> None:
        """Replace the current line of a terminal, cut to its width."""
        text = render.safe(text if self.unicode else _ascii(text))
        self._stream.write("\r\x1b[K" + cut(text, (self.width or 80) - 1))
        self._stream.flush()


class Column:
    """A column of a table: ``right`` aligned numbers; ``drop`` > 0 may be left out, the highest first.

    One with ``least`` is rather cut at its end, to no fewer columns of the terminal than that.
    """

    __slots__ = ("drop", "least", "right", "title")

    def __init__(self, title: str, *, right: bool = False, drop: int = 0, least: int = 0) -> None:
        self.title = title
        self.right = right
        self.drop = drop
        self.least = least


def table(screen: Screen, heads: Sequence[Column], rows: Sequence[Sequence[Cell]], indent: int = 2) -> list[str]:
    """Return the lines of a table, the heading first; the first column (a name) is cut in its middle if it must be.

    On a narrow terminal columns are left out by ``Column.drop``.
    """
    kept = list(range(len(heads)))
    widths = [max([columns(head.title), *(columns(row[i][0]) for row in rows)]) for i, head in enumerate(heads)]

    def needed() -> int:
        return indent + sum(widths[i] for i in kept) + 2 * (len(kept) - 1)

    if screen.width is not None:
        widths[0] = max(min(widths[0], _SHORTEST_NAME), widths[0] - max(0, needed() - screen.width))
        natural = max(columns(row[0][0]) for row in [[(heads[0].title, "")], *rows])
        while (over := needed() - screen.width) > 0 and any(heads[i].drop for i in kept):
            first = max(kept, key=lambda i: heads[i].drop)
            if heads[first].least and widths[first] - over >= heads[first].least:
                widths[first] -= over
            else:
                kept.remove(first)
        widths[0] = min(natural, widths[0] + max(0, screen.width - needed()))
    titles: list[Cell] = [(head.title, "dim") for head in heads]
    lines = []
    for row in [titles, *rows]:
        cells = []
        for i in kept:
            text = cut(row[i][0], widths[i], middle=i == 0)
            space = " " * (widths[i] - columns(text))
            painted = screen.paint(text, row[i][1])
            cells.append(space + painted if heads[i].right else painted + space)
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


class ProgressLine:
    """How far something long is: a line on standard error, on a terminal only, ten times a second at most."""

    def __init__(self, label: str = "") -> None:
        self._screen = Screen(sys.stderr)
        self._label = label
        self._shown_at = 0.0
        self._started = time.monotonic()
        self._first_bytes: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, so that something else can be written in its place."""
        if self._shown_at:
            self._screen.rewrite("")
            self._shown_at = 0.0

    def show(self, fields: dict[str, Any]) -> None:
        """Take one progress report: dataset, phase, files, bytes, total_files, total_bytes, percent, seconds_left."""
        now = time.monotonic()
        if not self._screen.rewritable or now - self._shown_at < 0.1:
            return
        self._shown_at = now
        done = fields.get("bytes")
        rate = ""
        if isinstance(done, (int, float)):
            if self._first_bytes is None:
                self._first_bytes, self._started = int(done), now
            elif now - self._started > 0.5 and done > self._first_bytes:
                rate = f"{render.size((done - self._first_bytes) / (now - self._started))}/s"
        self._screen.rewrite(progress_text(fields, self._label, rate, (self._screen.width or 80) - 1))


def progress_text(fields: dict[str, Any], label: str = "", rate: str = "", width: int = 0) -> str:
    """Return a progress report as one line without control characters; a bar is part of it where ``width`` has room."""
    name = label or render.safe(fields.get("dataset") or "")
    parts = [" ".join(part for part in (name, render.safe(fields.get("phase") or "")) if part)]
    percent = fields.get("percent")
    known = isinstance(percent, (int, float))
    if known:
        parts.append(f"{percent:3.0f}%")
    if fields.get("seconds_left") is not None:
        parts.append(f"{render.duration(fields['seconds_left'])} left")
    for shown, done, total in ((render.number, "files", "total_files"), (render.size, "bytes", "total_bytes")):
        if fields.get(done) is not None:
            of = f" of {shown(fields[total])}" if fields.get(total) is not None else ""
            parts.append(f"{shown(fields[done])}{of}{' files' if done == 'files' else ''}")
    if rate:
        parts.append(rate)
    if known and columns("  ".join(parts)) + _BAR + 2 <= width:
        filled = round(min(max(percent or 0.0, 0.0), 100.0) / 100 * _BAR)
        parts.insert(1, "━" * filled + " " * (_BAR - filled))
    return "  ".join(parts)


def _ascii(text: str) -> str:
    """Return text for a terminal that knows no UTF-8: the second byte of a letter may be a command to it."""
    return text if text.isascii() else text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _wants_colour(terminal: bool) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    for variable in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        if os.environ.get(variable, "0") not in {"", "0"}:
            return True
    return terminal and os.environ.get("TERM") != "dumb"


def _has_256_colours() -> bool:
    return "256" in os.environ.get("TERM", "") or os.environ.get("COLORTERM", "") in {"truecolor", "24bit"}


def _shows_unicode(stream: TextIO) -> bool:
    # Python turns LANG=C into UTF-8 by itself, and sets LC_CTYPE in this process's environment to say so; the terminal
    # behind a C locale may still know ASCII only.
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return (stream.encoding or "").lower().replace("-", "") == "utf8" and locale not in {"C", "POSIX"}


def _width() -> int:
    try:
        stated = int(os.environ.get("COLUMNS", ""))
        if stated > 0:
            return stated
    except ValueError:
        pass
    for descriptor in (1, 2, 0):
        try:
            return os.get_terminal_size(descriptor).columns or 80
        except OSError:
            continue
    return 80
