"""Reads the selection that a manifest records, from whoever wrote it.

Its patterns become regular expressions that run over every name below the root, so what could make them slow is bounded
here: their number, their length, the wildcards in one path component, each of which multiplies the work by the length
of a name, and the ``**``, each of which multiplies it by the depth.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from reprod.core.claims import Refused, shorten
from reprod.core.pattern import Selection

MAX_PATTERNS = 10_000
MAX_LENGTH = 4096

#: Wildcards in one component, and ``**`` in one pattern. Against the worst name of 255 bytes, or 200 directories, three
#: take 20 ms, four 1.5 s, five a minute.
MAX_WILDCARDS = 4

_SYMLINKS = ("record", "skip")

_WILDCARD = re.compile(r"\*+")


def parse_selection(record: object) -> Selection:
    """Return the selection in ``record``, as Selection.record wrote it. :raises Refused: it is none."""
    if not isinstance(record, Mapping):
        raise Refused("it is no object")
    for key in ("include", "exclude", "ignore_file"):
        _check_patterns(key, record.get(key))
    if record.get("symlinks") not in _SYMLINKS:
        raise Refused(f"symlinks is {shorten(repr(record.get('symlinks')), 30)}, not {' or '.join(_SYMLINKS)}")
    for key in ("ignore_file_b64", "only", "only_b64"):
        if key in record and not isinstance(record[key], str):
            raise Refused(f"{key} is no text")
    try:
        selection = Selection.of_record(record)
        _check_lines(selection.ignore)
        _check_only(selection.only)
        selection.takes_file(b"x")  # compiles the patterns
    except ValueError as error:  # base64, UTF-8, or no gitignore pattern
        raise Refused(f"it cannot be read: {shorten(str(error))}") from None
    return selection


def _check_patterns(key: str, patterns: Any) -> None:
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(line, str) for line in patterns):
        raise Refused(f"{key} is no list of patterns")
    _check_lines(patterns)


def _check_lines(lines: Iterable[str | bytes]) -> None:
    for number, line in enumerate(lines):
        text = line.decode("latin-1") if isinstance(line, bytes) else line
        if number >= MAX_PATTERNS or len(text) > MAX_LENGTH:
            raise Refused(f"more than {MAX_PATTERNS:,} patterns, or one of more than {MAX_LENGTH:,} characters")
        if any(len(_WILDCARD.findall(component)) > MAX_WILDCARDS for component in text.split("/")):
            raise Refused(f"the pattern {shorten(text)} has more than {MAX_WILDCARDS} wildcards in one component")
        if text.split("/").count("**") > MAX_WILDCARDS:
            raise Refused(f"the pattern {shorten(text)} has more than {MAX_WILDCARDS} '**'")


def _check_only(only: bytes | None) -> None:
    if only is not None and (not only or b"/" in only or b"\0" in only or only in {b".", b".."}):
        raise Refused("only is no file name")
