"""The seed's document and the canonical SHA256SUMS."""

import hashlib
import json
import subprocess
from pathlib import Path

from reprod.core.entry import Content, Entry, Kind, Problem
from reprod.core.manifest import Header, document, human_size, rfc3339, sums

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
        "modified_time": "2023-11-14T22:13:20.123457Z", "permissions": "0640",
        "hashes": {"sha256": hashlib.sha256(b"1,2").hexdigest(), "md5": "01" * 16},
    }  # fmt: skip
    assert found["summary"] == {
        "total_files": 4, "total_size_bytes": 15, "total_size_human": "15.00 B", "processing_time_seconds": 1.5
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
    assert (found["files"], found["files_omitted"], found["summary"]["total_files"]) == ([], True, 4)


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
