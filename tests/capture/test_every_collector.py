"""Research test 32, over the real table: whichever collector fails, hangs or brings rubbish, its section alone is lost.

The collectors are found by running each way of capturing once with an ear at `Sections.take`, so a new one is covered
without a word here. What the others found is given again, so that only the victim can make a difference.
"""

import ast
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from live_process import WAIT

from reprod.capture import environment, gathering
from reprod.capture.ending import capture_end
from reprod.capture.environment import capture_paths, capture_self, read_host, read_prefix, read_process
from reprod.capture.process.identity import boot_id, current_context, host_name, start_ticks
from reprod.capture.process.interpreter import describe_self
from reprod.capture.sections import BUDGET_S, Sections
from reprod.capture.used import used_by_now
from reprod.core.environment import Environment, Record, decode_record, encode_record
from reprod.core.environment_files import artifacts, parameters, read_back
from reprod.core.process import ProcessContext
from reprod.errors import IncompleteError

#: What else may change with a section, because it is made from it.
FOLLOWS = {
    "packages": {"cuda", "rocm"},
    "conda": {"cuda"},
    "accelerators": {"cuda", "visible_gpus"},
    "invocation": {"named_imports", "numerics"},
}
#: Why a process of another user is read from outside only; it goes before any other reason.
DENIED = "permission: not yours"
WAYS = ("self", "handed over", "files", "outside", "prefix", "host", "end")

Way = Callable[[], Record]


class Table:
    """The collectors of one way: what each found, and which of them is to fail how."""

    def __init__(self, take: Callable[..., Any]) -> None:
        self.found: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        self.victim: str | None = None
        self.fail: Callable[[Any], Any] = lambda found: found
        self.budget_s = BUDGET_S
        self._take = take

    def take(self, sections: Sections, name: str, read: Callable[[], Any], budget_s: float = BUDGET_S) -> Any:
        if name == self.victim:
            return self._take(sections, name, lambda: self.fail(self.found.get(name)), self.budget_s)
        if name in self.refused:
            return self._take(sections, name, lambda: self._refuse(name))
        if name in self.found:
            return self._take(sections, name, lambda: self.found[name])
        found = self._take(sections, name, read, budget_s)
        if name in sections.unknown:
            self.refused[name] = sections.unknown[name]
        else:
            self.found[name] = found
        return found

    def names(self) -> list[str]:
        """Return the sections that were asked for; there are some."""
        assert self.found
        return sorted({*self.found, *self.refused})

    def _refuse(self, name: str) -> None:
        raise IncompleteError(self.refused[name])


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    made = Table(Sections.take)

    def take(sections: Sections, *given: Any) -> Any:
        return made.take(sections, *given)

    monkeypatch.setattr(Sections, "take", take)
    return made


