"""Batches on their way through a worker: the columns say of each file what the read of it said."""

import hashlib
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reprod.fs.batch import Group, OpenBatch, Results
from reprod.fs.ladder import Ladder
from reprod.fs.read import CLEAN, LARGE, RACY, UNREADABLE, VANISHED, Answer
from reprod.fs.worker import answer_batch, pack_answers, pack_batch, unpack_batch

names = st.binary(min_size=1, max_size=6).map(lambda raw: raw.replace(b"\0", b"x").replace(b"/", b"y"))
paths = st.one_of(st.just(b""), st.lists(names, min_size=1, max_size=3).map(b"/".join))
big = st.integers(0, (1 << 63) - 1)
stats = st.tuples(st.integers(1, 0o177777), big, st.integers(-(1 << 62), (1 << 63) - 1), big, big)
sha256 = st.binary(min_size=32, max_size=32)
answers = st.one_of(
    st.builds(lambda s, h, m: (CLEAN, s, h, {"md5": m}, 0), stats, sha256, st.binary(min_size=16, max_size=16)),
    st.builds(lambda s: (RACY, s, None, None, 0), stats),
    st.builds(lambda s: (LARGE, s, None, None, 0), stats),
    st.builds(lambda s, e: (UNREADABLE, s, None, None, e), st.none() | stats, st.integers(1, 133)),
    st.just((VANISHED, None, None, None, 0)),
)


@given(st.lists(st.tuples(paths, st.lists(names, min_size=1, max_size=5)), min_size=1, max_size=5))
def test_any_batch_arrives_as_it_was_sent(batch: list[tuple[bytes, list[bytes]]]) -> None:
    """The root's empty path in any place, and any bytes in names but NUL."""
    for read in (True, False):
        assert unpack_batch(pack_batch(batch, read=read)) == (batch, read)


@given(st.lists(answers, min_size=1, max_size=8), st.booleans())
def test_rows_are_the_answers(given_answers: list[Answer], together: bool) -> None:
    """Outcome, stat, digests and errno come back for each file, in order, with its tag."""
    batch = OpenBatch()
    if together:
        batch.add_group(Group(b"d", [b"%d" % i for i in range(len(given_answers))], None, "all"), 0)
    else:
        for i in range(len(given_answers)):
            batch.add(b"d" if i % 3 else b"e", b"%d" % i, 1, i)
    results = Results(batch, pack_answers(given_answers, ("md5",)), ("md5",))
    rows = list(results)
    assert [tuple(hashed) for _, _, _, hashed in rows] == given_answers
    assert [tag for _, _, tag, _ in rows] == (["all"] * len(rows) if together else list(range(len(rows))))
    assert results.clean == all(answer[0] == CLEAN for answer in given_answers)
    assert results.size() == sum(answer[1][1] for answer in given_answers if answer[0] == CLEAN and answer[1])


def test_columns_are_the_rows(tmp_path: Path) -> None:
    """What goes to the database in columns is what the rows say, over several directories."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            (tmp_path / folder / f"{i}").write_bytes(b"x" * i)
    batch = OpenBatch()
    batch.add_group(Group(b"a", [b"0", b"1", b"2"], None), 0)
    batch.add(b"b", b"1", 1, "t")
    root = os.open(tmp_path, os.O_RDONLY)
    with Ladder(root) as ladder:
        results = Results(batch, pack_answers(answer_batch(ladder, batch.asked(), 0, ()), ()), ())
    os.close(root)
    rows = [(directory, name, hashed.stat, hashed.sha256) for directory, name, _, hashed in results]
    columns = [
        (clean.group.directory, name, tuple(clean.stats[5 * i : 5 * i + 5]), clean.digests[i])
        for clean in results.by_group()
        for i, name in enumerate(clean.group.names)
    ]
    assert columns == rows
    assert rows[2][3] == hashlib.sha256(b"xx").digest()


def test_an_answer_that_does_not_fit_is_refused() -> None:
    """A worker that sends garbage is found out, whatever the garbage says."""
    batch = OpenBatch()
    batch.add(b"", b"f", 1, None)
    body = pack_answers([(VANISHED, None, None, None, 0)], ())
    for bad in (body[:-1], body + b"x", b""):
        try:
            Results(batch, bad, ())
        except ValueError:
            continue
        raise AssertionError(bad)
