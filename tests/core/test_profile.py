"""What a set of files is made of: one pass that counts as a naive reading of the whole list does."""

import os
from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from reprod.core import profile as module
from reprod.core.entry import Content, Entry, Kind, Problem, display
from reprod.core.profile import MOST_LARGEST, MOST_SHARES, SIZE_CLASSES, profile

NAMES = st.sampled_from(
    [b"a.jpg", b"B.JPG", b"c.csv.gz", b"d.gz", b".bashrc", b"e.", b"f.0001", b"g.toolongforatype", b"h", b"\xff.png"]
)
PATHS = st.lists(st.sampled_from([b"train", b"val", b"v1.2", b"\xe9"]), max_size=2).flatmap(
    lambda parts: NAMES.map(lambda name: b"/".join([*parts, name]))
)
SIZES = st.one_of(
    st.integers(0, 1 << 40), st.sampled_from(SIZE_CLASSES), st.sampled_from([end - 1 for end in SIZE_CLASSES])
)
CONTENTS = st.one_of(
    st.builds(lambda size: Content(Kind.FILE, size, b"x" * 32), SIZES),
    st.just(Content(Kind.LINK, 3, b"x" * 32)),
    st.just(Content(Kind.SPECIAL, 0)),
    st.just(Content(Kind.FILE, 5, None, Problem.UNREADABLE)),
)
SETS = st.dictionaries(PATHS, st.tuples(CONTENTS, st.integers(0, 10**18)), max_size=60).map(
    lambda found: [Entry(path, content, stamp) for path, (content, stamp) in sorted(found.items())]
)


def is_read(entry: Entry) -> bool:
    return entry.content.kind is Kind.FILE and entry.content.problem is None


def type_of(path: bytes) -> str:
    """The type by Python's own idea of a suffix, which is another than the product's."""
    stem, suffix = os.path.splitext(os.path.basename(path).lower())
    if not suffix[1:].isalnum() or len(suffix) > 13 or suffix[1:].isdigit():
        return ""
    packed = suffix in {b".gz", b".bz2", b".xz", b".zst", b".lz4"}
    return (type_of(stem) if packed else "") + suffix.decode()


@given(SETS)
@settings(max_examples=150, deadline=None)
def test_a_profile_counts_what_a_naive_reading_counts(entries: list[Entry]) -> None:
    """Totals, types, top directories, classes of size, largest files and times are those of the whole list."""
    found = profile(iter(entries))
    files = [entry for entry in entries if is_read(entry)]
    sizes = [entry.content.size for entry in files]
    kinds = Counter(entry.content.kind for entry in entries if entry.content.problem is None)
    stamps = [entry.mtime_ns for entry in files if entry.mtime_ns]

    assert (found.files, found.bytes) == (len(files), sum(sizes))
    assert (found.links, found.special) == (kinds[Kind.LINK], kinds[Kind.SPECIAL])
    assert found.problems == sum(entry.content.problem is not None for entry in entries)
    assert {share.name: (share.files, share.bytes) for share in found.types} == totals(files, type_of)
    assert {share.name: (share.files, share.bytes) for share in found.directories} == totals(
        files, lambda path: display(path.partition(b"/")[0]) if b"/" in path else ""
    )
    below = [0, *SIZE_CLASSES, 1 << 70]
    counted = [(end, sum(low <= size < end for size in sizes)) for low, end in pairwise(below)]
    assert [(c.below or 1 << 70, c.files) for c in found.sizes if c.files] == [each for each in counted if each[1]]
    ranked = sorted(files, key=lambda entry: (-entry.content.size, entry.path))[:MOST_LARGEST]
    assert [(each.path, each.bytes) for each in found.largest] == [(display(e.path), e.content.size) for e in ranked]
    assert (found.oldest_ns, found.newest_ns) == (min(stamps, default=None), max(stamps, default=None))


def totals(files: list[Entry], key) -> dict[str, tuple[int, int]]:
    groups: dict[str, list[int]] = {}
    for entry in files:
        groups.setdefault(key(entry.path), []).append(entry.content.size)
    return {name: (len(group), sum(group)) for name, group in groups.items()}


def test_what_has_no_room_in_a_picture_is_one_share(monkeypatch) -> None:
    """Many directories give the largest and one share for all others; keys beyond the bound count in that one too."""
    entries = [Entry(b"d%03d/f" % i, Content(Kind.FILE, 1000 - i, b"x" * 32)) for i in range(40)]
    whole = profile(entries)
    assert [share.name for share in whole.directories] == [f"d{i:03d}" for i in range(MOST_SHARES)]
    assert whole.other_directories is not None
    assert whole.other_directories.files == 40 - MOST_SHARES
    assert whole.other_directories.bytes == sum(1000 - i for i in range(MOST_SHARES, 40))

    monkeypatch.setattr(module, "MOST_KEYS", 5)
    bounded = profile(entries)
    assert len(bounded.directories) == 5
    assert bounded.other_directories is not None
    assert (bounded.files, bounded.other_directories.files) == (40, 35)


def test_the_largest_files_are_found_among_many_of_one_size() -> None:
    """Cutting the candidates back on the way loses no larger file and prefers the first path among equals."""
    entries = [Entry(b"%06d" % i, Content(Kind.FILE, 7, b"x" * 32)) for i in range(5000)]
    entries[4321] = Entry(b"004321", Content(Kind.FILE, 8, b"x" * 32))
    found = profile(entries)

    assert [each.path for each in found.largest] == ["004321", *(f"{i:06d}" for i in range(9))]
