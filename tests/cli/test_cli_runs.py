"""``reprod runs`` and ``reprod retry``: every state of a run, what is said of it, and what trying again does.

The outbox is a real registry, filled as the daemon fills it; the daemon's answers are those of the same verb.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_daemon import Done, ScriptedDaemon
from terminal import seen_on

from reprod.core.run import PendingRun
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import NotFoundError, UsageError
from reprod.ops import runs as verb
from reprod.store import files, outbox
from reprod.store.connection import Database

Run = Callable[..., Done]

SERVER = "http://alice:secret@server"
EVIL = "e\x1b[2J\u202e\nvil"


def snapshot(error: str | None, *, retry: bool = False) -> bytes:
    bound = BoundDataset(
        "tables", "/d", None if error else "start", None, 1, None if error else "dt1:" + "a" * 64, 1, 1, 1, None, (),
        0.1, error=error, retry=retry,
    )  # fmt: skip
    return msgspec.json.encode(Snapshot(1, "h", (bound,), None, None, None))


@pytest.fixture
def records(home: Path) -> Iterator[Database]:
    """An outbox, oldest first: recorded, incomplete, incomplete without hope, waiting, failed, new."""
    db = files.open_registry(home / "state").db
    now = time.time_ns()

    def fill(c: Any) -> None:
        for i, name in enumerate(["done", "torn", "late", "retried", "refused", "fresh"], start=1):
            run = PendingRun(f"{i}{i}{i}{i}{i:028x}", "7", name, "FINISHED", 1, 2, "tables")
            outbox.notice(c, SERVER, run.run_id, "tables", msgspec.json.encode(run), now - 60_000_000_000)
        for i, text in ((1, None), (2, "2 entries cannot be read"), (3, "not provable (late)"), (4, None), (5, None)):
            outbox.published(c, i, snapshot(text, retry=i == 2))
        outbox.delivered(c, 1, "captured", ended=True, now_ns=now)
        outbox.delivered(c, 2, "incomplete", ended=True, now_ns=now)
        outbox.look_again(c, 2, now + 30_000_000_000)
        outbox.delivered(c, 3, "incomplete", ended=True, now_ns=now)
        outbox.postpone(c, 4, "connection refused", now + 100_000_000_000)
        outbox.failed(c, 5, "the server refuses the tag", now)

    db.write(fill)
    yield db
    db.close()


def run_id(number: int) -> str:
    return f"{number}{number}{number}{number}{number:028x}"


def row(db: Database, number: int) -> outbox.Delivery:
    found = db.read(lambda c: outbox.get(c, number))
    assert found is not None
    return found


def test_every_state_without_a_daemon(records: Database, reprod: Run) -> None:
    """The registry tells what is owed: newest first, with the reason and what to do; that nobody acts is said too."""
    done = reprod("runs")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == [
        "RUN",
        "NAME",
        "EXPERIMENT",
        "DATASET",
        "STATE",
        "DRIFT",
        "SINCE",
        "TRIES",
        "NEXT",
        "TRY",
    ]
    states = [line.split()[5] for line in lines[1:] if not line.startswith(" ")]
    assert states == ["noticed", "failed", "waiting", "incomplete", "incomplete", "captured"]
    assert lines[2].startswith("55550000  refused  7           tables   ✗ failed")
    assert "    the server refuses the tag" in lines
    assert "    hint: mend that, then: reprod retry run:55550000" in lines
    assert "    connection refused" in lines
    assert "    hint: it is tried again by itself; at once: reprod retry run:44440000" in lines
    assert "    tables: 2 entries cannot be read" in lines
    assert "    hint: it is looked at again by itself; at once: reprod retry run:22220000" in lines
    late = lines.index("    tables: not provable (late)")
    assert not lines[late + 1].startswith("    hint"), "nothing helps, so nothing is advised"
    assert "nothing is tried now" in done.err
    assert "secret" not in done.out


@pytest.mark.parametrize(
    ("flag", "names"),
    [("--waiting", ["fresh", "retried"]), ("--failed", ["refused"]), ("--incomplete", ["late", "torn"])],
)
def test_one_kind(records: Database, reprod: Run, flag: str, names: list[str]) -> None:
    """Each flag lists its kind and no other; --json has the whole, with times."""
    answer = reprod("runs", flag, "--json").json
    assert answer["schema"] == "reprod.runs/1"
    assert answer["live"] is False
    assert [each["name"] for each in answer["runs"]] == names
    assert answer["total"] == len(names)
    first = answer["runs"][0]
    assert set(first) == {
        "run_id", "name", "experiment_id", "datasets", "state", "noticed_at", "settled_at", "attempts", "next_try_at",
        "error", "hint", "drift",
    }  # fmt: skip
    assert first["datasets"] == ["tables"]


def test_times(records: Database) -> None:
    """What is due is due now; a failed run, a captured one and one beyond proof have no next try."""
    told = {each["name"]: each for each in verb.runs(records, "all", 10)["runs"]}
    assert told["fresh"]["next_try_at"] is not None
    assert told["retried"]["next_try_at"] > told["fresh"]["next_try_at"]
    assert told["torn"]["next_try_at"] is not None
    assert [told[name]["next_try_at"] for name in ("done", "late", "refused")] == [None] * 3
    assert told["retried"]["attempts"] == 1
    assert told["retried"]["settled_at"] is None


def test_of_many_the_newest(records: Database, reprod: Run) -> None:
    """--limit says how many; how many more there are is said."""
    done = reprod("runs", "--limit", "2")
    assert len([line for line in done.out.splitlines()[1:-1] if not line.startswith(" ")]) == 2
    assert done.out.splitlines()[-1] == "and 4 more runs (--limit N shows more)"


def test_another_server_is_named_without_its_password(records: Database) -> None:
    """A run of a server that is no longer configured waits for that one; credentials are not shown."""
    told = {each["name"]: each for each in verb.runs(records, "waiting", 10, "http://other")["runs"]}
    assert told["fresh"]["hint"] == "it waits for http://server; this daemon talks to http://other"
    outlook = verb.retry(records, "fresh", "http://other")["what"]
    assert "http://server, which this daemon does not talk to now" in outlook
    assert "secret" not in outlook


def test_nothing_yet(home: Path, reprod: Run) -> None:
    """Without a registry there is no run, and that is no error."""
    assert "no run was recorded yet" in reprod("runs").out
    assert reprod("runs", "--failed").out == "no run failed\n"
    assert reprod("runs", "--json").json["runs"] == []


def test_retry_of_each(records: Database) -> None:
    """Failed and waiting: written now. Incomplete: looked at again. New: walked for. Captured: nothing to do."""
    expected = {
        1: "nothing to try",
        2: "judged again",
        3: "judged again",
        4: "is written",
        5: "is written",
        6: "is walked",
    }
    for number, words in expected.items():
        answer = verb.retry(records, f"run:{run_id(number)[:8]}", SERVER)
        assert (answer["run_id"], answer["due"]) == (run_id(number), number != 1)
        assert words in answer["what"]
    assert [row(records, n).state for n in range(1, 7)] == ["done", "done", "done", "waiting", "waiting", "noticed"]
    assert (row(records, 5).attempts, row(records, 5).outcome, row(records, 5).next_ns) == (0, None, 0)
    now = time.time_ns()
    assert [d.id for d in records.read(lambda c: outbox.due(c, SERVER, "waiting", now))] == [4, 5]
    assert [d.id for d in records.read(lambda c: outbox.due_again(c, SERVER, now))] == [2, 3]
    assert row(records, 1).next_ns == 0


def test_retry_of_a_run_that_failed_before_it_was_bound(records: Database) -> None:
    """Without a snapshot it begins anew, as if it had just been noticed."""
    records.write(lambda c: outbox.failed(c, 6, "no", 1))
    assert "is walked" in verb.retry(records, "fresh", SERVER)["what"]
    assert row(records, 6).state == "noticed"


def test_retry_of_what_is_not_there(records: Database) -> None:
    """Unknown is 4, several 2, deleted 4."""
    records.write(lambda c: outbox.gone(c, 1, 1))
    for text, error, message in (
        ("run:zzzz", NotFoundError, "no run 'zzzz'"),
        ("run:", NotFoundError, "no run ''"),
        ("done", NotFoundError, "was deleted"),
    ):
        with pytest.raises(error, match=message):
            verb.retry(records, text, SERVER)
    twin = PendingRun("2222ffff", "7", "twin", "FINISHED", 1, 2, "tables")
    records.write(lambda c: outbox.notice(c, SERVER, "2222ffff", "tables", msgspec.json.encode(twin), 1))
    with pytest.raises(UsageError, match="is several runs: 2222"):
        verb.retry(records, "run:2222", SERVER)


def test_the_command_asks_the_daemon(daemon: ScriptedDaemon, reprod: Run) -> None:
    """retry needs the daemon, says before and after, and has the daemon's codes; runs asks it too."""
    answer = {"run_id": "0a1b2c3d", "name": "fast", "state": "failed", "due": True, "what": "it is written now"}
    daemon.says("retry", **answer)
    done = reprod("retry", "run:0a1b")
    assert daemon.calls[-1] == ("retry", {"run": "run:0a1b"})
    assert done.out.splitlines()[:2] == ["run 0a1b2c3d (fast)", "  failed: it is written now"]
    assert reprod("retry", "run:0a1b", "--json").json == {"schema": "reprod.retry/1", **answer}
    daemon.refuses("retry", 4, "no run 'x'", "reprod runs")
    assert reprod("retry", "run:x").code == 4
    daemon.says("runs", which="failed", total=0, runs=[])
    assert reprod("runs", "--failed").out == "no run failed\n"
    assert daemon.calls[-1] == ("runs", {"which": "failed", "limit": 50})


