"""What processes say of themselves is merged and found again: the first record stands, its end is added to it."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import reprod.ops.publish as publish
from reprod.capture.process.command import FROM_OUTSIDE
from reprod.capture.process.identity import boot_id, current_context
from reprod.core.environment import Environment, Record
from reprod.core.execution import Execution, Subject, with_end
from reprod.core.imports import Imports
from reprod.core.numerics import Numerics, RandomState
from reprod.core.packages import PackageSet
from reprod.core.process import ProcessContext
from reprod.core.repository import BUNDLE_NAME, PATCH_NAME, Attachment, Git
from reprod.core.run import PendingRun
from reprod.core.snapshot import Snapshot
from reprod.errors import IncompleteError
from reprod.integrations import recorder
from reprod.ops import handovers
from reprod.store import files, outbox, snapshots
from reprod.store.connection import Database

UID = os.geteuid()
CONTEXT = ProcessContext(1, "h", boot_id(), 4_000_001, 123_456_789, "/x", 4026531836)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Database]:
    with closing(files.open_registry(tmp_path / "state").db) as db:
        yield db


def execution(taken_ns: int = 1, **known: object) -> Execution:
    subject = Subject("process", "h", boot_id(), "handover", CONTEXT.pid, CONTEXT.start_ticks, "/x")
    return Execution(subject, taken_ns, **known)  # type: ignore[arg-type]


def first() -> Execution:
    unknown = {"invocation": "it had ended", "random_state": "another process's"}
    return execution(1, imports=Imports("maps", False), variables={"RANK": "0"}, unknown=unknown)


def last() -> Execution:
    return execution(
        2,
        imports=Imports("in-process", True),
        random_state=RandomState(torch_seed="7"),
        unknown={"numerics": "not readable", "mapped": "x"},
    )


def keep(db: Database, given: Execution) -> str:
    record = Record(given, Environment(packages=PackageSet((), (), ())))
    digest = record.environment.digest()
    return db.write(lambda c: handovers.keep_record(c, CONTEXT.key, UID, record, digest))[0]


def end(db: Database, given: Execution) -> None:
    db.write(lambda c: handovers.keep_end(c, CONTEXT, UID, given))


def known(db: Database) -> Execution:
    row = db.read(lambda c: snapshots.handover(c, CONTEXT.key))
    assert row is not None
    assert row.execution is not None
    return handovers.decode_execution(row.execution)


def test_the_end_replaces_what_it_knows_better() -> None:
    """Imports, numerics and generators are those of the end, where it knows them; all else is the first record's."""
    merged = with_end(first(), last())
    assert merged == replace(
        first(),
        imports=Imports("in-process", True),
        random_state=RandomState(torch_seed="7"),
        unknown={"invocation": "it had ended", "numerics": "not readable"},
    )
    assert with_end(merged, last()) == merged
    assert with_end(replace(first(), numerics=Numerics()), last()).numerics == Numerics()


@pytest.mark.parametrize("order", ["first last", "last first"])
def test_whichever_comes_first(registry: Database, order: str) -> None:
    """A short script's two children race each other: the registry ends up with the same."""
    for each in order.split():
        keep(registry, first()) if each == "first" else end(registry, last())
    row = registry.read(lambda c: snapshots.handover(c, CONTEXT.key))
    assert row is not None
    assert row.digest is not None
    assert known(registry) == with_end(first(), last())


def test_a_second_record_changes_nothing_and_a_second_end_does(registry: Database) -> None:
    """The environment is that of the start; what was used is what the process said last."""
    digest = keep(registry, first())
    end(registry, last())
    other = Record(replace(first(), taken_ns=5), Environment(other_variables=("X",)))
    kept = registry.write(lambda c: handovers.keep_record(c, CONTEXT.key, UID, other, other.environment.digest()))
    assert kept == (digest, False)
    end(registry, replace(last(), random_state=RandomState(torch_seed="8")))
    assert known(registry).random_state == RandomState(torch_seed="8")
    assert known(registry).taken_ns == 1


