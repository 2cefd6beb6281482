"""``reprod status --watch``: what is seen on a terminal, in a pipe and by a program, while daemons come and go.

The daemon is a real process, the terminal a real pseudo-terminal.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TextIO

import pytest
from scripted_daemon import Done, ScriptedDaemon, dataset_row, status_answer
from terminal import Terminal

Run = Callable[..., Done]

#: The product with less patience, so that a test can wait for its end.
IMPATIENT = (
    "import sys; from reprod.cli import watch; watch.RETURN_S = 1.0; watch.SILENCE_S = 4.0; "
    "from reprod.__main__ import main; sys.exit(main(['status', '--watch', *sys.argv[1:]]))"
)


class Service:
    """A real daemon that can be ended and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "reprod", "daemon"], stdout=log, stderr=log)
        give_up = time.monotonic() + 60
        while not (self.home / "state" / "control.sock").exists():
            assert self.process.poll() is None, (self.home / "daemon.log").read_text()
            assert time.monotonic() < give_up, "the daemon does not listen"
            time.sleep(0.02)

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    """A daemon with one small dataset, ``tables``."""
    (home / "data").mkdir()
    (home / "data" / "a.csv").write_text("1\n")
    (home / "etc" / "datasets.d" / "tables.toml").write_text(f'path = "{home}/data"\n')
    found = Service(home)
    found.start()
    try:
        yield found
    finally:
        found.end()


def flat(text: str) -> str:
    """Return what is seen as one line: where a sentence with a path is broken depends on where the tests lie."""
    return " ".join(text.split())


def current(text: str) -> bool:
    return re.search(r"tables\s+● current\s+1\s", text) is not None


def test_it_lives_and_leaves_the_terminal_as_it_was(home: Path, service: Service) -> None:
    """Acceptance 30: a change is seen by itself, Ctrl-C ends it with 130, and nothing is left on the terminal."""
    with Terminal(["status", "--watch"]) as terminal:
        terminal.until(current, "the dataset is seen")
        assert terminal.glass.other
        assert not terminal.glass.cursor_shown
        (home / "data" / "b.csv").write_text("2\n")
        terminal.until(lambda text: re.search(r"● current\s+2\s.*@2", text), "the change is seen")
        terminal.type("\x03")
        assert terminal.ended() == 130
        assert terminal.is_as_before()
        assert terminal.glass.text.strip().replace("^C", "") == ""
        assert "Traceback" not in terminal.raw


def test_only_what_changed_is_written(service: Service) -> None:
    """No flicker: from one second to the next ages and clock are written, and what stays the same is not touched."""
    with Terminal(["status", "--watch"]) as terminal:
        terminal.until(current, "the dataset is seen")
        clock = terminal.until(lambda text: re.search(r"\d\d:\d\d:\d\d ·", text), "the clock").splitlines()
        steady = next(i for i, line in enumerate(clock) if "watching 1 dataset" in line)
        terminal.glass.written.clear()
        shown = next(line for line in clock if "Ctrl-C" in line)
        terminal.until(lambda text: shown not in text, "a second has passed")
        terminal.until(lambda text: True, "and more")
        assert terminal.glass.written
        assert steady not in terminal.glass.written
        assert terminal.raw.count("\x1b[H\x1b[J") == 1, "it is cleared at the start only"


@pytest.mark.parametrize(("width", "height"), [(40, 12), (120, 40)])
def test_a_window_of_another_size(service: Service, width: int, height: int) -> None:
    """What is drawn after a resize fits the window, and what needs a person is seen in a low one too."""
    with Terminal(["status", "--watch"]) as terminal:
        terminal.until(current, "the dataset is seen")
        terminal.resize(width, height)
        text = terminal.until(lambda text: "Ctrl-C" in text and "need" in text, "it is drawn again")
        assert terminal.glass.scrolled == 0
        assert ("make the window higher" in text) is (height < 20)
        terminal.type("\x03")
        assert terminal.ended() == 130


def test_stopped_and_continued(service: Service) -> None:
    """Ctrl-Z gives the terminal back, ``fg`` takes it again."""
    script = f"set -m; {sys.executable} -m reprod status --watch; echo it stopped; fg"
    with Terminal([], command=["bash", "--norc", "-i", "-c", script]) as terminal:
        terminal.until(current, "the dataset is seen")
        terminal.type("\x1a")
        terminal.until(lambda text: "it stopped" in terminal.raw, "it is stopped")
        stopped = terminal.raw.index("it stopped")
        assert "\x1b[?25h\x1b[?1049l" in terminal.raw[:stopped]
        terminal.until(lambda text: "\x1b[?1049h" in terminal.raw[stopped:] and current(text), "it goes on")
        terminal.type("\x03")
        terminal.ended()
        assert terminal.is_as_before()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_ended_by_a_signal(service: Service, number: signal.Signals, code: int) -> None:
    """SIGTERM and SIGHUP leave the terminal as it was, too."""
    with Terminal(["status", "--watch", "tables"]) as terminal:
        terminal.until(lambda text: "confirmed" in text, "it is drawn")
        terminal.signal(number)
        assert terminal.ended() == code
        assert terminal.is_as_before()


