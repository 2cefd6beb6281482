"""Values and screens: hostile names, sizes, ages, colour rules, tables that fit."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from reprod.cli import codes, render
from reprod.cli.screen import Column, Screen, columns, cut, progress_text, table


class FakeTerminal(io.StringIO):
    """A stream that says it is a terminal; the pty test has a real one."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    """Newline, ESC, C1, bidirectional marks and undecodable bytes never reach a terminal as themselves."""
    assert render.file_name("a\nb") == "a\\nb"
    assert render.file_name("\x1b[2J") == "\\x1b[2J"
    assert render.file_name("\x9b2J\x7f") == "\\x9b2J\\x7f"
    assert render.file_name(os.fsdecode(b"\xff.csv")) == "\\xff.csv"
    assert render.file_name("evil\u202etxt.exe") == "evil\\u202etxt.exe"
    assert render.file_name({"path": "\\xff.csv"}) == "\\xff.csv"
    assert render.file_name("日本 ü.csv") == "日本 ü.csv"
    assert render.file_name({"path": "?", "path_b64": "/wo="}) == "\\xff\\n"
    assert render.safe("\udcc2\udc9b \ud800") == "\\xc2\\x9b \\ud800"
    assert render.safe("two\nlines") == "two\\nlines"


def test_json_keeps_the_bytes_of_a_name() -> None:
    """A name that is not UTF-8 is escaped under its key and complete under KEY_b64; the output is ASCII."""
    bad = os.fsdecode(b"\xff\n")
    text = render.to_json("diff", {"added": [{"path": bad}, {"path": "ü"}], "missing": ["ok", bad], "schema": "other"})
    assert text.isascii()
    value = json.loads(text)
    assert value["schema"] == "reprod.diff/1"
    assert value["added"] == [{"path": "\\xff\n", "path_b64": "/wo="}, {"path": "ü"}]
    assert value["missing"] == ["ok", "\\xff\n"]
    assert value["missing_b64"] == [None, "/wo="]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (831488, "812.0 KiB"),
        (1024**2 - 1, "1.0 MiB"), (155_800_000_000, "145.1 GiB"), (2**80, "1048576.0 EiB"),
    ],
)  # fmt: skip
def test_sizes(count: int | None, text: str) -> None:
    """Bytes are shown in the unit in which they have at most four digits."""
    assert render.size(count) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("1970-01-01T00:16:39.9Z", "just now"), ("1970-01-01T00:16:38Z", "2 s ago"),
        ("1970-01-01T00:16:00+00:00", "40 s ago"),
        ("1970-01-01T00:02:40Z", "14 min ago"), ("1970-01-01T01:00:00Z", "in 43 min"),
        (None, "never"), ("soon", "soon"),
    ],
)  # fmt: skip
def test_ages(moment: str | None, text: str) -> None:
    """A time is shown as its age; one in the future is said, not hidden."""
    assert render.ago(moment, now=1000.0) == text


def test_lengths_of_time() -> None:
    """One unit, two above a day."""
    shown = [render.duration(value) for value in (0.04, 9.94, 9.96, 119, 121, 7199, 7200, 94000, 864000 * 2, None)]
    assert shown == ["0.0 s", "9.9 s", "10 s", "119 s", "2 min", "120 min", "2 h", "26 h", "20 d", "-"]
    assert render.duration(3 * 86400 + 7300) == "3 d 2 h"


def test_codes_in_the_contracts_order() -> None:
    """Where several hold: 65, 1, 6, 5, 0."""
    assert codes.worst(0, 5, 6, 1, 65) == 65
    assert codes.worst(0, 5, 6, 1) == 1
    assert codes.worst(5, 6) == 6
    assert codes.worst(0, 5) == 5
    assert codes.worst() == 0


@pytest.mark.parametrize(
    ("variables", "terminal", "pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": "", "TERM": "xterm"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"CLICOLOR_FORCE": "1", "TERM": "dumb"}, True, True),
    ],
)
def test_colour_rules(
    home: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], terminal: bool, pipe: bool
) -> None:
    """NO_COLOR, FORCE_COLOR, TERM=dumb, isatty: in this order."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Screen(FakeTerminal()).colour is terminal
    assert Screen(io.StringIO()).colour is pipe