def test_another_users_row_is_never_touched(registry: Database) -> None:
    """What the store is told of another user's process it does not write."""
    registry.write(lambda c: snapshots.announce(c, CONTEXT.key, UID + 1, 1))
    end(registry, last())
    row = registry.read(lambda c: snapshots.handover(c, CONTEXT.key))
    assert row == snapshots.Handover(CONTEXT.key, UID + 1, None, 1, None)


class TestRuns:
    def owe(self, db: Database, run_id: str, context: ProcessContext, ended: bool = True) -> int:
        """Deliver a run of a process with its first record."""
        run = PendingRun(run_id, "1", "n", "RUNNING", 1, None, "tables", context.to_json())
        db.write(lambda c: outbox.notice(c, "u", run_id, "tables", msgspec.json.encode(run), time.time_ns()))
        found = db.read(lambda c: outbox.find(c, run_id))[0].id
        snapshot = msgspec.json.encode(Snapshot(1, "h", (), "e", first(), None))
        db.write(lambda c: outbox.published(c, found, snapshot))
        db.write(lambda c: outbox.delivered(c, found, "captured", ended=ended, now_ns=1))
        return found

    def test_a_run_that_was_settled_is_told_the_end_once(self, registry: Database) -> None:
        """An end that comes after the run's params reopens that process's runs, no others; an equal one does not."""
        mine, running = self.owe(registry, "a" * 32, CONTEXT), self.owe(registry, "b" * 32, CONTEXT, ended=False)
        others = self.owe(registry, "c" * 32, replace(CONTEXT, pid=7))
        keep(registry, first())

        def states() -> list[str]:
            rows = [registry.read(lambda c, i=each: outbox.get(c, i)) for each in (mine, running, others)]
            return [row.state for row in rows if row is not None]

        assert states() == ["done", "ending", "done"]
        end(registry, last())
        assert states() == ["ending", "ending", "done"]
        registry.write(lambda c: outbox.ended(c, mine))
        end(registry, last())
        assert states() == ["done", "ending", "done"]

    def test_the_last_word(self, registry: Database) -> None:
        """A delivery says what is known by now of the process, and what was frozen where nothing is."""
        owed = self.owe(registry, "a" * 32, CONTEXT)
        row = registry.read(lambda c: outbox.get(c, owed))
        assert row is not None
        snapshot = Snapshot(1, "h", (), "e", first(), None)
        assert registry.read(lambda c: handovers.last_word(c, row, snapshot)) == first()
        end(registry, last())
        assert registry.read(lambda c: handovers.last_word(c, row, snapshot)) == with_end(first(), last())
        sampled = replace(snapshot, execution=Execution(Subject("interpreter", "h", boot_id(), "files"), 1))
        assert registry.read(lambda c: handovers.last_word(c, row, sampled)) == sampled.execution
        unknown = replace(snapshot, execution=None)
        assert registry.read(lambda c: handovers.last_word(c, row, unknown)) is None


