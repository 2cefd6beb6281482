"""What is written to a run: captured only if every dataset has a digest."""

import dataclasses

import msgspec
import pytest

from reprod.core.execution import Execution, Subject
from reprod.core.snapshot import BoundDataset, Snapshot

GOOD = BoundDataset("a", "/a", "start", "walk", 1, "dt1:00", 1, 1, 1, "00", ("sha256",), 0.1)
BAD = dataclasses.replace(GOOD, name="b", bound="late", assurance=None, seq=None, digest=None, error="not provable")
EVENTS = dataclasses.replace(GOOD, name="c", assurance="events")
SEEN = Execution(Subject("process", "host", "boot", "handover", 1, 2, "/venv"), 1)
ALL = Snapshot(1, "host", (GOOD, EVENTS), "env", SEEN, None)


UNKNOWN = "x: no such dataset on host (reprod dataset add x PATH registers it)"


@pytest.mark.parametrize(
    ("snapshot", "state", "assurance", "errors"),
    [
        (dataclasses.replace(ALL, datasets=(GOOD,)), "captured", "walk", []),
        (ALL, "captured", "events", []),
        (dataclasses.replace(ALL, datasets=(GOOD, BAD)), "incomplete", "walk", ["b: not provable"]),
        (dataclasses.replace(ALL, datasets=(BAD,)), "incomplete", None, ["b: not provable"]),
        (dataclasses.replace(ALL, unknown_names=("x",)), "incomplete", "events", [UNKNOWN]),
    ],
)
def test_state(snapshot: Snapshot, state: str, assurance: str | None, errors: list[str]) -> None:
    """One dataset that is not proven makes the run incomplete; the weakest assurance counts."""
    assert (snapshot.state, snapshot.assurance, snapshot.errors) == (state, assurance, errors)


def test_it_survives_the_outbox() -> None:
    """The same after JSON: every attempt writes the same."""
    assert msgspec.json.decode(msgspec.json.encode(ALL), type=Snapshot) == ALL
