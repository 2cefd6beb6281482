"""dt1: the published vectors, and an independent implementation over hostile trees."""

import hashlib
from pathlib import Path

import oracle
import pytest
from drawn import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from reprod.core import digest

names = st.binary(min_size=1, max_size=6).filter(lambda n: b"/" not in n and b"\0" not in n and n not in {b".", b".."})
names |= st.sampled_from([b"a", b"a-b", b"a.b", b"a0", b"new\nline", b"cr\rx", b"back\\slash", b"\xff\xfe", b"#L x"])
trees = st.recursive(
    st.tuples(st.booleans(), st.binary(max_size=3)),
    lambda inner: st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def flatten(tree: object, path: bytes = b"") -> oracle.Contents:
    if isinstance(tree, dict):
        return {
            below: content
            for name, child in tree.items()
            for below, content in flatten(child, path + b"/" + name if path else name).items()
        }
    is_link, data = tree  # type: ignore[misc]
    return {path: ("link" if is_link else "file", len(data), sha(data))}


def product_dt1(contents: oracle.Contents) -> str:
    return digest.text(digest.tree({path: (kind == "link", sha256) for path, (kind, _, sha256) in contents.items()}))


def of(**files: bytes) -> oracle.Contents:
    return {name.encode(): ("file", len(data), sha(data)) for name, data in files.items()}


V3 = {b"a/z": b"1", b"a-b/c": b"2", b"a/b/q": b"3", b"a.txt": b"4", b"a/b.txt": b"5"}
V4 = [b"new\nline", b"cr\rname", b"back\\slash", b"\xff\xfe", b"\xc3\xa9", b"e\xcc\x81"]
VECTORS: dict[str, tuple[oracle.Contents, str]] = {
    "V1": ({}, "dt1:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    "V2": (of(a=b"hello\n"), "dt1:e459fd5252c3ada0b5c18fc9008e490476fe21c7bd65d5268d45535be95d6267"),
    "V3": (
        {path: ("file", 1, sha(data)) for path, data in V3.items()},
        "dt1:98a904d56b8e4d14bec28637747c68bd797d5d53240d72c13f855605c54e3759",
    ),
    "V4": (
        {name: ("file", 0, sha(b"")) for name in V4},
        "dt1:da561e51dbfbf2dc6619e5a1213dcc9f239feb32a1adaa9b89f8eba55337b3b8",
    ),
    "V5": (
        {b"f": ("file", 0, sha(b"")), b"l": ("link", 7, sha(b"../v2/a"))},
        "dt1:1b5a5e00aa4662e17e8e8d1053130ee8ea6463b0ef55251531a7688ca4a954c3",
    ),
}


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors(vector: str) -> None:
    """The published digests, from the product and from the oracle."""
    contents, expected = VECTORS[vector]
    assert product_dt1(contents) == expected
    assert oracle.dt1(contents) == expected


def test_flat_listing_of_v3() -> None:
    """The exported SHA256SUMS of V3 has the published digest."""
    sums = oracle.flat_sums(VECTORS["V3"][0])
    assert hashlib.sha256(sums).hexdigest() == "24c71752de9b89dcdeca26377d36cb0a9496101aef418dd0866861160adf2ab9"


def test_the_oracle_reads_a_real_tree(tmp_path: Path) -> None:
    """V5 on disk: an empty directory and where a link leads are no part of it."""
    (tmp_path / "f").touch()
    (tmp_path / "e").mkdir()
    (tmp_path / "l").symlink_to("../v2/a")
    assert oracle.dt1(oracle.scan(bytes(tmp_path))) == VECTORS["V5"][1]


@settings(max_examples=examples(300), deadline=None)
@given(st.dictionaries(names, trees, max_size=5))
def test_any_tree_equals_the_oracle(tree: dict[bytes, object]) -> None:
    """Any byte names, any shape: the same digest as the definition gives."""
    contents = flatten(tree)
    assert product_dt1(contents) == oracle.dt1(contents)


@given(st.lists(st.tuples(names, st.binary(min_size=32, max_size=32)), unique_by=lambda f: f[0], max_size=8))
def test_many_lines_at_once_are_the_single_lines(files: list[tuple[bytes, bytes]]) -> None:
    """The fast way writes the same lines as the plain one."""
    lines = digest.file_lines([name for name, _ in files], [sha256 for _, sha256 in files])
    assert lines == [digest.file_line(sha256, name) for name, sha256 in files]


def test_what_people_see() -> None:
    """Twelve hex digits, with or without the prefix."""
    assert digest.short("dt1:e3b0c44298fc1c14") == digest.short("e3b0c44298fc1c14") == "e3b0c44298fc"
