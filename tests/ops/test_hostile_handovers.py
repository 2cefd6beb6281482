"""What is handed over may be made to hurt: it is refused, or everything that is made of it later is whole and harmless.

Any local user may hand over to a daemon of root's, and a delivery tries again for ever: a record that breaks it, or
that names a file elsewhere, must not get in.
"""

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from drawn import PART, examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprod.capture.environment import capture_self
from reprod.capture.process.identity import current_context
from reprod.core import environment_facts
from reprod.core.environment import Record, encode_record
from reprod.core.environment_diff import compare
from reprod.core.environment_files import artifacts, parameters, rebuildable
from reprod.core.execution import Execution
from reprod.errors import DamagedError, ReprodError
from reprod.ops.handovers import decode_execution, keep_end, keep_record, read_end, read_record
from reprod.store import files, snapshots
from reprod.store.connection import Database

T = TypeVar("T")

CANARY = "ghp_" + "Ab3" * 12

#: What stands in the place of something: of every type, and of every size that a reader may trip over.
RUBBISH = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
    st.sampled_from(["", "../../x", "/etc/x", "\x1b]0;x\x07", "\x00", "-e git+x", "${HOME}", "9" * 5000, CANARY]),
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)


#: The same of what an end is made of, at every place in turn.
EACH_RUBBISH: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**69, -(2**70), 1.5, -1e300, 5e-324),
    *("", "a", "é", "../../x", "/etc/x", "\x1b]0;x\x07", "\x00", "\ud800", "-e git+x", "${HOME}", "9" * 5000, CANARY),
    *([], ["a"], [CANARY], {}, {"a": "b"}, {CANARY: "x"}),
)


@functools.cache
def captured() -> Record:
    """Return a record of this process with all its sections and few of its packages: each example reads it whole."""
    record = capture_self()
    packages = record.environment.packages
    assert packages is not None
    few = replace(packages, packages=packages.packages[:5])
    return replace(record, environment=replace(record.environment, packages=few))


@pytest.fixture
def own() -> Record:
    return captured()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Database]:
    with closing(files.open_registry(tmp_path / "state").db) as db:
        yield db


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something stands in a tree, the first few items of each list alone."""
    yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree[:3]):
            yield from places(value, (*path, index))


def with_rubbish(tree: Any, path: tuple[Any, ...], rubbish: Any) -> Any:
    if not path:
        return rubbish
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = with_rubbish(tree[path[0]], path[1:], rubbish)
    return copy


def or_refusal(read: Callable[[], T]) -> T | str:
    """Return what was read, or with which words it was refused; any other exception is a defect."""
    try:
        return read()
    except ReprodError as error:
        return error.message


@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_record_is_refused_or_harmless(data: st.DataObject, registry: Database) -> None:
    """Anything anywhere in a record: it is refused with a reason, or it is stored, shown, compared and written."""
    own = captured()
    tree = json.loads(encode_record(own))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(tree))))
        tree = with_rubbish(tree, path, data.draw(RUBBISH))
    text = json.dumps(tree).encode()
    read = or_refusal(lambda: read_record(text))
    if isinstance(read, str):
        assert CANARY not in read
        return
    record, digest = read
    registry.write(lambda c: keep_record(c, f"{digest}-{len(text)}", 0, record, digest))
    written = artifacts(record)
    for name, content in written.items():
        assert "/" not in name
        assert CANARY.encode() not in content
    parameters(record.environment)
    rebuildable(record.environment)
    assert compare(record, own).verdict
    list(environment_facts.machine_facts(record.environment))
    list(environment_facts.process_facts(record.execution))


def test_a_changed_end_is_refused_or_harmless(own: Record, registry: Database) -> None:
    """The same of what a process says at its end, which is joined with what is known of it: a third at every place,
    in the long form all."""
    whole, context = json.loads(msgspec.json.encode(own.execution)), current_context()
    registry.write(lambda c: keep_record(c, context.key, 0, own, own.environment.digest()))
    cases = list(itertools.product(places(whole), EACH_RUBBISH))
    for path, rubbish in cases[:: 3 if PART > 1 else 1]:  # 28 kinds of it: the next place gets others
        text = json.dumps(with_rubbish(whole, path, rubbish)).encode()
        last = or_refusal(functools.partial(read_end, text))
        if isinstance(last, str):
            assert CANARY not in last, path
            continue
        registry.write(functools.partial(keep_end, context=context, uid=0, last=last))
        known = registry.read(lambda c: snapshots.handover(c, context.key))
        assert known is not None
        assert known.execution is not None
        assert isinstance(decode_execution(known.execution), Execution)
        assert CANARY.encode() not in known.execution, path


@pytest.mark.parametrize(
    "name", ["../../../x", "/etc/cron.d/x", "x", "", "git_diff.txt/..", "git_diff.txt\n", "system_info.json", "a\0b"]
)
def test_a_file_with_a_name_of_its_own_is_refused(name: str, own: Record) -> None:
    """The names of files become paths, below the daemon's folders and on the run: only a repository's are let in."""
    tree = json.loads(encode_record(own))
    tree["files"] = {name: "eA=="}
    with pytest.raises(DamagedError, match="none of a repository's"):
        read_record(json.dumps(tree).encode())
    hostile = Record(own.execution, own.environment, {name: b"x"})
    assert all(content != b"x" for content in artifacts(hostile).values()), "nor are those that were stored before"


def test_secrets_that_somebody_hands_over_stay_out(own: Record) -> None:
    """Another version, or anybody, may not have redacted: records and ends pass once more."""
    tree = json.loads(encode_record(own))
    tree["execution"]["invocation"]["arguments"] = ["train.py", "--token", CANARY]
    tree["environment"]["unknown"]["cloud"] = f"https://u:{CANARY}@h"
    record, _ = read_record(json.dumps(tree).encode())
    assert CANARY.encode() not in encode_record(record)
    last = read_end(json.dumps(tree["execution"]).encode())
    assert CANARY.encode() not in msgspec.json.encode(last)


@pytest.mark.parametrize("taken", [-1, 1 << 63, 1 << 70, math.pi])
def test_times_that_no_column_holds_are_refused(taken: float, own: Record) -> None:
    """A time is nanoseconds since the epoch, in 63 bits."""
    tree = json.loads(encode_record(own))
    tree["execution"]["taken_ns"] = taken
    for read, text in ((read_record, json.dumps(tree)), (read_end, json.dumps(tree["execution"]))):
        with pytest.raises(DamagedError):
            read(text.encode())
