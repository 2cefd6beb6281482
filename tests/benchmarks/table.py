"""What was measured, as lines of the table in docs/performance.md and as JSON with every single figure.

A line has what was done, what issue 3 asks for (must, goal), reprod's median, the yardstick's median from the same run,
their ratio, and the command that measures it again. A line without a figure says why.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from measure import Sample

HEAD = ("what", "must", "goal", "reprod", "yardstick", "ratio", "to repeat")
WIDTHS = (62, 6, 6, 10, 34, 6, 0)  # of the columns, so that the table can be read while it comes

#: The command, in the table and in the JSON.
COMMAND = 'make bench ARGS="{}"'


@dataclass(frozen=True, slots=True)
class Target:
    """What issue 3 asks for: a ratio, or a figure with its unit."""

    must: str = ""
    goal: str = ""


NO_TARGET = Target()


@dataclass(frozen=True, slots=True)
class Line:
    """One line; ``ours`` is None if it could not be measured, and ``note`` says why."""

    row: str
    what: str
    ours: Sample | None
    unit: str
    yard: Sample | None
    by: str
    target: Target
    note: str
    arguments: str

    @property
    def ratio(self) -> float | None:
        """Ours through the yardstick's."""
        return self.ours.median / self.yard.median if self.ours and self.yard and self.yard.median else None

    def markdown(self) -> str:
        """Return the line of the table."""
        what = f"{self.what} ({self.note})" if self.note else self.what
        ours = figure(self.ours.median, self.unit) if self.ours else "–"
        by = f"{figure(self.yard.median, self.unit)}, {self.by}" if self.yard else ""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}" if self.ratio >= 0.1 else f"{self.ratio:.2g}"
        cells = (what, self.target.must, self.target.goal, ours, by, ratio, f"`{COMMAND.format(self.arguments)}`")
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)) + " |"

    def document(self) -> dict[str, Any]:
        """Return everything, for --json."""
        return {
            "row": self.row,
            "what": self.what,
            "unit": self.unit,
            "reprod": _sample(self.ours),
            "yardstick": _sample(self.yard) and {"by": self.by, **(_sample(self.yard) or {})},
            "ratio": self.ratio,
            "must": self.target.must,
            "goal": self.target.goal,
            "note": self.note,
            "repeat": COMMAND.format(self.arguments),
        }


@dataclass(slots=True)
class Table:
    """Prints each line as it is measured and keeps them all; ``row`` and ``arguments`` are those of what runs now."""

    row: str = ""
    arguments: str = ""
    lines: list[Line] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)  # raw series that make no line, by row

    def head(self) -> None:
        """Print the head of the table."""
        print("| " + " | ".join(name.ljust(width) for name, width in zip(HEAD, WIDTHS, strict=True)) + " |")
        print("|" + " --- |" * len(HEAD), flush=True)

    def add(
        self,
        what: str,
        ours: Sample | None,
        unit: str = "s",
        yard: Sample | None = None,
        by: str = "",
        *,
        target: Target = NO_TARGET,
        note: str = "",
        more: str = "",
    ) -> None:
        """Take one line; ``more`` are further arguments that it takes to measure it."""
        arguments = f"--only {self.row} {self.arguments} {more}".strip()
        line = Line(self.row, what, ours, unit, yard, by, target, note, " ".join(arguments.split()))
        self.lines.append(line)
        print(line.markdown(), flush=True)

    def skip(self, what: str, why: str, target: Target = NO_TARGET) -> None:
        """Say that something could not be measured here, and why."""
        self.add(what, None, target=target, note=f"not measured: {why}")

    def write(self, path: Path, about: dict[str, Any]) -> None:
        """Write everything as JSON."""
        document = {"schema": "reprod.bench/1", **about, "lines": [x.document() for x in self.lines], **self.extra}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def figure(value: float, unit: str) -> str:
    """Return three digits and the unit."""
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
    return f"{value:.{digits}f} {unit}"


def _sample(sample: Sample | None) -> dict[str, Any] | None:
    return None if sample is None else {"median": sample.median, **asdict(sample)}