@pytest.fixture
def way(request: pytest.FixtureRequest, venv: Path, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Way:
    """One way of capturing, always of the same subject."""
    name: str = request.param
    if name in {"files", "outside"}:
        process = start(venv / "bin/python", "-c", WAIT)
        ticks = start_ticks(process.pid)
        assert ticks is not None
        context = ProcessContext(1, host_name(), boot_id(), process.pid, ticks, str(venv))
        if name == "outside":
            monkeypatch.setattr(environment, "examine", _not_permitted)
        return lambda: read_process(context)
    own, used = current_context(), used_by_now(__file__)
    ways: dict[str, Way] = {
        "self": capture_self,
        "handed over": lambda: capture_paths(
            own, sys_path=sys.path, python=describe_self(), cwd=str(Path(__file__).parent), script=__file__
        ),
        "prefix": lambda: read_prefix(str(venv)),
        "host": read_host,
        "end": lambda: Record(capture_end(own, used), Environment()),
    }
    return ways[name]


def _not_permitted(_context: ProcessContext) -> None:
    raise IncompleteError(DENIED)


def sections(record: Record) -> Iterator[tuple[str, Any]]:
    """Yield what every part of a record is, but for when it was taken and why something is unknown."""
    for part in (record.environment, record.execution):
        for each in fields(part):
            if each.name not in {"unknown", "taken_ns"}:
                yield f"{type(part).__name__}.{each.name}", getattr(part, each.name)
    yield "Record.files", record.files


def differing(record: Record, baseline: Record) -> set[str]:
    known = dict(sections(baseline))
    return {name for name, value in sections(record) if value != known[name]}


def allowed(victim: str) -> set[str]:
    names = {victim, *FOLLOWS.get(victim, ())}
    files = {"Record.files"} if victim == "git" else set()
    return files | {f"{part}.{name}" for part in ("Environment", "Execution") for name in names}


def check(record: Record, baseline: Record, victim: str) -> None:
    """It can be sent, written, read back, and shown; only what follows from the victim is another."""
    assert decode_record(encode_record(record)) == record, victim
    files = artifacts(record)
    again = read_back(files["environment.json"], files.get("packages.json"))
    assert again.environment == record.environment, victim
    parameters(record.environment)
    assert differing(record, baseline) <= allowed(victim), victim


def boom(_found: Any) -> Any:
    raise ZeroDivisionError("boom")


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_each_collector_that_raises_costs_its_own_section(way: Way, table: Table) -> None:
    """Every collector in turn raises what nobody foresaw: the reason stands under its name, all else is as it was."""
    baseline = way()
    table.fail = boom
    for victim in table.names():
        table.victim = victim
        record = way()
        said = record.environment.unknown | record.execution.unknown
        assert said[victim] in {"ZeroDivisionError: boom", DENIED}
        check(record, baseline, victim)


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_each_collector_that_hangs_costs_its_own_section(way: Way, table: Table) -> None:
    """Every collector in turn never comes back: its budget ends, it is left behind, all else is as it was."""
    baseline = way()
    ended = threading.Event()
    table.fail, table.budget_s = lambda _: ended.wait(60), 0.02
    try:
        for victim in table.names():
            table.victim = victim
            record = way()
            said = record.environment.unknown | record.execution.unknown
            assert said[victim] in {"timeout: it took over 0.02 s", DENIED}
            check(record, baseline, victim)
    finally:
        ended.set()


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_rubbish_of_each_collector_costs_its_own_section(way: Way, table: Table) -> None:
    """Every collector in turn brings texts that are no UTF-8, endless numbers and words of no list, as a hostile tree
    could make them: the record can be written all the same, and all else is as it was."""
    baseline = way()
    table.fail = spoiled
    for victim in table.names():
        table.victim = victim
        check(way(), baseline, victim)


def spoiled(found: Any) -> Any:
    """Return what was found with every text, number and key as a hostile tree could make it."""
    if is_dataclass(found) and not isinstance(found, type):
        return replace(found, **{each.name: spoiled(getattr(found, each.name)) for each in fields(found)})
    if isinstance(found, tuple | list):
        return type(found)(spoiled(item) for item in found)
    if isinstance(found, dict):
        return (
            found
            if any(isinstance(v, bytes) for v in found.values())
            else {spoiled(k): spoiled(v) for k, v in found.items()}
        )
    if isinstance(found, str):
        return f"\udcff\x00\x1b]0;{found}\udc80"
    if isinstance(found, bool) or found is None:
        return found
    return 2**70 if isinstance(found, int) else float("nan") if isinstance(found, float) else found


def test_no_collector_is_called_without_its_section() -> None:
    """Every reader that the record's maker imports is only ever called through `take`; what finds the secrets is not,
    because without it nothing may leave."""
    tree = ast.parse(Path(gathering.__file__).read_text())
    readers = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reprod.capture.")
        for name in node.names
        if name.name.startswith(("read_", "scan_"))
    }
    assert len(readers) > 15
    deferred = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Call)
    }
    direct = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node not in deferred and isinstance(node.func, ast.Name)
    }
    assert readers & direct == {"read_taint"}
