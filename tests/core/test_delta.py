"""The difference of two versions."""

from hypothesis import given
from hypothesis import strategies as st

from reprod.core.delta import compare
from reprod.core.entry import Content, Kind, Problem


def file(tag: int, size: int = 1) -> Content:
    return Content(Kind.FILE, size, bytes([tag]) * 32)


contents = st.dictionaries(
    st.binary(min_size=1, max_size=2),
    st.builds(
        lambda kind, tag: Content(kind, 0) if kind is Kind.SPECIAL else Content(kind, tag, bytes([tag]) * 32),
        st.sampled_from([Kind.FILE, Kind.FILE, Kind.LINK, Kind.SPECIAL]),
        st.integers(0, 3),
    ),
    max_size=6,
)  # fmt: skip


def test_each_kind_of_change() -> None:
    """Added, removed, modified, renamed; what stayed is not told."""
    before = {b"same": file(1), b"gone": file(2), b"old": file(3), b"edit": file(4)}
    after = {b"same": file(1), b"came": file(5), b"new": file(3), b"edit": file(6)}
    delta = compare(before, after)
    assert [c.path for c in delta.added] == [b"came"]
    assert [c.path for c in delta.removed] == [b"gone"]
    assert [c.path for c in delta.modified] == [b"edit"]
    assert [(r.source, r.target) for r in delta.renamed] == [(b"old", b"new")]
    assert delta
    assert not compare(before, before)


def test_only_unique_contents_are_renames() -> None:
    """Two of the same on a side, or empty files, are not paired by guess."""
    assert not compare({b"a": file(1)}, {b"b": file(1), b"c": file(1)}).renamed
    assert not compare({b"a": file(1, 0)}, {b"b": file(1, 0)}).renamed


def test_an_entry_without_a_digest_equals_nothing() -> None:
    """Nobody knows its bytes, so it may differ from itself."""
    broken = {b"a": Content(Kind.FILE, 1, None, Problem.UNREADABLE)}
    assert [c.path for c in compare(broken, broken).modified] == [b"a"]


def test_kind_is_content() -> None:
    """A link whose target reads like the file is not the file."""
    assert compare({b"a": file(1)}, {b"a": Content(Kind.LINK, 1, bytes([1]) * 32)}).modified
    assert not compare({}, {b"fifo": Content(Kind.SPECIAL, 0)})


@given(contents, contents)
def test_a_delta_leads_from_one_to_the_other(before: dict[bytes, Content], after: dict[bytes, Content]) -> None:
    """Applying it to the one gives the other, specials aside."""
    delta = compare(before, after)
    state = {p: c for p, c in before.items() if c.kind is not Kind.SPECIAL}
    for change in (*delta.removed, *delta.modified):
        assert state.pop(change.path) == change.before
    for rename in delta.renamed:
        assert state.pop(rename.source).sha256 == rename.content.sha256
        state[rename.target] = rename.content
    for change in (*delta.added, *delta.modified):
        assert change.after is not None
        state[change.path] = change.after
    wanted = {p: c for p, c in after.items() if c.kind is not Kind.SPECIAL}
    assert {p: (c.kind, c.sha256) for p, c in state.items()} == {p: (c.kind, c.sha256) for p, c in wanted.items()}