class TestFinding:
    """In which order an environment is looked for, and what is said where there is none."""

    def test_partly_seen_is_less_than_samples(self, registry: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """Equal samples of the prefix count before a process of which only the outside could be seen."""
        context = replace(current_context(), prefix="/p")
        outside = Record(first(), Environment(unknown={"packages": "permission: not readable"}))
        monkeypatch.setattr(publish, "read_process", lambda *_: outside)
        found = publish.find_environment(registry, context.to_json(), 5)
        assert found.digest == outside.environment.digest()
        registry.write(lambda c: snapshots.keep_environment(c, "s", b"{}", 1))
        registry.write(lambda c: snapshots.keep_sample(c, "/p", "s", 1))
        registry.write(lambda c: snapshots.keep_sample(c, "/p", "s", 9))
        assert publish.find_environment(registry, context.to_json(), 5).digest == "s"
        whole = replace(outside, environment=Environment(packages=PackageSet((), (), ())))
        monkeypatch.setattr(publish, "read_process", lambda *_: whole)
        assert publish.find_environment(registry, context.to_json(), 5).digest == whole.environment.digest()
        keep(registry, first())
        handed = publish.find_environment(registry, CONTEXT.to_json(), 5)
        assert handed.execution == first()

    def test_nowhere(self, registry: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """All that was tried is said in one sentence, also of a context that names nobody."""

        def ended(*_: object) -> Record:
            raise IncompleteError("it has ended")

        monkeypatch.setattr(publish, "read_process", ended)
        found = publish.find_environment(registry, CONTEXT.to_json(), 5)
        assert found.digest is None
        assert found.unknown == (
            "the process handed over nothing; it has ended; no equal samples of /x bracket the start"
        )
        assert "install reprod" in (publish.find_environment(registry, None, 5).unknown or "")


class TestTooLong:
    """Files of a record go before the record is lost."""

    def record(self) -> Record:
        attachments = tuple(Attachment(name, "0" * 64, 100) for name in (PATCH_NAME, BUNDLE_NAME))
        git = Git("c", "main", True, "/r", files=attachments, restorable="yes")
        return Record(first(), Environment(git=git), {PATCH_NAME: b"p" * 3000, BUNDLE_NAME: b"b" * 2000})

    def test_what_fits_is_whole(self) -> None:
        """A record of ordinary size has its files; a second line has none, for a daemon that refuses the first."""
        whole, less = recorder.shorter(CONTEXT, self.record())
        assert self.sent(whole) == self.record()
        assert self.sent(less).files == {}
        assert "refused" in self.sent(less).environment.unknown["git_files"]

    def test_the_largest_goes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is left out is said in the record, with what it means for having the code again."""
        room = len(recorder._line(CONTEXT, self.record()))
        monkeypatch.setattr(recorder, "MAX_HANDOVER", room - 1)
        line, _ = recorder.shorter(CONTEXT, self.record())
        found = self.sent(line)
        assert len(line) < room
        assert set(found.files) == {BUNDLE_NAME}
        assert found.environment.git is not None
        assert found.environment.git.restorable == "partial"
        assert [each.name for each in found.environment.git.files] == [BUNDLE_NAME]
        assert f"{PATCH_NAME} (3000 bytes)" in found.environment.unknown["git_files"]
        monkeypatch.setattr(recorder, "MAX_HANDOVER", 10)
        (line,) = recorder.shorter(CONTEXT, self.record())
        found = self.sent(line)
        assert found.files == {}
        assert found.environment.git is not None
        assert found.environment.git.restorable == "no"

    def test_patches_of_four_megabytes_arrive(self) -> None:
        """The largest patch and the largest bundle together are longer than a line: one of them is left."""
        captured = replace(self.record(), files={PATCH_NAME: os.urandom(4 << 20), BUNDLE_NAME: os.urandom(4 << 20)})
        line, _ = recorder.shorter(CONTEXT, captured)
        assert len(self.sent(line).files) == 1
        assert len(line) <= recorder.MAX_HANDOVER

    def sent(self, line: bytes) -> Record:
        return msgspec.convert(msgspec.json.decode(line)["params"]["record"], Record)


def test_of_a_command_with_two_environments_none_is_a_runs(registry: Database) -> None:
    """``reprod run`` told of both: then it is not known which one started the run, and the run says so."""
    met = replace(first(), subject=replace(first().subject, how=FROM_OUTSIDE))
    second = replace(met, subject=replace(met.subject, pid=CONTEXT.pid + 1, prefix="/y"))
    again = replace(second, subject=replace(second.subject, prefix="/x"))
    keep(registry, met)
    keep(registry, again)
    assert publish.find_environment(registry, CONTEXT.to_json(), 1).digest is not None
    keep(registry, second)
    found = publish.find_environment(registry, CONTEXT.to_json(), 1)
    assert (found.digest, found.execution) == (None, None)
    assert found.unknown == "the command ran /x and /y: which of them started the run is not known"
