"""The seed's document and the canonical SHA256SUMS."""

import hashlib
import json
import subprocess
from base64 import b64decode
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from reprod.core.entry import Content, Entry, Kind, Problem, named
from reprod.core.manifest import (
    Header,
    document,
    document_chunks,
    human_size,
    logged_metrics,
    logged_params,
    rfc3339,
    sums,
    text_pieces,
)
from reprod.core.spelling import Lookalikes

NS = 1_700_000_000_123_456_789
HEADER = Header("/data", NS, ("md5", "sha256"), "dt1:00", 1.5, "data", 3, {"include": []})


def file(path: bytes, data: bytes, **more: bytes) -> Entry:
    return Entry(path, Content(Kind.FILE, len(data), hashlib.sha256(data).digest(), None, more), NS, 0o100640)


ENTRIES = [
    file(b"a.csv", b"1,2", md5=b"\x01" * 16),
    file(b"\xff", b""),
    Entry(b"broken", Content(Kind.FILE, 5, None, Problem.UNREADABLE)),
    Entry(b"fifo", Content(Kind.SPECIAL, 0)),
    Entry(b"link", Content(Kind.LINK, 1, b"\x02" * 32)),
    Entry(b"moving", Content(Kind.FILE, 7, None, Problem.UNSTABLE)),
]


def test_the_seeds_shape() -> None:
    """Every field of the seed, nested as it was; lists for what has no digest."""
    found = json.loads(json.dumps(document(HEADER, ENTRIES)))
    assert found["files"][0] == {
        "path": "/data/a.csv", "relative_path": "a.csv", "size_bytes": 3, "size_human": "3.00 B",
        "modified_time": "2023-11-14T22:13:20.123456Z", "permissions": "0640",
        "hashes": {"sha256": hashlib.sha256(b"1,2").hexdigest(), "md5": "01" * 16},
    }  # fmt: skip
    assert found["summary"] == {
        "total_files": 2, "total_size_bytes": 3, "total_size_human": "3.00 B", "processing_time_seconds": 1.5
    }  # fmt: skip
    assert found["manifest_version"] == "1.0"
    assert found["data_path"] == "/data"
    assert found["files"][1]["path_b64"] == "/w=="
    assert [e["relative_path"] for e in found["unreadable"]] == ["broken"]
    assert [e["relative_path"] for e in found["unstable"]] == ["moving"]
    assert [e["relative_path"] for e in found["special"]] == ["fifo"]
    assert [e["relative_path"] for e in found["symlinks"]] == ["link"]


def test_without_files_it_says_so() -> None:
    """A header for many files keeps the totals."""
    found = document(HEADER, ENTRIES, list_files=False)
    assert (found["files"], found["files_omitted"], found["summary"]["total_files"]) == ([], True, 2)


def test_sha256sum_takes_the_sums(tmp_path: Path) -> None:
    """``sha256sum -c --strict`` accepts it, hostile names included."""
    names = [b"a", b"new\nline", b"back\\slash", b"cr\rname", b"\xff\xfe", b"d/e"]
    (tmp_path / "d").mkdir()
    entries = []
    for name in sorted(names):
        with open(bytes(tmp_path) + b"/" + name, "wb") as out:
            out.write(name)
        entries.append(file(name, name))
    (tmp_path / "SUMS").write_bytes(b"".join(sums(entries)))
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict", "--quiet", "SUMS"], cwd=tmp_path, capture_output=True, timeout=20
    )
    assert (checked.returncode, checked.stdout) == (0, b"")


def test_units() -> None:
    """Sizes in steps of 1024 with two digits, times in UTC."""
    assert [human_size(n) for n in (0, 1023, 1536, 5 << 40, 5000 << 40)] == [
        "0.00 B", "1023.00 B", "1.50 KB", "5.00 TB", "5000.00 TB",
    ]  # fmt: skip
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"


paths = st.lists(
    st.text(st.characters(exclude_characters="\0"), min_size=1).map(lambda t: t.encode("utf-8", "surrogatepass"))
    | st.binary(min_size=1, max_size=6),
    unique=True,
)