def test_what_is_typed_is_not_shown(service: Service) -> None:
    """Keys that mean nothing leave no trace in the picture."""
    with Terminal(["status", "--watch"]) as terminal:
        terminal.until(current, "the dataset is seen")
        terminal.type("rubbish")
        shown = terminal.glass.text.splitlines()[-1]
        terminal.until(lambda text: text.splitlines()[-1] == shown, "a second has passed")
        assert "rubbish" not in terminal.raw
        terminal.type("\x03")
        assert terminal.ended() == 130


def test_a_daemon_that_ends_and_returns(home: Path, service: Service) -> None:
    """Its end is said over the last known state, and the next daemon is shown as soon as it answers."""
    with Terminal(["status", "--watch"]) as terminal:
        terminal.until(current, "the dataset is seen")
        service.end()
        text = terminal.until(lambda text: "went away; waiting" in flat(text), "its end is said")
        assert "Last known state, not live" in text
        assert current(text)
        service.start()
        terminal.until(lambda text: "daemon of" in text and "went away" not in flat(text), "the next is shown")
        terminal.type("\x03")
        assert terminal.ended() == 130


def test_a_daemon_that_never_returns_is_3(home: Path, service: Service) -> None:
    """After a while it is given up, with the terminal as it was and one line of what happened."""
    with Terminal([], command=[sys.executable, "-c", IMPATIENT]) as terminal:
        terminal.until(current, "the dataset is seen")
        service.end()
        assert terminal.ended() == 3
        assert terminal.is_as_before()
        assert "error: no daemon came back within 1 s" in flat(terminal.glass.text)
        assert "hint: start it: reprod daemon" in flat(terminal.glass.text)


def test_a_daemon_that_hangs_is_noticed(home: Path, service: Service) -> None:
    """Silence is noticed, and when it speaks again it is followed again."""
    assert service.process is not None
    with Terminal([], command=[sys.executable, "-c", IMPATIENT.replace("RETURN_S = 1.0", "RETURN_S = 30")]) as terminal:
        terminal.until(current, "the dataset is seen")
        service.process.send_signal(signal.SIGSTOP)
        try:
            terminal.until(lambda text: "does not answer" in flat(text), "the silence is said")
        finally:
            service.process.send_signal(signal.SIGCONT)
        terminal.until(lambda text: "daemon of" in text, "it is followed again")
        terminal.type("\x03")
        assert terminal.ended() == 130


# --- without a terminal ----------------------------------------------------------------------------------------------


class Piped:
    """``reprod status --watch`` with a pipe, read line by line within a bound."""

    def __init__(self, *argv: str, code: str | None = None) -> None:
        command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "reprod", "status", "--watch"]
        self.process = subprocess.Popen([*command, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.out: TextIO = self.process.stdout
        os.set_blocking(self.out.fileno(), False)
        self.lines: list[str] = []
        self._rest = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=60)

    def until(self, seen: Callable[[list[str]], object], what: str) -> list[str]:
        give_up = time.monotonic() + 60
        while not seen(self.lines):
            assert time.monotonic() < give_up, f"{what}: {self.lines}"
            try:
                self._rest += os.read(self.out.fileno(), 1 << 16).decode()
            except BlockingIOError:
                time.sleep(0.02)
            *whole, self._rest = self._rest.split("\n")
            self.lines += whole
        return self.lines

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def test_in_a_pipe_a_line_for_each_change(home: Path, service: Service) -> None:
    """What is known at first, then a line when something is another than it was, nothing for the time that passes."""
    with Piped() as piped:
        piped.until(lambda lines: any("tables  ● current  1 file" in line for line in lines), "the first lines")
        first = len(piped.lines)
        (home / "data" / "b.csv").write_text("2\n")
        piped.until(lambda lines: any("tables  ● current  2 files  4 B  @2  dt1:" in line for line in lines), "change")
        time.sleep(1.5)  # a beat passes: nothing comes of it
        piped.until(lambda lines: True, "")
        news = piped.lines[first:]
        assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in piped.lines)
        assert all("tables" in line for line in news), news
        assert "\x1b" not in "".join(piped.lines)
        service.end()
        piped.until(lambda lines: "went away; waiting for it to come back" in lines[-1], "its end")
        service.start()
        piped.until(lambda lines: "● reprod 0.1.0  pid" in "".join(lines[-4:]), "its return")
        assert piped.interrupt() == 130


