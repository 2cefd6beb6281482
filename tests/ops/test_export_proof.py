"""Exports say a digest only of the rows that have it, and a copy of a manifest says all that is missing."""

import errno
import hashlib
import json
import os
import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from export_place import BAGGABLE, ExportPlace

from reprod.core import digest
from reprod.core.entry import Content, Entry, Kind
from reprod.core.manifest import document_chunks
from reprod.core.ordered import OrderedTree
from reprod.errors import DamagedError, IncompleteError
from reprod.ops import verify
from reprod.ops.export import FORMATS, Format, Request, export
from reprod.ops.export_proof import Expected, proven
from reprod.ops.generate import generate, save
from reprod.ops.manifest_file import read_claims


@pytest.fixture
def place(tmp_path: Path) -> Iterator[ExportPlace]:
    here = ExportPlace(tmp_path)
    yield here
    here.close()


def json_of(place: ExportPlace, ref: str = "data") -> Any:
    stream = BytesIO()
    export(place.state, Request(ref, "json"), stream)
    return json.loads(stream.getvalue())


def bar(monkeypatch: pytest.MonkeyPatch, folder: bytes) -> None:
    """Make a directory unlistable."""
    open_ = os.open

    def barred(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if path == folder and flags & os.O_DIRECTORY:
            raise OSError(errno.EACCES, "Permission denied")
        return open_(path, flags, *args, **named)

    monkeypatch.setattr(os, "open", barred)


# --- the digest of what is exported -----------------------------------------------------------------------------------


def test_the_digest_of_a_stream_is_that_of_the_whole() -> None:
    """Names of any bytes, at any depth, with files beside directories of the same beginning."""
    choose = random.Random(3)
    names = [b"a", b"a-b", b"a.b", b"a0", b"\xff", b"new\nline", b"z"]
    for _ in range(200):
        paths = {b"/".join(choose.choices(names, k=choose.randint(1, 4))) for _ in range(choose.randint(0, 12))}
        paths = {p for p in paths if not any(other.startswith(p + b"/") for other in paths)}
        rows = [(path, choose.random() < 0.2, choose.randbytes(32)) for path in sorted(paths)]
        tree = OrderedTree()
        for row in rows:
            tree.add(*row)
        assert tree.root() == digest.tree({path: (is_link, sha256) for path, is_link, sha256 in rows})


def test_a_path_that_comes_late_or_twice_is_no_set() -> None:
    """Another order would give another digest, so it is damage and not read on."""
    content = Content(Kind.FILE, 1, hashlib.sha256(b"1").digest())
    expected = Expected("x", "hint", "dt1:00", 2, 2)
    for paths in ((b"b", b"a"), (b"a", b"a")):
        with pytest.raises(DamagedError, match="is out of order"):
            list(proven((Entry(path, content) for path in paths), expected))


ALTERED = {
    "sha256": "UPDATE file SET sha256 = zeroblob(32) WHERE name = CAST('a.txt' AS BLOB)",
    "short sha256": "UPDATE file SET sha256 = x'00' WHERE name = CAST('a.txt' AS BLOB)",
    "no sha256": "UPDATE file SET sha256 = NULL WHERE name = CAST('a.txt' AS BLOB)",
    "name": "UPDATE file SET name = CAST('b.txt' AS BLOB) WHERE name = CAST('a.txt' AS BLOB)",
    "gone": "DELETE FROM file WHERE name = CAST('a.txt' AS BLOB)",
    "kind": "UPDATE file SET kind = 2 WHERE name = CAST('a.txt' AS BLOB)",
    "unknown kind": "UPDATE file SET kind = 9 WHERE name = CAST('a.txt' AS BLOB)",
    "unknown problem": "UPDATE file SET problem = 9 WHERE name = CAST('a.txt' AS BLOB)",
    "further digests": "UPDATE file SET more = x'c1' WHERE name = CAST('a.txt' AS BLOB)",
    "version's digest": "UPDATE version SET digest = zeroblob(32)",
    "version without digest": "UPDATE version SET digest = NULL",
    "version and record": "UPDATE version SET digest = zeroblob(32), "
    f"record = json_set(record, '$.digest', 'dt1:{'0' * 64}')",
    "total": "UPDATE version SET files = files + 1",
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_database_is_never_exported_as_good(place: ExportPlace, form: Format, what: str) -> None:
    """Damage, in every format, whatever was altered; the file that was there stays and nothing is left beside it."""
    place.fill(BAGGABLE).seal()
    place.mark(ALTERED[what])
    output = place.base / "out"
    if form != "bagit":
        output.write_text("old")

    with pytest.raises(DamagedError, match="data@1") as error:
        export(place.state, Request("data", form), output)
    assert "reprod verify data --chain" in error.value.hint
    left = {path.name: path for path in place.base.iterdir() if path.name not in {"data", "state"}}
    assert {name: path.read_text() for name, path in left.items()} == ({} if form == "bagit" else {"out": "old"})


@pytest.mark.parametrize("form", FORMATS)
def test_another_size_is_found_by_the_sum(place: ExportPlace, form: Format) -> None:
    """Sizes are no part of the digest, but the version says what they come to."""
    place.fill(BAGGABLE).seal()
    place.mark("UPDATE file SET size = size + 1 WHERE name = CAST('a.txt' AS BLOB)")

    with pytest.raises(DamagedError, match=r"they are 14 files of \d+ bytes, not 14 of"):
        export(place.state, Request("data", form), place.base / "out")
    assert not (place.base / "out").exists()


@pytest.mark.parametrize("form", ["sha256sums", "json", "croissant", "parquet"])
def test_a_stream_of_an_altered_set_never_comes_to_its_end(
    place: ExportPlace, form: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written cannot be taken back, but a whole list of a wrong set is never there."""
    monkeypatch.setattr("reprod.ops.export.PIECE_LINES", 7)  # so that the last piece is a full one
    place.fill(BAGGABLE).seal()
    whole, stream = BytesIO(), BytesIO()
    export(place.state, Request("data", form), whole)
    place.mark(ALTERED["sha256"])

    with pytest.raises(DamagedError):
        export(place.state, Request("data", form), stream)
    assert len(BAGGABLE) == 14
    assert len(stream.getvalue()) < len(whole.getvalue())


def test_an_older_version_is_proven_too(place: ExportPlace) -> None:
    """Its rows are those of the history."""
    place.fill({b"a": b"1", b"d/b": b"2"}).seal()
    place.fill({b"a": b"11"}).seal()
    assert json_of(place, "data@1")["digest"]
    place.mark("UPDATE history SET sha256 = zeroblob(32)")

    assert json_of(place, "data@2")["digest"]
    with pytest.raises(DamagedError, match="data@1"):
        json_of(place, "data@1")


# --- folders that could not be listed ---------------------------------------------------------------------------------


def test_a_folder_that_could_not_be_listed_is_said_and_nothing_below_it_is_claimed(
    place: ExportPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there earlier is only remembered; a validation of the copy knows that it does not know."""
    place.fill({b"d/a": b"1", b"d/deep/b": b"2", b"d-e": b"3", b"free": b"4"}).seal()
    bar(monkeypatch, b"d")
    assert place.seal().digest is None
    monkeypatch.undo()
    output = place.base / "m.json"
    report = export(place.state, Request("data", "json"), output)
    document = json.loads(output.read_bytes())

    assert [file["relative_path"] for file in document["files"]] == ["d-e", "free"]
    assert document["unreadable"] == [{"relative_path": "d", "kind": "directory"}]
    assert (document["digest"], document["complete"], document["summary"]["total_files"]) == (None, False, 2)
    assert (report["complete"], report["missing"]) == (False, "the folder 'd' could not be listed")
    found = verify.validate(read_claims(output), str(place.root))
    assert (found["complete"], found["differs"], found["unknown"]) == (False, False, ["d/"])
    with pytest.raises(IncompleteError, match="the folder 'd' could not be listed"):
        export(place.state, Request("data", "sha256sums"), place.base / "out")


def test_an_older_version_says_which_folders_they_were(place: ExportPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories have no history, so its record does; without one it is refused rather than told from memory."""
    place.fill({b"d/a": b"1", b"free": b"4"}).seal()
    bar(monkeypatch, b"d")
    place.seal()
    monkeypatch.undo()
    place.seal()

    assert json_of(place, "data@3")["unreadable"] == []
    assert json_of(place, "data@2")["unreadable"] == [{"relative_path": "d", "kind": "directory"}]
    assert [file["relative_path"] for file in json_of(place, "data@2")["files"]] == ["free"]
    place.mark("UPDATE version SET record = json_remove(record, '$.unlisted')")  # as they were written before
    with pytest.raises(IncompleteError, match="is not known any more"):
        json_of(place, "data@2")


def test_an_older_version_with_files_that_could_not_be_read_is_told(place: ExportPlace) -> None:
    """Files do have a history."""
    place.fill({b"a": b"1", b"b": b"2"}).seal()
    place.mark("UPDATE file SET problem = 1, sha256 = NULL WHERE name = CAST('b' AS BLOB)")
    place.mark(
        "UPDATE version SET digest = NULL, problems = 1, record = json_set(record, '$.digest', NULL, '$.problems', 1)"
    )
    place.seal()

    assert [item["relative_path"] for item in json_of(place, "data@1")["unreadable"]] == ["b"]
    assert json_of(place, "data@2")["complete"]


# --- copies of manifests ----------------------------------------------------------------------------------------------


def copied(place: ExportPlace, manifest: Path) -> tuple[dict[str, Any], Any]:
    """Export a manifest as json; return the report and the copy without the time, which is the file's own."""
    output = place.base / "copy.json"
    report = export(place.state, Request(str(manifest), "json"), output)
    return report, plain(output)


def plain(path: Path) -> Any:
    document = json.loads(path.read_bytes())
    for key in ("generated_at", "throughput_bytes_per_second", "throughput_files_per_second"):
        document.pop(key, None)
    document["summary"].pop("processing_time_seconds")
    return document


def manifest_of(place: ExportPlace, **asked: Any) -> Path:
    path = place.base / "m.json"
    with generate(str(place.root), **asked) as made:
        made.read(lambda entries: save(document_chunks(made.header, entries), str(path)))
    return path


def test_a_copy_of_a_manifest_says_what_the_manifest_says(place: ExportPlace) -> None:
    """Root, metadata, selection, links, special files, digest."""
    place.fill(BAGGABLE)
    (place.root / "link").symlink_to("a.txt")
    os.mkfifo(place.root / "pipe")
    manifest = manifest_of(place, exclude=["z"], metadata={"experiment": "x", "deep": [{}]})
    report, copy = copied(place, manifest)

    assert report["complete"]
    assert copy == plain(manifest)
    assert copy["metadata"] == {"experiment": "x", "deep": [{}]}
    assert copy["data_path"] == str(place.root)


def test_a_copy_of_a_cut_manifest_is_cut_and_validates_as_it_does(place: ExportPlace) -> None:
    """Unchanged data is what both say, and what lies behind the cut is no file too many."""
    place.fill({b"a": b"1", b"b/c": b"2", b"d": b"3", b"e": b"4"})
    manifest = manifest_of(place, max_files=2)
    report, copy = copied(place, manifest)

    assert copy == plain(manifest)
    assert copy["cut"] == {"max_files": 2, "total_files": None}
    assert (report["complete"], report["missing"]) == (False, "it lists only the first files")
    for path in (manifest, place.base / "copy.json"):
        assert verify.validate(read_claims(path), str(place.root))["valid"]


def test_a_copy_of_an_incomplete_manifest_lists_what_was_not_known(
    place: ExportPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders, files and how they failed; a validation of the copy says the same as one of the original."""
    place.fill({b"a": b"1", b"d/x": b"2", b"e": b"3", b"f": b"4"})
    bar(monkeypatch, b"d")
    manifest = manifest_of(place)
    monkeypatch.undo()
    document = json.loads(manifest.read_bytes())
    document["files"] = [file for file in document["files"] if file["relative_path"] == "a"]
    document["unreadable"].insert(0, {"relative_path": "e"})
    document["unstable"].append({"relative_path": "f"})
    document["special"].append({"relative_path": "\\xff", "path_b64": "/w=="})
    document["symlinks"].append({"relative_path": "link", "target_sha256": ""})
    document["summary"] |= {"total_files": 1, "total_size_bytes": 1, "total_size_human": "1.00 B"}
    manifest.write_text(json.dumps(document))
    report, copy = copied(place, manifest)

    assert copy["unreadable"] == [
        {"relative_path": "e"},
        {"relative_path": "link"},
        {"relative_path": "d", "kind": "directory"},
    ]
    assert copy["unstable"] == [{"relative_path": "f"}]
    assert copy["special"] == [{"relative_path": "\\xff", "path_b64": "/w=="}]
    said = "the folder 'd' could not be listed, 'e' was unreadable, 'f' was unstable, and 1 more"
    assert report["missing"] == said
    answers = [verify.validate(read_claims(p), str(place.root)) for p in (manifest, place.base / "copy.json")]
    for key in ("valid", "complete", "differs", "missing", "extra"):
        assert answers[0][key] == answers[1][key]
    assert sorted(answers[0]["unknown"]) == sorted(answers[1]["unknown"]) == ["d/", "e", "f", "link"]


def test_a_manifest_that_says_it_is_not_complete_is_no_whole_list(place: ExportPlace) -> None:
    """Even if it does not say what is missing."""
    place.fill({b"a": b"1"})
    manifest = manifest_of(place)
    document = json.loads(manifest.read_bytes()) | {"complete": False, "digest": None}
    manifest.write_text(json.dumps(document))

    with pytest.raises(IncompleteError, match="it says so itself"):
        export(place.state, Request(str(manifest), "sha256sums"), BytesIO())


def test_a_packed_manifest_is_read_the_same(place: ExportPlace) -> None:
    """gzip, as a run's large manifests have it."""
    import gzip

    place.fill({b"a": b"1", b"b": b"2"})
    manifest = manifest_of(place, max_files=1, metadata={"k": "v"})
    packed = place.base / "m.json.gz"
    packed.write_bytes(gzip.compress(manifest.read_bytes()))

    assert copied(place, packed)[1] == plain(manifest)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"data_path": 7}, "."),
        ({"data_path": ""}, "."),
        ({"data_path": "a\0b"}, "."),
        ({"data_path": "/x\\xff", "data_path_b64": "L3j/"}, "/x\\xff"),
        ({"data_path": "/other", "data_path_b64": "L3j/"}, "/other"),
        ({"data_path": "/x", "data_path_b64": "!"}, "."),
    ],
)
def test_a_root_that_is_no_path_is_not_told_on(place: ExportPlace, said: dict[str, Any], shown: str) -> None:
    """It is anybody's word; bytes that are not UTF-8 come through."""
    place.fill({b"a": b"1"})
    manifest = manifest_of(place)
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | said))

    assert copied(place, manifest)[1]["data_path"] == shown


def test_a_cut_that_does_not_say_where_is_at_the_last_file(place: ExportPlace) -> None:
    """``"cut": true`` lists the first files, and that many it has."""
    place.fill({b"a": b"1", b"b": b"2"})
    manifest = manifest_of(place)
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"cut": True, "digest": None}))

    assert copied(place, manifest)[1]["cut"]["max_files"] == 2
