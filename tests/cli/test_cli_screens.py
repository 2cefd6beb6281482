"""Every screen where it is looked at: colours and their rules, ASCII, narrow terminals; the help of every command."""

import argparse
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from export_place import ExportPlace
from scripted_daemon import Done, ScriptedDaemon, dataset_row, status_answer
from terminal import Terminal, seen_on

from reprod.cli.live import _fitted as fitted_lines
from reprod.cli.screen import _DEEP_CODES, Screen
from reprod.cli.tree import build_parser
from reprod.cli.width import columns, fitted, wrapped
from reprod.client import Client
from reprod.errors import DaemonUnavailableError

Run = Callable[..., Done]


def commands(parser: argparse.ArgumentParser, *path: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, *path, name)


@pytest.mark.parametrize("command", [path for path, _ in commands(build_parser())], ids=" ".join)
def test_every_help_has_an_example_of_its_own(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """--help of every command that the parser has ends with lines to copy, which the parser itself accepts."""
    parser = dict(commands(build_parser()))[command]
    assert (parser.epilog or "").startswith(("example:\n", "examples:\n"))
    lines = (parser.epilog or "").splitlines()[1:]
    mine = " ".join(("reprod", *command))
    assert any(re.search(rf"\b{mine}\b", line) for line in lines), lines
    assert parser.description
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args([*command, "--help"])
    assert caught.value.code == 0
    assert lines[-1].strip() in capsys.readouterr().out


# --- colours and characters ------------------------------------------------------------------------------------------


def contrast(code: str, background: float) -> float:
    """Return the contrast of one of 256 colours to a background's luminance, as WCAG 2 defines it."""
    number = int(code.rpartition(";")[2]) - 16
    levels = [0, 95, 135, 175, 215, 255]
    parts = [levels[i] / 255 for i in (number // 36, number // 6 % 6, number % 6)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    high, low = max(luminance, background), min(luminance, background)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_on_light_and_on_dark() -> None:
    """Each of them has a contrast of 3.8 at least to white and to black, and each is used."""
    coloured = {name: code for name, code in _DEEP_CODES.items() if ";" in code}
    assert set(coloured) == {"red", "green", "yellow", "cyan"}
    for code in coloured.values():
        assert contrast(code, 1.0) > 3.8, code
        assert contrast(code, 0.0) > 3.8, code


@pytest.mark.parametrize(
    ("variables", "codes"),
    [
        ({"TERM": "xterm-256color"}, True), ({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False),
        ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True), ({"TERM": "dumb", "CLICOLOR_FORCE": "1"}, True),
    ],
)  # fmt: skip
def test_who_wants_colour(daemon: ScriptedDaemon, variables: dict[str, str], codes: bool) -> None:
    """Acceptance 29: on a real terminal, by variables; what is said is the same with and without."""
    daemon.says("status", **status_answer(dataset_row("torn", "incomplete", reason="why")))
    with Terminal(["status"], **variables) as terminal:
        assert terminal.ended() == 0
        assert bool(terminal.glass.codes) is codes
        assert "▲ incomplete" in terminal.glass.text
        deep = any(code.startswith("38;5;") for code in terminal.glass.codes)
        assert deep is (codes and variables.get("TERM", "xterm-256color") == "xterm-256color")


@pytest.mark.parametrize(
    ("when", "terminal", "pipe"), [("auto", True, False), ("always", True, True), ("never", False, False)]
)
def test_the_flag_for_colour_goes_before_the_variables(
    daemon: ScriptedDaemon, reprod_process: Run, when: str, terminal: bool, pipe: bool
) -> None:
    """Acceptance 29: --color always and never hold whatever the variables say, on a terminal and in a pipe."""
    daemon.says("status", **status_answer(dataset_row("torn", "incomplete", reason="why")))
    against = {"always": {"NO_COLOR": "1"}, "never": {"FORCE_COLOR": "1"}}.get(when, {})
    with Terminal(["status", "--color", when], **against) as shown:
        assert shown.ended() == 0
        assert bool(shown.glass.codes) is terminal
    assert ("\x1b[" in reprod_process("status", "--color", when, **against).out) is pipe
    assert reprod_process("status", "--color", "red").code == 2


@pytest.mark.parametrize("watch", [[], ["--watch"]], ids=["status", "watch"])
def test_a_terminal_that_knows_ascii(daemon: ScriptedDaemon, home: Path, watch: list[str]) -> None:
    """Acceptance 29: under LANG=C nothing but ASCII is written, in names neither: a byte of them may be a command."""
    daemon.says("status", **status_answer(dataset_row("café", reason="Û à 日本")))
    with Terminal(["status", *watch], LANG="C") as terminal:
        terminal.ended()
        assert terminal.raw.isascii()
        if not watch:
            assert "caf\\xe9" in terminal.glass.text
            assert "* current" in terminal.glass.text


# --- every screen, at every width ------------------------------------------------------------------------------------


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExportPlace]:
    """Three versions of a dataset, one file of which has been changed since."""
    base = home / "place"
    base.mkdir()
    here = ExportPlace(base)
    here.fill({b"a.csv": b"1", b"b.csv": b"2" * 5000, b"gone.csv": b"3"}).seal()
    (here.root / "gone.csv").unlink()
    here.fill({b"a.csv": b"12", b"folder/new.csv": b"4"}).seal()
    here.fill({b"n" * 70: b"5", b"caf\xc3\xa9.csv": b"6"}).seal()
    (here.root / "a.csv").write_bytes(b"21")
    monkeypatch.setenv("REPROD_STATE_DIR", str(here.state))
    (home / "etc" / "datasets.d" / "data.toml").write_text(f'path = "{here.root}"\n')
    yield here
    here.close()


SCREENS = [
    ["status"], ["status", "data"], ["dataset", "list"], ["log", "data"], ["diff", "data@1", "data@3"],
    ["diff", "data@1"], ["verify", "data"], ["verify", "data", "--quick"], ["verify", "data", "--chain"], ["runs"],
    ["prune", "--dry-run"],
]  # fmt: skip


@pytest.mark.parametrize("argv", SCREENS, ids=" ".join)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_and_prose_fit(store: ExportPlace, argv: list[str], width: int) -> None:
    """Acceptance 29: no line of a table or of prose is broken by the terminal; only names and digests stay whole."""
    with Terminal(argv, width, 200) as terminal:
        assert terminal.ended() in {0, 1, 3, 5}
        assert "Traceback" not in terminal.raw
        plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", terminal.raw)
    for line in plain.replace("\r\n", "\n").split("\n"):
        shown = line.rpartition("\r")[2]
        if columns(shown) > width:
            longest = max(shown.split("  "), key=len)
            assert re.search(r"/|n{70}|dt1:[0-9a-f]{60}|head [0-9a-f]{64}|error: |hint: ", longest), shown


@pytest.mark.parametrize("argv", SCREENS, ids=" ".join)
def test_in_a_pipe_nothing_is_cut_or_painted(store: ExportPlace, reprod: Run, argv: list[str]) -> None:
    """One thing a line, whole, without sequences."""
    out = reprod(*argv).out
    assert "\x1b" not in out
    assert "…" not in out


def test_a_long_name_leaves_its_size_on_the_next_line(store: ExportPlace) -> None:
    """diff on a terminal: a path is never cut, and what is said of it is not broken in the middle."""
    lines = seen_on(["diff", "data@2", "data@3"], 78).text.splitlines()
    at = next(i for i, line in enumerate(lines) if "n" * 70 in line)
    assert lines[at + 1] == "     1 B"


def answers(path: Path) -> bool:
    try:
        with Client(path) as client:
            return bool(client.call("hello"))
    except DaemonUnavailableError:
        return False


def test_a_daemon_that_hangs(home: Path) -> None:
    """Acceptance 27: status gives up, says that it does not answer, shows what was known last, and exits 3."""
    with (home / "daemon.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "reprod", "daemon"], stdout=log, stderr=log)
    try:
        give_up = time.monotonic() + 60
        while not answers(home / "state" / "control.sock"):
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        done = subprocess.run([sys.executable, "-m", "reprod", "status"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 3
        assert "does not answer (waited 2 s)" in done.stderr
        assert done.stdout.startswith("○ reprod does not answer. Last known state, not live:\n")
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)


# --- fitting ---------------------------------------------------------------------------------------------------------


def test_wrapping_keeps_words_and_colours() -> None:
    """A painted word takes the room of its letters; only a word that is longer than the line is broken."""
    painted = "\x1b[1mtables\x1b[0m  0 versions would be forgotten"
    assert wrapped(painted, 20) == ["\x1b[1mtables\x1b[0m  0 versions", "would be forgotten"]
    assert wrapped("x" * 45, 20) == ["x" * 20, "x" * 20, "x" * 5]
    assert wrapped("日本" * 8, 10) == ["日本日本日", "本日本日本", "日本日本日", "本"]
    assert wrapped("a b", 20) == ["a b"]
    assert wrapped("", 20) == [""]


def test_cutting_a_painted_line() -> None:
    """Colours end even where the text does not fit."""
    assert fitted("\x1b[31mabcdef\x1b[0m gh", 4) == "\x1b[31mabc…\x1b[0m"
    assert fitted("ab\x1b[1mcd\x1b[0m", 10) == "ab\x1b[1mcd\x1b[0m"


@pytest.mark.parametrize("height", range(2, 14))
def test_a_low_window(height: int) -> None:
    """Never more lines than there are, what needs a person before the rest of the table, and nothing lost unsaid."""
    body, foot = [f"row {i}" for i in range(7)], ["", "1 thing needs you:", "  it", "", "clock"]
    shown = fitted_lines(body, foot, height)
    assert len(shown) <= height
    said = [int(line.split()[0]) for line in shown if "more lines" in line]
    there = [line for line in shown if line and "more lines" not in line]
    if said:
        assert said[0] + len(there) == 10
        assert said[0] > 0
    else:
        assert there == [line for line in [*body, *foot] if line]
    assert height < 4 or "1 thing needs you:" in shown


def test_a_drawn_screen_is_like_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of a picture are as wide as they may be, whatever is written."""
    lines = Screen(sys.stdout).drawn(lambda screen: screen.line("x" * 100), 30)
    assert lines == ["x" * 29 + "…"]
