"""``reprod status`` against a scripted daemon: every state, --check, --json, and what is shown without a daemon."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripted_daemon import Done, ScriptedDaemon, dataset_row, status_answer
from terminal import written_to

import reprod.ops
from reprod.errors import DamagedError

Run = Callable[..., Done]

#: What a status call may not load (architecture: 40 to 50 ms end to end).
HEAVY = {
    *("mlflow", "asyncio", "anyio", "structlog", "rich", "watchfiles", "psutil", "msgspec", "pathspec", "aiofiles"),
    *("dataclasses", "inspect", "tomllib", "logging", "subprocess", "sqlite3", "unicodedata", "difflib", "textwrap"),
}


@pytest.fixture
def lastknown(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Stand in for the registry's reader, whose own tests are with the store."""

    def install(answer: Any) -> None:
        module = ModuleType("reprod.ops.lastknown")

        def read(_state: Path) -> dict[str, Any]:
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, dict)
            return answer

        module.read = read  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "reprod.ops.lastknown", module)
        monkeypatch.setattr(reprod.ops, "lastknown", module, raising=False)

    return install


def test_the_screen(daemon: ScriptedDaemon, reprod: Run) -> None:
    """One header with who answers and the server, one line a dataset, reasons below it, what needs a person last."""
    daemon.says(
        "status",
        **status_answer(
            dataset_row("imagenet"),
            dataset_row(
                "docs",
                "scanning",
                progress={
                    "phase": "hashing",
                    "files": 11000,
                    "bytes": 2**30,
                    "total_files": 18233,
                    "total_bytes": 2**32,
                    "percent": 62.3,
                    "seconds_left": 3.0,
                },
            ),
            dataset_row("audio", "unavailable", reason="/mnt/nfs is not mounted.", hint="mount it"),
            dataset_row("fresh", "new", files=None, bytes=None, version=None, digest=None, last_change_at=None),
            dataset_row(
                "torn",
                "incomplete",
                digest=None,
                complete=False,
                problem_count=5,
                problems=[{"path": f"p{i}", "problem": "Permission denied"} for i in range(4)],
            ),
            dataset_row("slow", "dirty", watch="poll", watch_reason="a name is not UTF-8"),
            dataset_row("wrong", "misconfigured", reason="x.toml:1: unknown key 'a'", hint="did you mean path?"),
            dataset_row("broken", "failed", reason="RuntimeError: boom"),
            attention=[
                {"what": "audio: /mnt/nfs is not mounted.", "hint": "mount it", "dataset": "audio"},
                {"what": "the registry was rebuilt", "hint": "look at it"},
            ],
            user="alice",
            system=False,
        ),
    )
    done = reprod("status")
    assert done.code == 0
    assert done.err == ""
    lines = done.out.splitlines()
    assert re.match(r"● reprod 0\.1\.0  user daemon of alice · pid 4242 · up 26 h · 45\.8 MiB$", lines[0])
    assert re.match(r"  MLflow http://127\.0\.0\.1:5000 reachable · polled .* ago · 0 runs waiting$", lines[1])
    assert lines[2] == "  watching 8 datasets · 9,318,169 files · 1015.7 GiB"
    text = done.out
    assert re.search(r"(?m)^  imagenet +● current +1,331,167  145\.1 GiB  .* ago +@41 +dt1:7f3a1c0e1234$", text)
    assert re.search(r"(?m)^  docs +◐ hashing 62% ", text)
    assert "    11,000 of 18,233 files · 1.0 GiB of 4.0 GiB · about 3.0 s left" in lines
    assert re.search(r"(?m)^  audio +✗ unavailable ", text)
    assert "    /mnt/nfs is not mounted." in lines
    assert "    hint: mount it" in lines
    assert re.search(r"(?m)^    last seen .* ago; nothing was forgotten$", text)
    assert re.search(r"(?m)^  fresh +○ new +- +- +- +- +-$", text)
    assert re.search(r"(?m)^  torn +▲ incomplete .* no digest$", text)
    assert "    p2: Permission denied" in lines
    assert "    p3: Permission denied" not in lines
    assert "    and 2 more problems (all: reprod status torn)" in lines
    assert "    watched by polling: a name is not UTF-8" in lines
    assert re.search(r"(?m)^  wrong +✗ misconfigured", text)
    assert re.search(r"(?m)^  broken +✗ failed", text)
    assert lines[-4:] == [
        "2 things need you:",
        "  ▲ audio is unavailable, see above",
        "  ▲ the registry was rebuilt",
        "    hint: look at it",
    ]
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("tracking", "runs", "expected"),
    [
        (
            {"uri": None, "state": "none"},
            {},
            "  no tracking server: tagged runs are not noticed\n  hint: set tracking_uri",
        ),
        (
            {"uri": "http://h", "state": "starting", "local": True},
            {},
            "  MLflow http://h (local) starting · 0 runs waiting",
        ),
        (
            {"uri": "http://h", "state": "unreachable", "error": "refused", "last_poll_at": None},
            {"waiting": 3, "oldest_waiting_seconds": 240.0, "failed": 1, "incomplete": 2},
            """  MLflow http://h is unreachable: refused
  no answer yet · 3 runs waiting, the oldest for 4 min, 2 incomplete, 1 failed""",
        ),
    ],
)
def test_the_tracking_server(
    daemon: ScriptedDaemon, reprod: Run, tracking: dict[str, Any], runs: dict[str, Any], expected: str
) -> None:
    """None, starting, unreachable: each is said with what waits for it."""
    daemon.says("status", **status_answer(tracking=tracking, runs=runs))
    assert expected in reprod("status").out


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (status_answer(dataset_row()), 0),
        (status_answer(), 0),
        (status_answer(dataset_row(state="scanning"), dataset_row(state="dirty"), dataset_row(state="new")), 0),
        (status_answer(dataset_row(state="incomplete")), 5),
        (status_answer(dataset_row(state="incomplete"), dataset_row(state="unavailable")), 6),
        (status_answer(dataset_row(state="unavailable"), dataset_row(state="failed")), 1),
        (status_answer(dataset_row(state="misconfigured")), 1),
        (status_answer(dataset_row(), attention=[{"what": "x", "hint": "y"}]), 1),
        (status_answer(dataset_row("x", "unavailable"), attention=[{"what": "x: not mounted", "hint": ""}]), 6),
        (status_answer(dataset_row("x", "incomplete"), attention=[{"what": "?", "hint": "", "dataset": "x"}]), 5),
        (status_answer(dataset_row("x", "incomplete"), attention=[{"what": "xy: polled", "hint": ""}]), 1),
        (status_answer(dataset_row(), tracking={"uri": None, "state": "none"}), 1),
        (status_answer(dataset_row(), tracking={"uri": "http://h", "state": "unreachable"}), 1),
        (status_answer(dataset_row(), tracking={"uri": "http://h", "state": "starting"}), 0),
        (status_answer(dataset_row(), runs={"waiting": 2, "incomplete": 0, "failed": 1}), 1),
    ],
)
def test_check(daemon: ScriptedDaemon, reprod: Run, answer: dict[str, Any], code: int) -> None:
    """--check turns the worst thing into the code; without it the code is 0 whenever a daemon answers."""
    daemon.says("status", **answer)
    assert reprod("status", "--check").code == code
    assert reprod("status").code == 0


