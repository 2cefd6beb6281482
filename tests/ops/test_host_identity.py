"""Which host a state directory belongs to: the same over restarts, another after a copy to another machine."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprod.core.hosts import HOST_ID
from reprod.errors import StateError
from reprod.ops.hosts import FILE, identify, machine_id, machine_mark
from reprod.store import files, hosts, outbox, registry
from reprod.store.connection import Database

ONE, TWO = "0123456789abcdef" * 2, "fedcba9876543210" * 2


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Database]:
    opened = files.open_registry(tmp_path / "state")
    opened.db.write(lambda c: registry.see_boot(c, "an earlier boot", 1))
    yield opened.db
    opened.db.close()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return the file that holds the machine's id."""
    path = tmp_path / "machine-id"
    path.write_text(ONE + "\n")
    return path


def test_a_host_stays_what_it_is(records: Database, machine: Path) -> None:
    """The id is a UUID, the same at each start, and the file does not hold the machine's id."""
    state = records.path.parent
    first = identify(state, records, (machine,))
    again = identify(state, records, (machine,))

    assert HOST_ID.match(first.id)
    assert first == again
    assert first.short == first.id[:8]
    assert ONE not in (state / FILE).read_text()
    assert (state / FILE).stat().st_mode & 0o777 == 0o600
    assert records.read(registry.boots) == {"an earlier boot"}


def test_a_copied_state_is_another_host(records: Database, machine: Path) -> None:
    """On another machine a copied state gets an id of its own and forgets the first machine's boots."""
    state = records.path.parent
    first = identify(state, records, (machine,))
    machine.write_text(TWO)
    cloned = identify(state, records, (machine,))

    assert cloned.id != first.id
    assert records.read(registry.boots) == frozenset()
    assert identify(state, records, (machine,)) == cloned
    assert machine_mark(ONE) != machine_mark(TWO)


@pytest.mark.parametrize("content", ["", "uninitialized\n", "0" * 32, "0123", "ä" * 32])
def test_a_machine_without_an_id_keeps_its_state(records: Database, machine: Path, content: str) -> None:
    """A container whose machine has no id is the same host after each start, and once it has one too."""
    state = records.path.parent
    machine.write_text(content)
    assert machine_id((machine,)) is None
    first = identify(state, records, (machine,))

    assert identify(state, records, (machine.with_name("none"),)) == first
    machine.write_text(ONE)
    assert identify(state, records, (machine,)) == first
    assert records.read(registry.boots) == {"an earlier boot"}
    machine.write_text(TWO)
    assert identify(state, records, (machine,)) != first


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"id": 7}', '{"id": "../x"}', "[" * 5000])
def test_a_damaged_file_is_minted_anew(records: Database, machine: Path, damaged: str) -> None:
    """What cannot be read is no id; the daemon starts all the same, with its boots."""
    state = records.path.parent
    (state / FILE).write_text(damaged)

    assert HOST_ID.match(identify(state, records, (machine,)).id)
    assert json.loads((state / FILE).read_text())["schema"] == "reprod.host/1"
    assert records.read(registry.boots) == {"an earlier boot"}


def test_a_state_that_cannot_be_written_says_so(records: Database, machine: Path) -> None:
    """Without a place for the id there is no daemon, and the message says which file."""
    with pytest.raises(StateError, match=FILE):
        identify(records.path.parent / "gone", records, (machine,))


def test_the_settled_runs_are_the_newest(records: Database) -> None:
    """An old server is told which runs need not be found again: those with a state, the newest of them, in order."""
    ids = [uuid.uuid4().hex for _ in range(6)]
    for number, run_id in enumerate(ids):
        records.write(lambda c, r=run_id, n=number: outbox.notice(c, "uri", r, "data", b"{}", n))  # type: ignore[misc]
    records.write(lambda c: [outbox.delivered(c, row, "captured", ended=row % 2 == 0, now_ns=1) for row in (1, 2, 4)])
    records.write(lambda c: outbox.failed(c, 5, "no", 1))

    assert records.read(lambda c: hosts.settled_runs(c, "uri")) == (ids[0], ids[1], ids[3], ids[4])
    assert records.read(lambda c: hosts.settled_runs(c, "uri", 2)) == (ids[3], ids[4])
    assert records.read(lambda c: hosts.settled_runs(c, "other")) == ()
