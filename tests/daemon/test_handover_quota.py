"""What processes say of themselves: believed of their own user only, taken within bounds, and not kept for ever.

Every daemon here is a real process of root's, every stranger a process that gave up its rights. Times are nanoseconds
where a name says so, sizes bytes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_socket_authority import NOBODY, Served, as_somebody, code_of, eventually, place, request, serving

from reprod.capture.environment import capture_self
from reprod.capture.process.identity import boot_id, current_context, start_ticks
from reprod.core.binding import LOCAL_SLACK_NS
from reprod.core.environment import Environment, Record, encode, encode_record
from reprod.core.execution import Execution, Subject
from reprod.core.numerics import RandomState
from reprod.core.process import ProcessContext
from reprod.core.run import PendingRun
from reprod.core.snapshot import Snapshot
from reprod.daemon import callers
from reprod.errors import StateError
from reprod.ops.publish import find_environment
from reprod.store import files, outbox, snapshots
from reprod.store.connection import Database

DAY_NS = 86_400 * 1_000_000_000
OTHER = 65533

#: A process of somebody's in a pid namespace that announces itself and ends, as in a container with the socket in it.
ANNOUNCE = """
import json, os, sys
from reprod.capture.handover import ask
from reprod.capture.process.identity import current_context
assert ask("run", "tables", answer_s=60.0), "no answer"
print(current_context().to_json(), flush=True)
sys.stdin.read()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


def context(pid: int, ticks: int | None = None) -> ProcessContext:
    ticks = start_ticks(pid) if ticks is None else ticks
    assert ticks is not None
    return ProcessContext(1, "h", boot_id(), pid, ticks, "/x")


def record(note: str = "", taken_ns: int = 1) -> Record:
    execution = Execution(Subject("process", "h", boot_id(), "handover"), taken_ns)
    return Record(execution, Environment(variables={"LANG": note}))


def to_object(value: object) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def handover(of: ProcessContext, what: Record) -> bytes:
    return request("handover", context=of.to_object(), record=json.loads(encode_record(what)))


@contextmanager
def open_to_all(*command: str) -> Iterator[Served]:
    """Run root's daemon at a socket that every user can reach."""
    with place() as base:
        (base / "run").mkdir(mode=0o755)
        with serving(base, *command) as served:
            yield served


@pytest.fixture(scope="module")
def daemon() -> Iterator[Served]:
    with open_to_all() as served:
        yield served


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Database]:
    with closing(files.open_registry(tmp_path / "state").db) as db:
        yield db