def test_a_terminal_that_knows_ascii_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under LANG=C marks, dots and arrows are ASCII."""
    monkeypatch.setenv("LANG", "C")
    stream = FakeTerminal()
    screen = Screen(stream)
    screen.line(f"{screen.mark('good')} a · b → c … −1")
    assert stream.getvalue().isascii()


def test_tables_fit_a_terminal_and_are_whole_in_a_pipe(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the name is cut in its middle and columns are left out by rank; a pipe gets everything."""
    heads = [Column("NAME"), Column("STATE"), Column("SIZE", right=True, drop=1), Column("DIGEST", drop=2)]
    rows = [[("a-very-long-dataset-name-2026", ""), ("current", "green"), ("1.0 KiB", ""), ("dt1:7f3a1c0e1234", "")]]
    whole = table(Screen(io.StringIO()), heads, rows)
    assert whole[1] == "  a-very-long-dataset-name-2026  current  1.0 KiB  dt1:7f3a1c0e1234"
    monkeypatch.setenv("NO_COLOR", "1")
    for width, expected in (
        (60, "  a-very-lon…t-name-2026  current  1.0 KiB  dt1:7f3a1c0e1234"),
        (40, "  a-very-lo…-name-2026  current  1.0 KiB"),
        (30, "  a-ve…-2026  current  1.0 KiB"),
        (24, "  a-very…e-2026  current"),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = table(Screen(FakeTerminal()), heads, rows)
        assert lines[1] == expected
        assert all(columns(line) <= width for line in lines)
    told = [[("@2", ""), ("1.0 KiB", ""), ("run 01dca9b2, 9ff0142b", "")]]
    heads = [Column("VERSION"), Column("SIZE", drop=2), Column("FOR WHOM", drop=1, least=10)]
    for width, expected in (
        (36, "  @2       run 01dca9b2, 9ff0142b"),
        (30, "  @2       run 01dca9b2, 9ff0…"),
        (20, "  @2"),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        assert table(Screen(FakeTerminal()), heads, told)[1] == expected


def test_cutting_counts_columns_not_characters() -> None:
    """Wide characters take two columns, combining ones none."""
    assert columns("日本") == 4
    assert columns("e\u0301") == 1
    assert cut("日本語のデータ", 7) == "日本語…"
    assert columns(cut("日本語のデータ", 8, middle=True)) <= 8
    assert cut("abc", 0) == ""


def test_prose_is_wrapped_with_its_indent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason under a row stays under it on a narrow terminal, and is one line in a pipe."""
    monkeypatch.setenv("COLUMNS", "40")
    terminal, pipe = FakeTerminal(), io.StringIO()
    text = "the file server does not answer since ten minutes, nothing was forgotten"
    Screen(terminal).prose(text, 4)
    Screen(pipe).prose(text, 4)
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("    ") and len(line) <= 40 for line in lines)
    assert pipe.getvalue() == f"    {text}\n"


def test_progress_is_one_plain_line() -> None:
    """Everything that is known is said, nothing that is not."""
    fields: dict[str, Any] = {
        "dataset": "x", "phase": "hashing", "files": 1200, "bytes": 1024, "total_files": 2000, "total_bytes": None,
        "percent": 62.0, "seconds_left": 13,
    }  # fmt: skip
    assert progress_text(fields) == "x hashing   62%  13 s left  1,200 of 2,000 files  1.0 KiB"
    assert progress_text(fields, width=90, rate="5 B/s") == (
        "x hashing  ━━━━━━━━━━━━           62%  13 s left  1,200 of 2,000 files  1.0 KiB  5 B/s"
    )
    assert progress_text({"phase": "walking\x1b", "files": 3}) == "walking\\x1b  3 files"
