"""Builders of HTML in which nothing from outside can become markup.

Rule: what is not ``Html`` is escaped, always; only the builders here make ``Html``. Characters that would act on a
reader instead of showing (control, bidirectional, zero-width, lone surrogates) are written as ``\\xNN``; names stand in
an element of their own direction, shortened in the middle where no page has room for them.
"""

import html
from collections.abc import Iterable
from datetime import UTC, datetime

#: A longer name says no more on a page; the manifest has it whole.
LONGEST_NAME = 120

#: A sentence with an error of some server in it.
LONGEST_PROSE = 500

#: Needed to write Persian and some emoji, and visible there.
_JOINERS = "\u200c\u200d"


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


NOTHING = Html()

_LINES = frozenset({"head", "title", "style", "h1", "h2", "h3", "p", "tr", "dd", "li", "section", "table", "div", "dl"})


def visible(text: str) -> str:
    r"""Return ``text`` with every character that does not show as itself as ``\xNN``, ``\uNNNN``."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    point = ord(character)
    if 0xDC80 <= point <= 0xDCFF:  # a byte that is not UTF-8, as Python carries it
        return f"\\x{point - 0xDC00:02x}"
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def text(value: object) -> Html:
    """Return ``value`` as it is shown; ``Html`` stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(visible(str(value))))


def join(parts: Iterable[object]) -> Html:
    """Return the parts one after the other."""
    return Html("".join(map(text, parts)))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return an element. ``class_`` is ``class``; an attribute of None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    # A line an element where it changes nothing: whoever reads or compares the source needs lines.
    return Html(f"<{name}{given}>{join(children)}</{name}>" + ("\n" if name in _LINES else ""))


def shortened(name: str, most: int = LONGEST_NAME) -> str:
    """Return a name as text of some ``most`` characters, its middle left out where it would be longer."""
    if len(name) <= most and len(shown := visible(name)) <= most:
        return shown
    head = _fitting(name[:most], most * 5 // 8)
    tail = _fitting(name[: -most - 1 : -1], most * 3 // 8)[::-1]
    if len(head) + len(tail) >= len(name):
        return visible(name)
    return f"{visible(head)} … {visible(tail)} ({len(name):,} characters)"


def _fitting(characters: str, room: int) -> str:
    """Return as many of the first characters as have room when they are shown."""
    for count, character in enumerate(characters):
        room -= len(_shown(character))
        if room < 0:
            return characters[:count]
    return characters


def named(name: str, most: int = LONGEST_NAME) -> Html:
    """Return a name that others gave (of a file, a run, a host): its direction cannot reach beyond it."""
    return tag("bdi", shortened(name, most), class_="name")


def code(value: str, most: int = LONGEST_NAME) -> Html:
    """Return a path, a digest or another text that is read letter by letter."""
    return tag("code", tag("bdi", shortened(value, most)))


def prose(value: str, most: int = LONGEST_PROSE) -> Html:
    """Return a text that people wrote, or that quotes what they wrote."""
    return tag("bdi", shortened(value, most)) if value else NOTHING


def sentence(told: str) -> str:
    """Return a remark, as errors and reasons are worded, as a sentence of its own."""
    return f"{told[:1].upper()}{told[1:].rstrip('.')}." if told else ""


def moment(ns: int | None) -> Html:
    """Return a time, in UTC: a page is read in other zones than it is made in."""
    if ns is None:
        return text("unknown")
    try:
        when = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return text(f"{ns} ns")
    return tag("time", f"{when:%Y-%m-%d %H:%M:%S} UTC", datetime=f"{when:%Y-%m-%dT%H:%M:%SZ}")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 file`` or ``2,000 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def table(heads: Iterable[object], rows: Iterable[Iterable[object]], class_: str | None = None) -> Html:
    """Return a table; each cell names its column, for the narrow form in which rows are blocks."""
    names = list(heads)
    body = [tag("tr", *(tag("td", cell, data_of=head) for head, cell in zip(names, row, strict=True))) for row in rows]
    head = tag("thead", tag("tr", *(tag("th", each, scope="col") for each in names)))
    return tag("table", head, tag("tbody", *body), class_=class_)


def facts(rows: Iterable[tuple[object, object]]) -> Html:
    """Return labels with their values."""
    return tag("dl", *(join([tag("dt", label), tag("dd", value)]) for label, value in rows))
