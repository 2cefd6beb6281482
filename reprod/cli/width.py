"""How many columns of a terminal a text takes, and text made to fit so many: cut, or wrapped.

Texts have no control characters, but for colours (``PAINT``), which take no room.
"""

import re

#: A colour of ours, or the end of one: what ``re.split`` with it returns at odd places.
PAINT = re.compile("(\x1b\\[(?:0|1|2|3[1236]|38;5;(?:28|30|130|160))m)")


def columns(text: str) -> int:
    """Return how many terminal columns ``text`` (without control characters) takes."""
    # Latin, and the range of the marks and signs used here: one column each, without loading a database of characters.
    if all(c < "\u0300" or "\u2010" <= c < "\u2600" for c in text):
        return len(text)
    import unicodedata

    wide = sum(1 for c in text if unicodedata.east_asian_width(c) in "WF")
    return len(text) + wide - sum(1 for c in text if unicodedata.combining(c))


def cut(text: str, width: int, *, middle: bool = False) -> str:
    """Return ``text`` in at most ``width`` columns, with an ellipsis where something is missing."""
    if columns(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    if middle:
        head = cut(text, (width + 1) // 2)[:-1]
        tail = ""
        for character in reversed(text):
            if columns(head) + 1 + columns(character + tail) > width:
                break
            tail = character + tail
        return f"{head}…{tail}"
    kept = ""
    for character in text:
        if columns(kept + character) > width - 1:
            break
        kept += character
    return kept + "…"


def wrapped(text: str, room: int) -> list[str]:
    """Return text, which may be painted, in lines of at most ``room`` columns; only a longer word is broken."""
    if columns(PAINT.sub("", text)) <= room:
        return [text]
    lines, line, taken = [], "", -1
    for word in text.split(" "):
        rest = word
        if line and taken + 1 + columns(PAINT.sub("", rest)) > room:
            lines.append(line.rstrip())
            line, taken = "", -1
        while columns(rest) > room and "\x1b" not in rest:
            lines.append(cut(rest, room + 1)[:-1])
            rest = rest[len(lines[-1]) :]
        if rest or line:
            line = f"{line} {rest}" if line else rest
            taken += 1 + columns(PAINT.sub("", rest))
    return [*lines, line.rstrip()] if line.strip() else lines


def fitted(line: str, width: int) -> str:
    """Return a painted line cut to ``width`` columns."""
    parts, left = [], width
    for i, part in enumerate(PAINT.split(line)):
        text = part if i % 2 else cut(part, left)
        left -= 0 if i % 2 else columns(text)
        parts.append(text)
    return "".join(parts)
