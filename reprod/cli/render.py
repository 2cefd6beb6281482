"""Values as text for people, and the one JSON form for programs.

Rule: no text that came from a file name, a daemon or a server reaches a terminal unescaped, because a name may hold
an escape sequence. Sizes are bytes shown in binary units, times come in as RFC 3339 and leave as an age, digests are
shown with their first 12 hex digits.
"""

import json
import time
from typing import Any

from reprod.core import amount

# Characters that a terminal acts on or that reorder what is read: C0, DEL, C1, line separators, bidirectional marks.
_ACTING = {
    *range(0x20),
    *range(0x7F, 0xA0),
    *(0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF, 0x061C),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
}
_NAMED = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
_ESCAPES = {point: _NAMED.get(point, f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}") for point in _ACTING}

DIGEST_DIGITS = 12


def safe(text: object) -> str:
    """Return ``text`` on one line, without anything that a terminal would act on."""
    return _without_surrogates(str(text).translate(_ESCAPES))


def file_name(entry: object) -> str:
    """Return the path of ``entry`` for a terminal.

    ``entry`` is a path, or an object with ``path`` and, where the name is not UTF-8, ``path_b64``. A backslash stays
    single, because a path may come in its display form (``\\xff``); --json tells the two apart.
    """
    path = entry
    if isinstance(entry, dict):
        path = entry.get("path", "?")
        encoded = entry.get("path_b64")
        if isinstance(encoded, str):
            import binascii

            try:
                path = binascii.a2b_base64(encoded).decode("utf-8", "surrogateescape")
            except binascii.Error:
                pass
    return safe(path)


def _without_surrogates(text: str) -> str:
    """Replace the lone surrogates by which Python carries undecodable bytes with ``\\xNN``."""
    # One by one: decoding them together could make an acting character out of two harmless halves.
    return text if text.isascii() else "".join(map(_without_surrogate, text))


def _without_surrogate(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return f"\\u{ord(character):04x}" if "\ud800" <= character <= "\udfff" else character


def size(count: object) -> str:
    """Return a number of bytes as people read it: ``812 B``, ``4.5 GiB``; ``-`` for None."""
    return amount.size(count) if isinstance(count, (int, float)) else "-"


def growth(before: object, after: object) -> str:
    """Return two sizes as ``41.2 KiB → 43.9 KiB``, in bytes where they would look the same; one if they are."""
    if before == after:
        return size(after)
    shown = f"{size(before)} → {size(after)}"
    same = size(before) == size(after)
    return f"{number(before)} → {number(after)} B" if same else shown


def number(count: object) -> str:
    """Return a count with thousands separated: ``1,331,167``; ``-`` for None."""
    return f"{count:,}" if isinstance(count, (int, float)) else "-"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 file`` or ``2 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def rest(hidden: int, one: str) -> str:
    """Return what stands below a list that a terminal gets shortened: ``and 3 more versions (...)``."""
    return f"and {plural(hidden, f'more {one}')} (in a pipe or with --json all)"


def duration(seconds: object) -> str:
    """Return a length of time in one unit, or two above a day: ``0.4 s``, ``3 min``, ``1 d 2 h``; ``-`` for None."""
    if not isinstance(seconds, (int, float)):
        return "-"
    value = max(0.0, float(seconds))
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    if value < 2 * 3600:
        return f"{value / 60:.0f} min"
    if value < 2 * 86400:
        return f"{value / 3600:.0f} h"
    days, rest = divmod(value, 86400)
    return f"{days:.0f} d {rest // 3600:.0f} h" if days < 10 else f"{days:.0f} d"


def ago(moment: object, now: float | None = None) -> str:
    """Return the age of an RFC 3339 time: ``2 s ago``, ``never`` for None; a time that cannot be read as it is."""
    if moment is None:
        return "never"
    from datetime import datetime

    try:
        then = datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return safe(moment)
    seconds = (time.time() if now is None else now) - then
    if seconds < -5:
        return f"in {duration(-seconds)}"  # another clock, or one that was set back: say it, do not hide it
    if seconds < 1:
        return "just now"
    return f"{duration(int(seconds) if seconds < 10 else seconds).replace('.0 s', ' s')} ago"


def moment(value: object) -> str:
    """Return an RFC 3339 time in this machine's zone, to the second; one that cannot be read as it is."""
    from datetime import datetime

    try:
        return f"{datetime.fromisoformat(str(value)).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return safe(value)


def digest(value: object) -> str:
    """Return a digest shortened for people, ``dt1:7f3a1c0e1234``; ``no digest`` for None."""
    if not isinstance(value, str) or not value:
        return "no digest"
    kind, colon, digits = safe(value).rpartition(":")
    return f"{kind}{colon}{digits[:DIGEST_DIGITS]}"


def to_json(command: str, answer: dict[str, Any], *, one_line: bool = False) -> str:
    """Return ``answer`` as one JSON object with its schema, in ASCII only.

    A text that is not UTF-8 (a file name) is shown escaped under its key, and its bytes stand beside it under
    ``KEY_b64``; for a list, a list of the same length with null for the texts that need none.
    """
    answer = {"schema": f"reprod.{command}/1", **{key: value for key, value in answer.items() if key != "schema"}}
    if one_line:
        return json.dumps(_plain(answer), separators=(",", ":"))
    return json.dumps(_plain(answer), indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for key, item in value.items():
            result[str(key)] = _plain(item)
            encoded = _encoded(item)
            if encoded is not None:
                result.setdefault(f"{key}_b64", encoded)
        return result
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _without_surrogates(value) if isinstance(value, str) else value


def _encoded(value: Any) -> Any:
    if isinstance(value, str):
        shown = _without_surrogates(value)
        if shown == value:
            return None
        import binascii

        return binascii.b2a_base64(value.encode("utf-8", "surrogateescape"), newline=False).decode("ascii")
    if isinstance(value, (list, tuple)):
        each = [_encoded(item) if isinstance(item, str) else None for item in value]
        return each if any(item is not None for item in each) else None
    return None
