"""Reads the selection that a manifest records, from whoever wrote it.

Its patterns become regular expressions that run over every name below the root, so what could make them slow is bounded
here: their number, their length, and in how many ways they can fit: each ``*`` after the first in a path component
multiplies the work by the length of a name, each ``**`` after the first by the depth.
"""

from collections.abc import Mapping

from reprod.core.claims import Refused, shorten
from reprod.core.pattern import Selection

#: Patterns of all three lists together; 3000 take 1.5 ms for a name of 200 bytes.
MAX_PATTERNS = 3000
MAX_LENGTH = 4096

#: What a pattern costs by its ambiguity (``_ambiguity``), in simple patterns: against the worst name of 250 bytes none
#: takes 3 microseconds, one 40, two 5 to 20 ms, three 350 ms. So five of two are taken, or two hundred of one.
_COSTS = (1, 15, 600)

#: Characters after which a pattern counts once more: one of 600 takes 0.4 ms to compile.
_LONG = 100

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
        ways = _ambiguity(line)
        if ways >= len(_COSTS):
            raise Refused(f"the pattern {shorten(line)} has too many wildcards: it could take seconds for one name")
        cost += _COSTS[ways] + len(line) // _LONG
        if cost > MAX_PATTERNS:
            raise Refused(f"too many patterns that are long or have several wildcards, up to {shorten(line)}")


def _ambiguity(line: str) -> int:
    """Return how many wildcards of a pattern can stand at several places while all the others stay where they are.

    The last ``*`` of a component reaches up to its end, one at the end of all has nothing to try, and the first ``**``
    tries each directory once. Stars that are escaped or in brackets count too: a bound need not be exact.
    """
    if line.startswith("#"):
        return 0
    components = line.split("/")
    if len(components) > 1 and components[-1] == "**":  # ends with it: whatever comes
        del components[-1]
    else:
        components[-1] = components[-1].rstrip("*")
    deep = components.count("**")
    within = sum(max(0, component.count("*") - 1) for component in components if component != "**")
    return within + max(0, deep - 1)


def _check_only(only: bytes | None) -> None:
    if only is not None and (not only or b"/" in only or b"\0" in only or only in {b".", b".."}):
        raise Refused("only is no file name")
