"""The screen of ``env diff``: a table of differences, the gravest first, and the verdict in words as its last line.

Rule: a value that has no room in its column stands below its row, whole; nothing is cut. What is equivalent or benign
is counted, and listed only when asked for.
"""

from collections import Counter
from collections.abc import Sequence

from reprod.cli import render
from reprod.cli.env_view import subject_text
from reprod.cli.screen import Screen, columns
from reprod.core.environment_diff import ORDER, Class, Comparison, Difference
from reprod.core.manifest import rfc3339
from reprod.ops.environment_ref import Named

#: The mark and the colour of each class.
_LOOKS: dict[Class, tuple[str, str]] = {
    "semantic": ("bad", "red"),
    "numeric": ("warn", "yellow"),
    "unknown": ("warn", "yellow"),
    "benign": ("good", "green"),
    "equivalent": ("good", "green"),
    "identical": ("good", "green"),
}

#: Counted, and listed only with --verbose.
QUIET: frozenset[Class] = frozenset({"equivalent", "benign"})

INPUTS = "this is said of what went in, not of results"

_VERDICTS: dict[Class, str] = {
    "identical": f"the same packages, code, machine and settings, as far as they are recorded; {INPUTS}",
    "equivalent": f"what differs cannot be part of a result; {INPUTS}",
    "benign": f"what differs is not known to change a result; {INPUTS}",
    "unknown": "what is not known on one side could be a grave difference; missing is never equal",
    "numeric": "the last digits of a result may differ: the same numbers can be added in another order",
    "semantic": "something else may be computed: other code, other versions or other seeds",
}

_GAP = 2
_CLASS = max(map(len, ORDER))

#: Columns that a reason needs to stand beside the values, and a value at most in a line that is not cut.
_SHORTEST_WHY, _PADDED = 24, 40

#: Columns of the mark of a reason that stands below.
_MARK = 3

#: A reason that so many rows have is said once, below the table.
_OFTEN = 3


def show(screen: Screen, left: Named, right: Named, found: Comparison, *, verbose: bool) -> None:
    """Show two environments' differences and the verdict."""
    for label, side in (("left", left), ("right", right)):
        digest = render.digest(f"env1:{side.digest}")
        when = render.ago(rfc3339(side.record.execution.taken_ns))
        screen.field(label, f"{render.safe(side.ref)} {digest} {subject_text(side.record.execution.subject)}, {when}")
    # Hundreds of packages must not push the one line on the code, or another class, off a terminal.
    listed = [
        each
        for grade in reversed(ORDER)
        if verbose or grade not in QUIET
        for each in screen.listed(sorted((e for e in found.differences if e.grade == grade), key=_packages_last))
    ]
    if listed:
        screen.line()
        _show_rows(screen, listed)
    screen.line()
    counts = [(grade, sum(each.grade == grade for each in found.differences)) for grade in reversed(ORDER)]
    told = [f"{count:,} {grade}" for grade, count in counts if count]
    if told:
        quiet = not verbose and any(each.grade in QUIET for each in found.differences)
        more = ["--verbose lists the rest"] if quiet else []
        if screen.width is not None and any(count > len(screen.listed(range(count))) for _, count in counts):
            more.append("in a pipe or with --json all are listed")
        screen.prose(", ".join(told) + (f" ({'; '.join(more)})" if more else ""), 0, "dim")
    verdict = f"{screen.mark(_LOOKS[found.verdict][0])} {found.verdict}"
    screen.prose(f"{screen.paint(verdict, _LOOKS[found.verdict][1])}: {_VERDICTS[found.verdict]}")


def _show_rows(screen: Screen, differences: Sequence[Difference]) -> None:
    rows = [_cells(each) for each in differences]
    what, value = _widths(screen.width, rows)
    room = None if screen.width is None else screen.width - _CLASS - what - 2 * value - 4 * _GAP
    notes = [] if room is None else _notes(rows, room)
    reasons = " " * (value - 5 + _GAP) + "WHY" if room is None or room >= _SHORTEST_WHY else ""
    heads = f"{'CLASS':<{_CLASS}}  {'WHAT':<{what}}  {'LEFT':<{value}}  RIGHT{reasons}"
    screen.line(screen.paint(heads, "dim"))
    for row, each in zip(rows, differences, strict=True):
        grade, *cells = row
        if cells[3] in notes:
            cells[3] = f"[{notes.index(cells[3]) + 1}]"
        head = screen.paint(grade, _LOOKS[each.grade][1]) + " " * (_CLASS - len(grade) + _GAP)
        if room is None:
            widths = (what, value, value, 0)
            padded = [cell + " " * (width - columns(cell)) for cell, width in zip(cells, widths, strict=True)]
            screen.line((head + (" " * _GAP).join(padded)).rstrip())
        else:
            _show_row(screen, head, cells, (what, value, room))
    for number, note in enumerate(notes, 1):
        screen.prose(f"[{number}] {note}", _GAP, "dim")


def _packages_last(each: Difference) -> tuple[bool, str]:
    return each.fact.startswith(("packages.", "conda.")), each.fact


def _cells(each: Difference) -> list[str]:
    """Return class, place, both values and the reason as they are shown; what is missing is ``-``."""
    values = ("-" if text is None else render.safe(text) or '""' for text in (each.left, each.right))
    return [each.grade, render.safe(each.fact), *values, render.safe(each.why or "")]


def _widths(width: int | None, rows: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Return the columns for what differs and for each value: as wide as they need to be, within their shares."""
    what = max(4, *(columns(row[1]) for row in rows))
    values = [columns(cell) for row in rows for cell in row[2:4]]
    share = _PADDED
    if width is not None:
        what = min(what, width * 2 // 5)
        share = max(8, (width - _CLASS - what - 4 * _GAP - _MARK) // 2)
        if share > _PADDED:  # a wide terminal: the reason stands beside them
            share = max(30, (share * 2 - _SHORTEST_WHY) // 3)
    return what, max(each for each in (5, *values) if each <= share)


def _notes(rows: Sequence[Sequence[str]], room: int) -> list[str]:
    """Return the reasons that many rows have and that have no room beside their values."""
    often = Counter(row[4] for row in rows if columns(row[4]) > room)
    return [why for why, count in often.items() if count >= _OFTEN]


def _show_row(screen: Screen, head: str, cells: Sequence[str], widths: tuple[int, int, int]) -> None:
    """Write one row of a terminal; what has no room in its column stands below, whole."""
    fact, left, right, why = cells
    what, value, room = widths
    line, indent = head + fact, _CLASS + _GAP
    beside = columns(fact) <= what and columns(left) <= value and columns(right) <= value
    if beside:
        line += " " * (what - columns(fact) + _GAP) + left + " " * (value - columns(left) + _GAP) + right
        if columns(why) <= room:
            line += " " * (value - columns(right) + _GAP) + why
    screen.line(line.rstrip())
    if not beside:
        screen.prose(f"left:  {left}", indent)
        screen.prose(f"right: {right}", indent)
    if why and not (beside and columns(why) <= room):
        screen.prose(why, indent, "dim")