@given(paths=paths, root=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), many=st.booleans())
@settings(deadline=None)
def test_the_pieces_are_what_json_writes(paths: list[bytes], root: str, many: bool) -> None:
    """Whatever the names, the text is that of json with an indent of 2, in ASCII, and nothing is lost in it."""
    entries = [file(path, path, md5=b"\x01" * 16) if i % 3 else file(path, b"") for i, path in enumerate(paths)]
    entries += ENTRIES * (100 if many else 1)
    header = Header(
        f"/{root}", NS, ("sha256",), None, 0.25, metadata={"π": [1.5]}, unlisted=(b"", b"\xffd"), max_files=3
    )
    text = b"".join(document_chunks(header, entries))
    assert text.isascii()
    found = document(header, entries)
    assert (json.dumps(found, indent=2) + "\n").encode() == text == b"".join(text_pieces(found))
    shown = [(e["relative_path"], b64decode(e["path_b64"]) if "path_b64" in e else None) for e in found["files"]]
    read = [b64 if b64 is not None else name.encode() for name, b64 in shown]
    assert read == [e.path for e in entries if e.content.kind is Kind.FILE and e.content.problem is None]


def test_what_a_set_as_a_whole_may_say() -> None:
    """A cut, metadata, throughput and directories that could not be listed have their places."""
    header = Header(
        "/data", NS, ("sha256",), None, 2.0, max_files=3, metadata={"k": "v"}, hashed_files=4, hashed_bytes=5,
        unlisted=(b"", b"dark"), schema="reprod.manifest/1",
    )  # fmt: skip
    found = document(header, ENTRIES)
    assert next(iter(found)) == "schema"
    assert found["cut"] == {"max_files": 3, "total_files": None}
    assert found["metadata"] == {"k": "v"}
    assert (found["throughput_bytes_per_second"], found["throughput_files_per_second"]) == (2.5, 2.0)
    assert found["unreadable"][1:] == [
        {"relative_path": ".", "kind": "directory"},
        {"relative_path": "dark", "kind": "directory"},
    ]
    assert not {"schema", "cut", "metadata", "throughput_bytes_per_second"} & document(HEADER, ENTRIES).keys()


def test_pieces_are_small() -> None:
    """No piece holds more than a few entries, so a document of any length needs no memory."""
    pieces = list(document_chunks(HEADER, (file(b"f%06d" % i, b"x") for i in range(2000))))
    assert len(pieces) > 15
    assert max(map(len, pieces)) < 100_000


def test_what_a_run_gets_of_a_manifest() -> None:
    """Params and metrics by the contract's names; what a manifest does not say is absent."""
    found = document(HEADER, ENTRIES)
    assert logged_params(found) == {"data_path": "/data", "hash_algorithms": "md5,sha256", "manifest_version": "1.0"}
    assert logged_metrics(found) == {"data_files_count": 2.0, "data_size_bytes": 3.0, "data_processing_time": 1.5}
    assert (logged_params({"files": []}), logged_metrics({"summary": {"total_files": "x"}})) == ({}, {})


def test_names_that_look_alike() -> None:
    """Each pair is told once, directories too, and only within one directory."""
    nfc, nfd = "é".encode(), "e\u0301".encode()
    lookalikes = Lookalikes()
    paths = sorted([nfc, b"d/" + nfc, b"d/" + nfd, nfd + b"/x", nfd + b"/y", b"plain", b"z/" + nfd, b"\xff", b"\xfe"])
    found = [pair for path in paths if (pair := lookalikes.check(path))]
    assert found == [(b"d/" + nfd, b"d/" + nfc), (nfd, nfc)]
    many = [file(f"{i}é{tail}".encode(), b"") for i in range(200) for tail in ("", "e\u0301", "é")]
    entries = sorted(many, key=lambda entry: entry.path)
    assert len(document(HEADER, entries)["warnings"]) == 100


def test_a_name_that_another_system_takes_for_absolute_is_given_exactly() -> None:
    """Readers refuse such a path as text; in base64 it can only be a name."""
    for path in (b"\\share", b"C:\\x", b"c:/x"):
        assert named(path)["path_b64"]
    for path in (b"C:", b"a\\b", b"x:y", b"plain"):
        assert named(path) == {"path": path.decode()}