@contextmanager
def living(uid: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process of ``uid`` that says nothing to anybody."""
    code = f"import os, sys; os.setgid({uid}); os.setuid({uid}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate(timeout=60)


@contextmanager
def announced(served: Served, uid: int, *before: str, code: str = ANNOUNCE) -> Iterator[ProcessContext]:
    """Run a process of ``uid`` that announces itself with the product's own code, until the end of the block."""
    capability = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]  # Python may be root's
    become = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *capability]
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "REPROD_SOCKET": str(served.path)}
    with subprocess.Popen(
        [*before, *become, sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/", text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = ProcessContext.parse(process.stdout.readline())
        assert said is not None
        yield said
        process.communicate(timeout=60)


def environment_of(served: Served, of: ProcessContext) -> str | None:
    """Return the environment that a run of this process would get now."""
    with closing(files.open_registry_readonly(served.state)) as db:
        return find_environment(db, of.to_json(), time.time_ns()).digest


# --- whose process it was --------------------------------------------------------------------------------------------


@needs_root
def test_nobody_speaks_for_a_process_that_has_ended(daemon: Served) -> None:
    """A record for a process that ended without a word, or that is yet to come, is refused, and no run is given it."""
    with living(OTHER) as victim:
        theirs = context(victim.pid)
    yet_to_come = context(4_000_001, 2**40)
    forged = record("forged")
    for of in (theirs, yet_to_come):
        (answer,) = as_somebody(daemon, NOBODY, NOBODY, handover(of, forged))
        assert code_of(answer) == 77
        assert f"no process {of.pid} is seen here" in answer["error"]["message"]
        assert answer["error"]["data"]["hint"]
        assert environment_of(daemon, of) is None


@needs_root
def test_who_announced_it_while_it_lived_speaks_for_it(daemon: Served) -> None:
    """After its end the user who announced a process may hand its record over; another user may not, before or after.

    The first record stands, and one that comes later is not even kept.
    """
    true, forged, later = record("true"), record("forged"), record("later")
    with announced(daemon, OTHER) as theirs:
        assert code_of(as_somebody(daemon, NOBODY, NOBODY, handover(theirs, forged))[0]) == 2
    # The child that the announcement started hands over too: whichever came first is the process's own.
    refused, taken, again = (
        as_somebody(daemon, uid, uid, handover(theirs, what))[0]
        for uid, what in ((NOBODY, forged), (OTHER, true), (OTHER, later))
    )
    assert (code_of(refused), code_of(taken), code_of(again)) == (77, 0, 0)
    assert "belongs to another user" in refused["error"]["message"]
    assert environment_of(daemon, theirs) == taken["result"]["digest"] == again["result"]["digest"]
    with closing(files.open_registry_readonly(daemon.state)) as db:
        assert db.read(lambda c: snapshots.environment(c, later.environment.digest())) is None


@needs_root
def test_nobody_tells_the_end_of_anothers_process(daemon: Served) -> None:
    """What a process used is told by its own user only; it joins the record, whichever comes first."""
    last = Execution(record().execution.subject, 2, random_state=RandomState(torch_seed="7"))
    silent_end = ANNOUNCE.replace("sys.stdin.read()", "sys.stdin.read(); os._exit(0)")
    with announced(daemon, OTHER, code=silent_end) as theirs:
        line = request("handover", context=theirs.to_object(), execution=to_object(last))
        assert code_of(as_somebody(daemon, NOBODY, NOBODY, line)[0]) == 2
    refused, taken = (as_somebody(daemon, uid, uid, line)[0] for uid in (NOBODY, OTHER))
    assert (code_of(refused), code_of(taken)) == (77, 0)
    as_somebody(daemon, OTHER, OTHER, handover(theirs, record("true")))
    with closing(files.open_registry_readonly(daemon.state)) as db:
        execution = find_environment(db, theirs.to_json(), time.time_ns()).execution
    assert execution is not None
    assert execution.random_state == last.random_state
    with living(OTHER) as silent:
        line = request("handover", context=context(silent.pid).to_object(), execution=to_object(last))
    assert code_of(as_somebody(daemon, OTHER, OTHER, line)[0]) == 77


@needs_root
def test_number_15_who_says_to_be_process_1(daemon: Served) -> None:
    """The kernel says who connected: another's pid in a message is neither noted nor given an environment."""
    first = context(1)
    told, given = as_somebody(
        daemon, NOBODY, NOBODY, request("announce", context=first.to_object()), handover(first, record("forged"))
    )
    assert (code_of(told), code_of(given)) == (0, 2)
    with closing(files.open_registry_readonly(daemon.state)) as db:
        assert db.read(lambda c: snapshots.handover(c, first.key)) is None


@needs_root
def test_a_script_of_another_user_that_ends_at_once_is_known(daemon: Served) -> None:
    """Its announcement is heard while it lives, so the record that its child sends after its end is taken."""
    code = ANNOUNCE.replace("sys.stdin.read()", "os._exit(0)")
    with announced(daemon, NOBODY, code=code) as theirs:
        pass
    eventually(lambda: environment_of(daemon, theirs) is not None, 30, "its child handed its environment over")
    told = eventually(
        lambda: [each for each in daemon.log().splitlines() if f'"pid": {theirs.pid},' in each], 30, "it is logged"
    )
    assert json.loads(told[0])["uid"] == NOBODY


@needs_root
def test_a_process_in_a_container_is_known_by_its_own_pid(daemon: Served) -> None:
    """In another pid namespace a process knows itself by another pid: the kernel tells both, so it may announce it."""
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("cannot make a pid namespace")
    with announced(daemon, NOBODY, *alone) as theirs:
        assert theirs.pid < 100
    stranger, own = (as_somebody(daemon, uid, uid, handover(theirs, record("container")))[0] for uid in (OTHER, NOBODY))
    assert (code_of(stranger), code_of(own)) == (77, 0)


def test_what_is_certain_outranks_what_was_said(registry: Database) -> None:
    """A process of this pid namespace cannot be kept from its own record by who claimed its pid and start before it."""
    of, here = current_context(), capture_self(git=False)
    forged = record("forged")
    foreseen = callers.Claim(of, NOBODY, proven=False)
    registry.write(lambda c: callers.note(c, foreseen))
    registry.write(lambda c: callers.keep_record(c, foreseen, forged, forged.environment.digest()))
    own = callers.Claim(of, OTHER, proven=True)
    key = here.environment.digest()
    assert registry.write(lambda c: callers.keep_record(c, own, here, key)) == (key, True)
    with pytest.raises(StateError, match="another user"):
        registry.write(lambda c: callers.keep_record(c, foreseen, forged, forged.environment.digest()))
    assert find_environment(registry, of.to_json(), time.time_ns()).digest == key


@needs_root
def test_a_speaker_is_who_connected_and_lives() -> None:
    """Pid, start and user must all be those of the process at the other end."""
    with living(NOBODY) as process:
        of = context(process.pid)
        assert callers.is_speaker(process.pid, NOBODY, of)
        assert callers.owner(of) == NOBODY
        wrong = replace(of, start_ticks=of.start_ticks + 1)
        assert not callers.is_speaker(process.pid, OTHER, of)
        assert not callers.is_speaker(process.pid, NOBODY, wrong)
        assert not callers.is_speaker(os.getpid(), 0, of)
        assert callers.owner(wrong) is None
        assert callers.owner(replace(of, boot_id=of.boot_id[::-1])) is None
    assert not callers.is_speaker(process.pid, NOBODY, of)
    assert callers.owner(of) is None


# --- how much --------------------------------------------------------------------------------------------------------


@needs_root
def test_a_user_hands_over_so_much_an_hour() -> None:
    """Beyond it there is 77 with the reason; others still may, up to what all get together, and root always."""
    small = (
        "from reprod.daemon import callers; size = callers.LEAST_BYTES; "
        "callers.RECORDS = callers.Allowance(3 * size, 4 * size); "
        "from reprod.__main__ import main; main(['daemon'])"
    )
    with open_to_all(sys.executable, "-c", small) as served, living(NOBODY) as one, living(OTHER) as other:
        lines = [handover(context(one.pid), record(f"r{i}")) for i in range(5)]
        answers = as_somebody(served, NOBODY, NOBODY, *lines)
        assert [code_of(answer) for answer in answers] == [0, 0, 0, 77, 77]
        assert answers[-1]["error"]["message"] == f"uid {NOBODY} has handed over too much within an hour"
        assert "a daemon of your own" in answers[-1]["error"]["data"]["hint"]
        lines = [handover(context(other.pid), record(f"s{i}")) for i in range(2)]
        assert [code_of(answer) for answer in as_somebody(served, OTHER, OTHER, *lines)] == [0, 77]
        for i in range(6):
            assert code_of(json.loads(served.send(handover(current_context(), record(f"t{i}"))))) == 0
        with closing(files.open_registry_readonly(served.state)) as db:
            query = "SELECT count(execution) FROM handover JOIN environment USING (digest)"
            assert db.read(lambda c: c.execute(query).fetchone()[0]) == 3, "one a process"


@needs_root
def test_long_lines_count_by_their_length(daemon: Served) -> None:
    """32 MiB an hour: four of nearly 8 MiB and no fifth, which is not even received to its end."""
    with living(60_001) as process:
        line = handover(context(process.pid), record("n" * 8_200_000))
        answers = as_somebody(daemon, 60_001, 60_001, *[line] * 4)
        assert [code_of(answer) for answer in answers] == [0, 0, 0, 0]
        code = (
            "import os, socket, sys; data = sys.stdin.buffer.read(); os.setgid(60001); os.setuid(60001)\n"
            "with socket.socket(socket.AF_UNIX) as s:\n"
            "    s.settimeout(20); s.connect(sys.argv[1]); sent = 0\n"
            "    try:\n"
            "        while sent < len(data): sent += s.send(data[sent:sent + 65536])\n"
            "    except (BrokenPipeError, ConnectionResetError): pass\n"
            "    print(sent); print(s.makefile().readline())\n"
        )
        done = subprocess.run([sys.executable, "-c", code, daemon.path], input=line, capture_output=True, timeout=60)
        sent, answer = done.stdout.decode().split("\n", 1)
        assert int(sent) < len(line)
        assert "handed over too much" in answer, done.stderr


@needs_root
def test_announcements_have_a_limit_too() -> None:
    """Beyond it a process is not written down any more, but its run is looked for and its start not disturbed."""
    few = (
        "from reprod.daemon import callers; callers.ANNOUNCEMENTS = callers.Allowance(2, 3); "
        "from reprod.__main__ import main; main(['daemon'])"
    )
    with open_to_all(sys.executable, "-c", few) as served:
        for _ in range(4):
            with announced(served, NOBODY, code=ANNOUNCE.replace("from reprod.capture.handover import ask", NO_CHILD)):
                pass
        with closing(files.open_registry_readonly(served.state)) as db:
            assert db.read(lambda c: c.execute("SELECT count(*) FROM handover").fetchone()[0]) == 2


NO_CHILD = "from reprod.capture import handover\nhandover._record_once = lambda *_: None\nask = handover.ask"


def test_an_hour_later_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user took counts for an hour; all together have a bound of their own; one's own users have none."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    allowance = callers.Allowance(10, 15)
    assert allowance.take(1001, 6)
    assert not allowance.take(1001, 5)
    assert allowance.take(1001, 4)
    assert allowance.left(1001) == 0
    assert allowance.take(1002, 5)
    assert not allowance.take(1003, 1), "fifteen for all"
    assert allowance.take(os.geteuid(), 1000)
    assert allowance.take(0, 1000)
    now[0] += callers.HOUR_S - 1
    assert not allowance.take(1001, 1)
    now[0] += 2
    assert allowance.left(1001) == 10
    assert allowance.take(1001, 10)


def test_no_record_is_from_the_future(registry: Database) -> None:
    """A record counts as taken when it came, at the latest: one from the year 2200 would be kept until then."""
    claim, given = callers.Claim(current_context(), os.geteuid(), proven=True), record("x", 7_258_118_400_000_000_000)
    registry.write(lambda c: callers.keep_record(c, claim, given, given.environment.digest()))
    known = registry.read(lambda c: snapshots.handover(c, claim.context.key))
    assert known is not None
    assert known.taken_ns <= time.time_ns()
    assert known.execution is not None
    assert json.loads(known.execution)["taken_ns"] == known.taken_ns


# --- how long --------------------------------------------------------------------------------------------------------


def keep(db: Database, of: ProcessContext, what: Record) -> str:
    """Hand a record over as the daemon's own user does."""
    claim = callers.Claim(of, os.geteuid(), proven=False)
    return db.write(lambda c: callers.keep_record(c, claim, what, what.environment.digest()))[0]


def owe(db: Database, run_id: str, of: ProcessContext | None, environment: str | None = None) -> int:
    """Notice a run of a process; with ``environment`` it is recorded with that. Return its row's id."""
    run = PendingRun(run_id, "1", "n", "RUNNING", 1, None, "tables", of.to_json() if of else None)
    db.write(lambda c: outbox.notice(c, "u", run_id, "tables", to_json(run), time.time_ns()))
    found = db.read(lambda c: outbox.find(c, run_id))[0].id
    if environment is not None:
        snapshot = Snapshot(1, "h", (), environment, record().execution, None)
        db.write(lambda c: outbox.published(c, found, to_json(snapshot)))
        db.write(lambda c: outbox.delivered(c, found, "captured", ended=True, now_ns=1))
    return found


def to_json(value: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(value)


def present(db: Database) -> tuple[set[str], set[str]]:
    """Return the environments and the processes that the registry knows."""

    def names(query: str) -> set[str]:
        return db.read(lambda c: {row[0] for row in c.execute(query)})

    return names("SELECT digest FROM environment"), names("SELECT process FROM handover")


def test_what_no_run_needs_is_forgotten_after_a_month(registry: Database) -> None:
    """A run's environment, its process's record and samples stay; what is younger than 30 days too; the rest goes."""
    now = time.time_ns()
    old, young = now - 31 * DAY_NS, now - 29 * DAY_NS
    processes = [context(1000 + i, 1) for i in range(6)]
    unused = keep(registry, processes[0], record("unused", old))
    fresh = keep(registry, processes[1], record("fresh", young))
    used = keep(registry, processes[2], record("used", old))
    named = keep(registry, processes[3], record("named", old))
    shared = keep(registry, processes[4], record("shared", old))
    assert keep(registry, processes[5], record("shared", young)) == shared
    sampled, read = record("sampled", old), record("read", old)
    found = sampled.environment
    registry.write(lambda c: snapshots.keep_environment(c, found.digest(), encode(found), old))
    registry.write(lambda c: snapshots.keep_sample(c, "host", sampled.environment.digest(), old))
    seen, attached = read.environment, {"git_diff.txt": b"+1"}
    registry.write(lambda c: snapshots.keep_environment(c, seen.digest(), encode(seen), old, attached))
    registry.write(lambda c: snapshots.announce(c, "silent", 1, old))
    owe(registry, "a", None, used)
    owe(registry, "b", processes[3], "another")
    forgotten = registry.write(lambda c: snapshots.forget_unneeded(c, "u", now))
    size = len(encode(record("unused").environment)) + len(encode(seen)) + 2
    assert forgotten == snapshots.Forgotten(2, size), (unused, read.environment.digest())
    environments, known = present(registry)
    assert environments == {fresh, used, named, shared, sampled.environment.digest()}
    assert known == {processes[i].key for i in (1, 3, 5)}
    assert registry.write(lambda c: snapshots.forget_unneeded(c, "u", now)) == snapshots.Forgotten(0, 0)


def test_nothing_is_forgotten_while_a_run_is_being_recorded(registry: Database) -> None:
    """Between finding its environment and naming it a run has no claim on it yet."""
    keep(registry, context(1000, 1), record("old", 1))
    found = owe(registry, "a", None)
    now = time.time_ns()
    assert registry.write(lambda c: snapshots.forget_unneeded(c, "u", now)) is None
    registry.write(lambda c: outbox.published(c, found, to_json(Snapshot(1, "h", (), None, None, "x"))))
    registry.write(lambda c: outbox.delivered(c, found, "incomplete", ended=True, now_ns=1))
    registry.write(lambda c: outbox.look_again(c, found, now - LOCAL_SLACK_NS))
    assert registry.write(lambda c: snapshots.forget_unneeded(c, "u", now)) is None
    registry.write(lambda c: outbox.look_again(c, found, now + DAY_NS // 2))
    registry.write(lambda c: outbox.notice(c, "another server", "b", "tables", b"{}", now))
    assert registry.write(lambda c: snapshots.forget_unneeded(c, "u", now)) is not None
    assert present(registry) == (set(), set())


def test_too_much_that_no_run_needs_goes_sooner(registry: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a gigabyte of it, the oldest go after a day; what came today stays whatever there is."""
    now = time.time_ns()
    ages = [0, 1, 2, 3, 4]
    kept = [keep(registry, context(1000 + a, 1), record(f"of day {a}", now - a * DAY_NS - 1000)) for a in ages]
    size = len(encode(record("of day 0", now).environment))
    monkeypatch.setattr(snapshots, "MOST_UNNEEDED_BYTES", 3 * size)
    assert registry.write(lambda c: snapshots.forget_unneeded(c, "u", now)) == snapshots.Forgotten(2, 2 * size)
    assert present(registry)[0] == set(kept[:3])
    monkeypatch.setattr(snapshots, "MOST_UNNEEDED_BYTES", 0)
    registry.write(lambda c: snapshots.forget_unneeded(c, "u", now))
    assert present(registry)[0] == set(kept[:1])


def test_the_daemon_forgets_by_itself() -> None:
    """Once a day, and some time after its start: here that is a second."""
    soon = (
        "from reprod.daemon import pruner; pruner.FIRST_S = pruner.LOOK_S = 0.5; "
        "from reprod.__main__ import main; main(['daemon'])"
    )
    with place() as base:
        with closing(files.open_registry(base / "state").db) as db:
            (base / "state").chmod(0o700)
            gone = keep(db, context(1000, 1), record("gone", 1))
            stays = keep(db, context(1001, 1), record("stays", time.time_ns()))
        with serving(base, sys.executable, "-c", soon) as served:
            eventually(lambda: '"environment.forgotten"' in served.log(), 20, "it says so")
            with closing(files.open_registry_readonly(served.state)) as db:
                environments, _ = present(db)
        assert stays in environments
        assert gone not in environments