def test_objects_for_programs(home: Path, service: Service) -> None:
    """--json: one object a line, whole, with the schema and a seq that grows, over a restart too."""
    with Piped("tables", "--json") as piped:
        piped.until(lambda lines: lines and '"version":1' in lines[-1], "the first state")
        (home / "data" / "b.csv").write_text("2\n")
        piped.until(lambda lines: '"files":2' in lines[-1], "a change")
        service.end()
        piped.until(lambda lines: '"live":false' in lines[-1], "its end")
        service.start()
        piped.until(lambda lines: '"live":true' in lines[-1], "its return")
        objects: list[dict[str, Any]] = [json.loads(line) for line in piped.lines]
        assert {each["schema"] for each in objects} == {"reprod.status/1"}
        assert all([d["name"] for d in each["datasets"]] == ["tables"] for each in objects)
        seqs = [each["seq"] for each in objects]
        assert seqs == sorted(set(seqs))
        assert seqs[0] == 1
        assert sum(each["lagged"] for each in objects) == seqs[-1] - len(seqs)
        assert piped.interrupt() == 130


def test_a_reader_that_goes_away(home: Path, service: Service) -> None:
    """``status --watch | head -1`` ends quietly, although nothing changes that could be written."""
    with Piped("tables") as piped:
        piped.until(lambda lines: any("tables  ● current" in line for line in lines), "it is at rest")
    shell = f"{sys.executable} -m reprod status --watch tables | head -1"
    with subprocess.Popen(["bash", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(timeout=90)
        finally:
            process.kill()
    assert len(out.splitlines()) == 1
    assert err == b""


def test_a_terminal_that_cannot_be_drawn_on(service: Service) -> None:
    """TERM=dumb gets lines, as a pipe does."""
    with Terminal(["status", "--watch"], width=120, TERM="dumb") as terminal:
        terminal.until(lambda text: "tables  ● current" in text, "the dataset is told")
        assert "\x1b" not in terminal.raw
        terminal.type("\x03")
        assert terminal.ended() == 130


# --- what it is told -------------------------------------------------------------------------------------------------


def test_without_a_daemon_it_is_as_status_is(home: Path, reprod_process: Run) -> None:
    """No daemon at the start: the reason, what was known last, and 3; with --json one line of it."""
    done = reprod_process("status", "--watch")
    assert done.code == 3
    assert done.err.startswith("error: no daemon answers")
    assert "reprod is not running" in done.out
    assert len(reprod_process("status", "--watch", "--json").out.splitlines()) == 1


def test_an_unknown_name_and_one_that_goes(home: Path, service: Service, reprod: Run) -> None:
    """No such dataset is 4 at once; one that is removed while it is watched is 4 then."""
    done = reprod("status", "--watch", "tablse")
    assert (done.code, done.out) == (4, "")
    assert "did you mean tables?" in done.err
    with Piped("tables") as piped:
        piped.until(lambda lines: any("● current" in line for line in lines), "it is watched")
        assert reprod("dataset", "remove", "tables").code == 0
        assert piped.process.wait(60) == 4
        assert piped.process.stderr is not None
        assert "error: tables is no longer registered" in piped.process.stderr.read()


def test_an_older_daemon(daemon: ScriptedDaemon, reprod: Run) -> None:
    """A daemon that does not know the method: it is said to be of another version, at once."""
    done = reprod("status", "--watch")
    assert done.code == 3
    assert "restart it" in done.err


def test_check_and_watch_contradict(reprod_process: Run) -> None:
    """One exits, the other stays."""
    assert reprod_process("status", "--watch", "--check").code == 2


EVIL = "e\x1b[2J\x1b]0;title\x07\r\n\t\u202e\x9b31mi\udcff"


def test_nothing_of_an_answer_acts(home: Path) -> None:
    """Acceptance 28: evil in every text of a state is shown escaped; the pane knows only what reprod itself writes."""
    row = dataset_row(EVIL, EVIL, reason=EVIL, hint=EVIL, path=EVIL, problems=[{"path": EVIL, "problem": EVIL}])
    status = status_answer(row, version=EVIL, user=EVIL, attention=[{"what": EVIL, "hint": EVIL}])
    status["tracking"] = {"uri": EVIL, "state": "unreachable", "error": EVIL}

    message = {"jsonrpc": "2.0", "method": "progress", "params": {"seq": 1, "status": status}}
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(60)
    listener.bind(str(home / "state" / "control.sock"))
    listener.listen()
    with listener, Terminal(["status", "--watch"], 100, 40) as terminal:
        connection, _ = listener.accept()
        connection.sendall(json.dumps(message).encode() + b"\n")
        text = terminal.until(lambda text: "e\\x1b[2J" in text, "it is drawn")
        assert "\\x9b31mi\\xff" in text.replace("\n", "")
        terminal.type("\x03")
        assert terminal.ended() == 130
        connection.close()
