"""Reads the selection that a manifest records, from whoever wrote it.

Its patterns become regular expressions that run over every name below the root. None of them is slow by itself, however
many wildcards it has (``reprod.core.gitignore``), so only their number and their length are bounded here.
"""

from collections.abc import Mapping

from reprod.core.claims import Refused, shorten
from reprod.core.pattern import Selection

#: Patterns of all three lists together. 3000 that are told apart take 0.2 to 0.8 s to compile, and 1 to 7 ms for a
#: hostile name of 250 bytes.
MAX_PATTERNS = 3000
MAX_LENGTH = 4096

#: Characters after which a pattern counts once more: one of 600 takes 0.4 ms to compile. What stands between two stars
#: is looked for at each place in a name: so many of the worst (``*[ab][ab]...c*``) take 15 ms for one of 250 bytes.
_LONG, _LONG_BETWEEN = 100, 10

_SYMLINKS = ("record", "skip")


def parse_selection(record: object) -> Selection:
    """Return the selection in ``record``, as Selection.record wrote it. :raises Refused: it is none."""
    if not isinstance(record, Mapping):
        raise Refused("it is no object")
    for key in ("include", "exclude", "ignore_file"):
        patterns = record.get(key)
        if not isinstance(patterns, (list, tuple)) or not all(isinstance(line, str) for line in patterns):
            raise Refused(f"{key} is no list of patterns")
    if record.get("symlinks") not in _SYMLINKS:
        raise Refused(f"symlinks is {shorten(repr(record.get('symlinks')), 30)}, not {' or '.join(_SYMLINKS)}")
    for key in ("ignore_file_b64", "only", "only_b64"):
        if key in record and not isinstance(record[key], str):
            raise Refused(f"{key} is no text")
    try:
        selection = Selection.of_record(record)
        _check_lines([*selection.include, *selection.exclude, *(line.decode("latin-1") for line in selection.ignore)])
        _check_only(selection.only)
        selection.takes_file(b"x")  # compiles the patterns
    except ValueError as error:  # base64, UTF-8, or no gitignore pattern
        raise Refused(f"it cannot be read: {shorten(str(error))}") from None
    return selection


def _check_lines(lines: list[str]) -> None:
    if len(lines) > MAX_PATTERNS or any(len(line) > MAX_LENGTH for line in lines):
        raise Refused(f"more than {MAX_PATTERNS:,} patterns, or one of more than {MAX_LENGTH:,} characters")
    cost = 0
    for line in lines:
        cost += 1 if line.startswith("#") else 1 + len(line) // (_LONG_BETWEEN if _has_between(line) else _LONG)
        if cost > MAX_PATTERNS:
            raise Refused(f"too many patterns that are long, up to {shorten(line)}")


def _has_between(line: str) -> bool:
    return any(part.count("*") > 1 for part in line.split("/") if part != "**")


def _check_only(only: bytes | None) -> None:
    if only is not None and (not only or b"/" in only or b"\0" in only or only in {b".", b".."}):
        raise Refused("only is no file name")