def test_json(daemon: ScriptedDaemon, reprod: Run) -> None:
    """--json prints the daemon's object, once, unchanged and with the schema; --check still counts."""
    answer = status_answer(dataset_row(state="unavailable", reason="line\nline"))
    daemon.says("status", **answer)
    done = reprod("status", "--json", "--check")
    assert done.code == 6
    assert done.json == answer


def test_one_dataset(daemon: ScriptedDaemon, reprod: Run) -> None:
    """With a name everything about it is shown: the whole digest and every problem."""
    row = dataset_row(
        "torn",
        "incomplete",
        problems=[{"path": f"p{i}", "problem": "EIO"} for i in range(5)],
        problem_count=5,
    )
    daemon.says("status", **status_answer(row))
    done = reprod("status", "torn")
    assert daemon.calls[-1] == ("status", {"name": "torn"})
    assert row["digest"] in done.out
    assert "p4: EIO" in done.out
    assert "/data/torn" in done.out


def test_an_unknown_name(daemon: ScriptedDaemon, reprod: Run) -> None:
    """The daemon's error comes out as one line, one hint and its code."""
    daemon.refuses("status", 4, "there is no dataset 'imagent'", "did you mean imagenet?")
    done = reprod("status", "imagent")
    assert (done.code, done.out) == (4, "")
    assert done.err == "error: there is no dataset 'imagent'\nhint: did you mean imagenet?\n"


