"""Directory nodes from rows: any shape gives the node of the definition, however few rows are read at once."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprod.core import digest
from reprod.store import nodes
from reprod.store.changes import apply
from reprod.store.connection import open_database
from reprod.store.observation import Observation

#: Names whose order changes with the "/" that a directory's key ends in.
names = st.sampled_from([b"a", b"a-b", b"a.b", b"a0", b"ab", b"b", b"\xff", b"n\nl", b"-"])
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map(b"/".join), st.tuples(st.booleans(), st.integers(0, 3)), max_size=12
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, st.integers(1, 4))
def test_nodes_are_the_definitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: dict[bytes, tuple[bool, int]], chunk: int
) -> None:
    """Files, links and directories between each other, some rows at a time."""
    monkeypatch.setattr(nodes, "CHUNK_ROWS", chunk)
    tree = {path: entry for path, entry in tree.items() if not any(p.startswith(path + b"/") for p in tree)}
    db = open_database(tmp_path / f"{len(list(tmp_path.iterdir()))}.sqlite", "dataset")
    rows, expected = [], {}
    for path, (is_link, number) in tree.items():
        directory, _, name = path.rpartition(b"/")
        sha256 = hashlib.sha256(b"%d" % number).digest()
        rows.append(Observation(directory, name, None, (0o100644, number, 1, 1, 1), 2 if is_link else 1, sha256))
        expected[path] = (is_link, sha256)
    db.write(lambda c: apply(c, rows, [], 10))
    node, files, size, problems = db.write(nodes.compute_nodes)
    db.close()
    assert (node or digest.EMPTY) == digest.tree(expected)
    assert files == sum(not is_link for is_link, _ in tree.values())
    assert size == sum(number for is_link, number in tree.values() if not is_link)
    assert problems == 0