def test_a_pipe_has_whole_names_and_no_run_is_denied(daemon: ScriptedDaemon, reprod: Run) -> None:
    """In a pipe no name is cut; --limit 0 says how many there are, and not that there are none."""
    long = "n" * 120
    run = {"run_id": "9" * 32, "name": long, "state": "captured", "datasets": ["x"]}
    daemon.says("runs", which="all", total=3, runs=[run])
    assert f"  {long}  " in reprod("runs").out
    daemon.says("runs", which="all", total=3, runs=[])
    assert reprod("runs", "--limit", "0").out == "3 runs (--limit N shows some)\n"


def test_retry_without_a_daemon_is_3(home: Path, reprod: Run) -> None:
    """Nobody would try it."""
    assert reprod("retry", "run:x").code == 3


@pytest.mark.parametrize(
    "argv", [["runs", "--limit", "x"], ["runs", "--limit", "1001"], ["runs", "--waiting", "--failed"]]
)
def test_wrong_use(reprod_process: Run, argv: list[str]) -> None:
    """2, with the flag's name."""
    done = reprod_process(*argv)
    assert done.code == 2
    assert argv[1] in done.err


@pytest.mark.parametrize("width", [40, 80, 200])
def test_hostile_runs_on_a_terminal(records: Database, width: int) -> None:
    """A run's name, tag and error come from people: nothing in them acts, and no line is wider than the terminal."""
    run = PendingRun("9999", EVIL, EVIL * 9, "FINISHED", 1, 2, EVIL)
    records.write(lambda c: outbox.notice(c, SERVER, EVIL, EVIL * 3, msgspec.json.encode(run), 1))
    records.write(lambda c: outbox.failed(c, 7, EVIL * 9, 1))
    glass = seen_on(["runs"], width)
    assert "e\\x1b[2J" in glass.text
    assert glass.scrolled == 0