def test_without_a_daemon(home: Path, reprod: Run, lastknown: Callable[[Any], None]) -> None:
    """Exit 3, reason and cure on standard error; on standard output the last known state, marked as not live."""
    lastknown(status_answer(dataset_row(), live=False, stopped_at="2026-01-01T00:00:00Z", pid=None))
    done = reprod("status")
    assert done.code == 3
    assert done.err.startswith("error: no daemon answers: ")
    assert "hint: start it: reprod daemon" in done.err
    assert re.match(r"○ reprod is not running: stopped \d+ d ago\. Last known state, not live:\n", done.out)
    assert "imagenet" in done.out
    assert reprod("status", "--check").code == 3
    assert reprod("status", "--json").json["live"] is False
    assert "not live" in reprod("status", "imagenet").out
    assert "nothing is known" in reprod("status", "other").out


def test_without_a_daemon_and_without_a_registry(home: Path, reprod: Run, lastknown: Callable[[Any], None]) -> None:
    """A registry that cannot be read is said too, and the code stays 3."""
    lastknown(DamagedError("registry.db is damaged", hint="it is rebuilt at the next start"))
    done = reprod("status")
    assert done.code == 3
    assert "error: registry.db is damaged" in done.err


def test_nothing_registered(daemon: ScriptedDaemon, reprod: Run) -> None:
    """An empty daemon says what to do first."""
    daemon.says("status", **status_answer())
    assert "hint: reprod dataset add NAME PATH" in reprod("status").out


def test_missing_fields_are_not_guessed(daemon: ScriptedDaemon, reprod: Run) -> None:
    """An answer of another version that lacks almost everything is still a screen."""
    daemon.says("status", datasets=[{"name": "x", "state": "levitating"}])
    done = reprod("status")
    assert done.code == 0
    assert "▲ levitating" in done.out


def test_the_import_budget(daemon: ScriptedDaemon, home: Path) -> None:
    """A status call loads nothing that costs: this is what keeps it at 40 to 50 ms."""
    daemon.says("status", **status_answer(dataset_row()))
    code = "import sys; from reprod.__main__ import main; main(['status']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert "imagenet" in done.stdout
    assert not set(done.stderr.split()) & HEAVY


@pytest.mark.parametrize("width", [40, 80, 200])
def test_on_a_real_terminal(daemon: ScriptedDaemon, width: int) -> None:
    """On a terminal there is colour, no line is wider than it, and no name is obeyed."""
    daemon.says(
        "status",
        **status_answer(
            dataset_row("a-dataset-with-a-name-that-is-rather-long"),
            dataset_row(
                "torn",
                "incomplete",
                reason="evil \x1b[2J reason that is long enough to be wrapped on anything that is narrower than it is",
                problems=[{"path": "a\nb\x1b]0;x\x07", "problem": "EIO"}],
                problem_count=1,
            ),
        ),
    )
    raw = written_to(["status"], width, TERM="xterm")
    assert "\x1b[32m" in raw
    plain = re.sub(r"\x1b\[\d*m", "", raw)
    assert "\x1b" not in plain
    assert "\x07" not in plain
    assert "a\\nb\\x1b]0;x\\x07: EIO" in plain
    assert max(len(line) for line in plain.splitlines()) <= width
    one = re.sub(r"\x1b\[\d*m", "", written_to(["status", "torn"], max(width, 80), TERM="xterm"))
    assert max(len(line) for line in one.splitlines()) <= max(width, 80)
