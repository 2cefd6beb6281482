"""How often the tracking server is asked for changed tags. The server's child process and the clock are fakes."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reprod.daemon import noticing
from reprod.daemon.noticing import Noticing
from reprod.sinks.protocol import ImpliedNow, Polled
from reprod.store import asked
from reprod.store.connection import open_database

URI = "http://tracking"


class Child:
    """A server on which a poll takes half a second."""

    polled = Polled(took_s=0.5)

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def poll(self, **_: Any) -> list[Any]:
        return []

    def implied(self, _: Any) -> ImpliedNow:
        return ImpliedNow()

    def retagged(self, values: list[str]) -> list[Any]:
        self.asked.append(values)
        return []


def test_changed_tags_are_asked_for_the_less_often_the_more_that_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value is asked for two seconds after the last time if somebody rang, else after a minute. Twenty values take
    ten seconds on this server: it is left alone for twice as long after them, or for ten times."""
    records, child, clock = open_database(tmp_path / "registry.sqlite", "registry"), Child(), [1000.0]
    monkeypatch.setattr(noticing, "time", SimpleNamespace(monotonic=lambda: clock[0], time_ns=time.time_ns))
    daemon: Any = SimpleNamespace(
        records=records,
        tracking=SimpleNamespace(key=URI, child=child),
        config=SimpleNamespace(rules=()),
        works={},
    )

    def record(name: str) -> None:
        records.write(lambda c: asked.notice(c, URI, f"run on {name}", name, b"{}", 1))
        records.write(lambda c: c.execute("UPDATE delivery SET outcome = 'captured'"))

    def is_asked(after_s: float, *, rung: bool) -> bool:
        clock[0] += after_s
        before = len(child.asked)
        looks.ask(rung=rung)
        return len(child.asked) > before

    looks = Noticing(daemon)
    record("data")
    assert is_asked(0, rung=False)
    assert child.asked == [["data"]]
    assert [is_asked(1.5, rung=True), is_asked(1, rung=False)] == [False, True]
    assert [is_asked(55, rung=False), is_asked(6, rung=False)] == [False, True]

    for number in range(19):
        record(f"other-{number}")
    assert [is_asked(15, rung=True), is_asked(6, rung=False)] == [False, True]
    assert [is_asked(95, rung=False), is_asked(6, rung=False)] == [False, True]
    records.close()
