"""Exports of versions, of manifests and of runs: right for the standard tools, equal when repeated, or not there."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import bagit
import oracle
import pyarrow.parquet
import pytest
from export_place import BAGGABLE, HOSTILE, ExportPlace, tree_of

from reprod.core import croissant, digest
from reprod.core.entry import Content, Entry, Kind
from reprod.errors import DamagedError, DatasetUnavailableError, IncompleteError, NotFoundError, StateError, UsageError
from reprod.fs.root import open_root
from reprod.ops import export_foreign, export_set
from reprod.ops.export import FORMATS, Request, export
from reprod.ops.export_payload import Placer
from reprod.ops.export_set import Source


@pytest.fixture
def place(tmp_path: Path) -> Iterator[ExportPlace]:
    here = ExportPlace(tmp_path)
    yield here
    here.close()


def made(place: ExportPlace, form: Any, ref: str = "data", **asked: Any) -> bytes:
    """An export to a stream."""
    stream = BytesIO()
    export(place.state, Request(ref, form, **asked), stream)
    return stream.getvalue()


def bag_of(place: ExportPlace, name: str = "bag", ref: str = "data", **asked: Any) -> dict[str, Any]:
    return export(place.state, Request(ref, "bagit", **asked), place.base / name)


def left_behind(place: ExportPlace) -> list[str]:
    return sorted({path.name for path in place.base.iterdir()} - {"data", "state"})


# --- sha256sums -------------------------------------------------------------------------------------------------------


def test_sha256sums_is_what_sha256sum_itself_checks_and_would_print(place: ExportPlace) -> None:
    """GNU sha256sum accepts every hostile name, the order is that of sort, and the report has the file's own digest."""
    place.fill(HOSTILE)
    (place.root / "link").symlink_to("plain.csv")
    place.seal()
    output = place.base / "SHA256SUMS"
    report = export(place.state, Request("data", "sha256sums"), output)
    data = output.read_bytes()
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", str(output)], cwd=place.root, capture_output=True, timeout=30
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert data == oracle.flat_sums(oracle.scan(os.fsencode(place.root)))
    assert report["sums_sha256"] == hashlib.sha256(data).hexdigest()
    assert (report["files"], report["symlinks"], report["bytes"]) == (17, 1, sum(map(len, HOSTILE.values())))
    assert report["bytes_written"] == len(data)


def test_sha256sums_of_a_known_tree_has_the_known_digest(place: ExportPlace) -> None:
    """Vector V3: the digest of the listing is the in-toto dirHash1, whose order is that of the paths' bytes."""
    place.fill({b"a/z": b"1", b"a-b/c": b"2", b"a/b/q": b"3", b"a.txt": b"4", b"a/b.txt": b"5"}).seal()
    names = b"\n".join([b"a/z", b"a-b/c", b"a/b/q", b"a.txt", b"a/b.txt", b""])
    in_order = subprocess.run(["sort"], input=names, env={"LC_ALL": "C"}, capture_output=True, timeout=30).stdout
    ordered = subprocess.run(["sha256sum", *in_order.split()], cwd=place.root, capture_output=True, timeout=30).stdout

    assert made(place, "sha256sums") == ordered
    assert hashlib.sha256(ordered).hexdigest() == "24c71752de9b89dcdeca26377d36cb0a9496101aef418dd0866861160adf2ab9"


# --- every format -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [f for f in FORMATS if f != "bagit"])
def test_the_same_version_is_the_same_export_after_everything_changed(place: ExportPlace, form: str) -> None:
    """Byte for byte, whatever became of the files and of the history since."""
    place.fill(HOSTILE).seal()
    first = made(place, form)
    place.fill({b"plain.csv": b"other", b"added": b"x"})
    (place.root / "empty").unlink()
    place.seal()

    assert made(place, form, "data@1") == first
    assert made(place, form, "data@2") != first
    assert made(place, form) == made(place, form, "data@2")


@pytest.mark.parametrize("form", ["sha256sums", "json", "croissant", "parquet"])
def test_memory_does_not_grow_with_the_number_of_files(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many entries pass through in the same memory."""
    monkeypatch.setattr(croissant, "MAX_LISTED", 1000)
    monkeypatch.setattr("reprod.ops.export_parquet.GROUP", 1000)

    def peak(count: int) -> int:
        def entries() -> Iterator[Entry]:
            for i in range(count):
                content = Content(Kind.FILE, i, hashlib.sha256(b"%d" % i).digest())
                yield Entry(b"folder/%09d.jpeg" % i, content, 1_700_000_000_000_000_000 + i, 0o100644)

        monkeypatch.setattr(export_foreign, "of_manifest", lambda _: foreign(lambda consume: consume(entries()), count))
        with open(os.devnull, "wb") as sink:
            tracemalloc.start()
            export(Path("/nonexistent"), Request("./m", form), sink)  # type: ignore[arg-type]
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    peak(100)  # imports
    assert peak(40_000) < 1.2 * peak(10_000) + 200_000


def foreign(stream: Callable[[Any], Any], count: int) -> Source:
    return Source(
        title="./m", name="m", seq=None, run_id=None, data_path=".", root=None, digest=None, frozen_ns=0,
        selection=None, files=count, size=0, why_not="", more=(), stated=True, stream=stream,
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_a_set_with_something_unknown_is_refused_by_every_format_that_cannot_say_so(
    place: ExportPlace, form: str
) -> None:
    """A list that silently lacks a file would be a wrong one; only json says what is missing."""
    place.fill({b"a": b"1", b"b": b"2"}).seal()
    place.mark("UPDATE file SET problem = 1, sha256 = NULL WHERE name = CAST('b' AS BLOB)")
    place.mark(
        "UPDATE version SET digest = NULL, problems = 1, record = json_set(record, '$.digest', NULL, '$.problems', 1)"
    )
    output = place.base / "out"
    if form == "json":
        report = export(place.state, Request("data", "json"), output)
        document = json.loads(output.read_bytes())

        assert (report["complete"], report["missing"]) == (False, "'b' was unreadable")
        assert (document["complete"], document["digest"]) == (False, None)
        assert [f["relative_path"] for f in document["files"]] == ["a"]
        assert [f["relative_path"] for f in document["unreadable"]] == ["b"]
    else:
        with pytest.raises(IncompleteError, match="data@1 is not complete: 'b' was unreadable"):
            export(place.state, Request("data", form), output)  # type: ignore[arg-type]
        assert left_behind(place) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_pruned_version_has_no_export(place: ExportPlace, form: Any) -> None:
    """What is not provable any more is never answered by a neighbour."""
    place.fill({b"a": b"1"}).seal()
    place.fill({b"a": b"2"}).seal()
    place.mark("UPDATE version SET pruned = 1 WHERE seq = 1")

    with pytest.raises(IncompleteError, match="not provable"):
        export(place.state, Request("data@1", form), place.base / "out")
    assert left_behind(place) == []


def test_what_does_not_exist_is_said(place: ExportPlace) -> None:
    """A version, a dataset, a run, a format, a second dataset."""
    place.fill({b"a": b"1"}).seal()
    for ref in ("data@9", "other", "run:abc"):
        with pytest.raises(NotFoundError):
            made(place, "json", ref)
    with pytest.raises(UsageError, match="no format"):
        made(place, "xml")
    with pytest.raises(UsageError, match="no version of other"):
        made(place, "json", "data@1", dataset="other")


def test_an_export_that_fails_leaves_the_file_that_was_there(
    place: ExportPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody ever reads half of an export, and nothing else is left in the folder."""
    place.fill(HOSTILE).seal()
    output = place.base / "out"
    output.write_text("old")
    monkeypatch.setattr(export_set, "REPORT_EVERY", 5)

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(place.state, Request("data", "json"), output, progress=fail)
    assert output.read_text() == "old"
    assert left_behind(place) == ["out"]


def test_an_output_that_cannot_be_written_is_said_before_anything_is_lost(place: ExportPlace) -> None:
    """A folder, no folder, a full device."""
    place.fill({b"a": b"1"}).seal()
    with pytest.raises(UsageError, match="is a folder"):
        export(place.state, Request("data", "json"), place.base)
    with pytest.raises(UsageError, match="there is no folder"):
        export(place.state, Request("data", "json"), place.base / "none" / "out")
    with pytest.raises(StateError, match="No space left"):
        export(place.state, Request("data", "json"), Path("/dev/full"))
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


# --- json -------------------------------------------------------------------------------------------------------------


def test_json_has_the_times_of_the_version_and_every_entry(place: ExportPlace) -> None:
    """The seed's fields; nothing says when the export was made."""
    place.fill(HOSTILE)
    (place.root / "link").symlink_to("plain.csv")
    os.mkfifo(place.root / "pipe")
    version = place.seal()
    document = json.loads(made(place, "json"))

    assert document["generated_at"] == document_time(version.sealed_ns)
    assert document["digest"] == oracle.dt1(oracle.scan(os.fsencode(place.root)))
    assert (document["dataset"], document["version"], document["data_path"]) == ("data", 1, str(place.root))
    assert len(document["files"]) == document["summary"]["total_files"] == len(HOSTILE)
    assert [item["relative_path"] for item in document["symlinks"]] == ["link"]
    assert [item["relative_path"] for item in document["special"]] == ["pipe"]
    assert document["summary"]["processing_time_seconds"] == 0


def document_time(ns: int) -> str:
    from reprod.core.manifest import rfc3339

    return rfc3339(ns)


def test_a_further_algorithm_is_listed_only_if_every_file_has_it(tmp_path: Path) -> None:
    """A version from before an algorithm was asked for says only what all of its files have."""
    place = ExportPlace(tmp_path)
    place.fill({b"a": b"1", b"b": b"2"}).seal()
    place.ask_for("sha256", "md5")
    place.fill({b"b": b"22"}).seal()
    old, new = json.loads(made(place, "json", "data@1")), json.loads(made(place, "json", "data@2"))
    place.close()

    assert old["hash_algorithms"] == ["sha256"]
    assert [list(file["hashes"]) for file in old["files"]] == [["sha256"]] * 2
    assert new["hash_algorithms"] == ["sha256", "md5"]
    assert new["files"][1]["hashes"]["md5"] == hashlib.md5(b"22", usedforsecurity=False).hexdigest()


# --- croissant --------------------------------------------------------------------------------------------------------

_LOAD = """
import json, sys, logging
logging.disable()
import mlcroissant
found = mlcroissant.Dataset(jsonld=sys.argv[1]).metadata
errors = sorted(found.ctx.issues.errors)
objects = [[f.id, f.name, f.content_url, f.content_size, f.sha256] for f in found.file_objects]
json.dump([errors, found.name, found.version, [s.id for s in found.file_sets], objects], sys.stdout)
"""


def load(path: Path) -> Any:
    """What mlcroissant reads; in a process of its own, because it warns of its own imports."""
    done = subprocess.run([sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_mlcroissant_loads_a_croissant_export(place: ExportPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of any bytes, sizes and digests come through; above the limit the manifest stands for the files."""
    pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    place.fill(HOSTILE).seal()
    output = place.base / "croissant.json"
    export(place.state, Request("data", "croissant"), output)
    errors, name, version, sets, objects = load(output)
    sums = made(place, "sha256sums")

    assert (errors, name, version, sets) == ([], "data", "1.0.0", ["files"])
    listed = {url: (size, sha256) for _, _, url, size, sha256 in objects}
    assert listed["SHA256SUMS"] == (f"{len(sums)} B", hashlib.sha256(sums).hexdigest())
    assert listed["100%25.csv"] == ("1 B", hashlib.sha256(b"9").hexdigest())
    assert {"%FF%FE.bin", "new%0Aline", "%20sp%20ace%20.txt"} < listed.keys()
    assert len(objects) == len(HOSTILE) + 1

    monkeypatch.setattr(croissant, "MAX_LISTED", 3)
    export(place.state, Request("data", "croissant"), output)
    assert [url for _, _, url, _, _ in load(output)[4]] == ["SHA256SUMS"]


def test_croissant_claims_nothing_that_is_not_known(place: ExportPlace) -> None:
    """No license, creator, page or date of publication is made up."""
    place.fill({b"a": b"1"}).seal()

    assert not {"license", "creator", "url", "datePublished", "citeAs"} & json.loads(made(place, "croissant")).keys()


# --- parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_rows_are_the_entries_of_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw paths, digests and metadata in path order, over several row groups."""
    monkeypatch.setattr("reprod.ops.export_parquet.GROUP", 5)
    place = ExportPlace(tmp_path, algorithms=("sha256", "md5"))
    place.fill(HOSTILE)
    (place.root / "link").symlink_to("plain.csv")
    os.mkfifo(place.root / "pipe")
    place.seal()
    output = place.base / "data.parquet"
    export(place.state, Request("data", "parquet"), output)
    place.close()
    table = pyarrow.parquet.read_table(output)
    rows = {row["path"]: row for row in table.to_pylist()}
    st = os.lstat(place.root / "plain.csv")

    assert [row["path"] for row in table.to_pylist()] == sorted([*HOSTILE, b"link"])
    assert rows[b"plain.csv"]["sha256"] == hashlib.sha256(b"a,b\n1,2\n").digest()
    assert rows[b"plain.csv"]["md5"] == hashlib.md5(b"a,b\n1,2\n", usedforsecurity=False).digest()
    assert (rows[b"plain.csv"]["size"], rows[b"plain.csv"]["mode"]) == (8, st.st_mode & 0o7777)
    assert rows[b"plain.csv"]["mtime"].value == st.st_mtime_ns
    assert rows[b"\xff\xfe.bin"]["path_text"] == "\\xff\\xfe.bin"
    assert (rows[b"link"]["kind"], rows[b"link"]["sha256"]) == ("link", hashlib.sha256(b"plain.csv").digest())
    assert table.schema.metadata[b"reprod.version"] == b"1"


def test_parquet_without_pyarrow_says_what_to_install(place: ExportPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional."""
    place.fill({b"a": b"1"}).seal()
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(UsageError, match="needs pyarrow") as error:
        made(place, "parquet")
    assert "pip install" in error.value.hint


# --- manifests and runs -----------------------------------------------------------------------------------------------


def test_a_manifest_file_is_exported_as_the_version_that_it_lists(place: ExportPlace) -> None:
    """A document gives the same SHA256SUMS as the version; SHA256SUMS gives itself."""
    place.fill(HOSTILE).seal()
    manifest, sums = place.base / "m.json", place.base / "SHA256SUMS"
    export(place.state, Request("data", "json"), manifest)
    export(place.state, Request("data", "sha256sums"), sums)

    os.utime(sums, (1_000_000_000, 1_000_000_000))

    assert made(place, "sha256sums", str(manifest)) == made(place, "sha256sums", str(sums)) == sums.read_bytes()
    again = json.loads(made(place, "json", str(manifest)))
    assert [f["hashes"] for f in again["files"]] == [f["hashes"] for f in json.loads(manifest.read_bytes())["files"]]
    assert again["digest"] == json.loads(manifest.read_bytes())["digest"]
    described = json.loads(made(place, "croissant", str(sums)))["description"]
    assert described == "SHA256SUMS, as recorded at 2001-09-09T01:46:40.000000Z, 17 files."
    with pytest.raises(IncompleteError, match="does not state the sizes"):
        made(place, "json", str(sums))


def test_a_hostile_manifest_is_refused_and_its_root_never_opened(place: ExportPlace) -> None:
    """A path that leaves the root is damage; where the files are, only the user says."""
    hostile, sums = place.base / "hostile.json", place.base / "SHA256SUMS"
    hostile.write_text('{"manifest_version": "1.0", "files": [{"relative_path": "../../etc/passwd"}]}')
    sums.write_bytes(b"%b  a\n" % hashlib.sha256(b"1").hexdigest().encode())
    place.fill({b"a": b"1"})

    with pytest.raises(DamagedError):
        made(place, "sha256sums", str(hostile))
    with pytest.raises(UsageError, match="nothing on this host says where the files"):
        bag_of(place, ref=str(sums))
    bag_of(place, ref=str(sums), data=str(place.root))
    bagit.Bag(str(place.base / "bag")).validate()


def test_a_run_that_only_the_tracking_server_knows_is_exported_from_there(
    place: ExportPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this host does not know is asked of the server, if there is one; the digest is the one it proved."""
    from reprod.config import Config, MlflowConfig
    from reprod.ops import fetch

    def fetched(config: Config, ref: str, name: str | None) -> fetch.FetchedManifest:
        entries = (Entry(b"a", Content(Kind.FILE, 1, hashlib.sha256(b"1").digest()), 5, 0o644),)
        known = "dt1:" + digest.tree({b"a": (False, entries[0].content.sha256 or b"")}).hex()
        header = {"version": 7, "data_path": "/there", "generated_at": "2026-11-23T08:52:21.220381Z"}
        return fetch.FetchedManifest("f00", "data", known, header, True, place.base / "gone", entries)

    monkeypatch.setattr(fetch, "fetch_reference", fetched)
    config = type("C", (), {"mlflow": MlflowConfig(tracking_uri="http://127.0.0.1:1")})
    stream = BytesIO()
    report = export(place.state, Request("run:f00", "json"), stream, config=lambda: config)  # type: ignore[arg-type, return-value]
    document = json.loads(stream.getvalue())

    assert (report["run_id"], report["version"], report["digest"]) == ("f00", 7, document["digest"])
    assert (document["generated_at"], document["data_path"]) == ("2026-11-23T08:52:21.220381Z", "/there")
    silent = type("C", (), {"mlflow": MlflowConfig()})
    with pytest.raises(NotFoundError):
        export(place.state, Request("run:f00", "json"), stream, config=lambda: silent)  # type: ignore[arg-type, return-value]


# --- bags -------------------------------------------------------------------------------------------------------------


def test_bagit_python_validates_a_bag_with_every_name_that_it_can_read(tmp_path: Path) -> None:
    """The payload is the dataset, its manifests are the version's, and a later write into the data changes nothing."""
    place = ExportPlace(tmp_path, algorithms=("sha256", "md5", "sha512"))
    place.fill(BAGGABLE)
    (place.root / "link").symlink_to("a/b.txt")
    os.mkfifo(place.root / "pipe")
    version = place.seal()
    report = bag_of(place)
    place.fill({b"plain.csv": b"other"})
    place.close()
    bag = bagit.Bag(str(tmp_path / "bag"))

    assert bag.validate()
    assert set(bag.algorithms) == {"sha256", "md5", "sha512"}
    assert tree_of(tmp_path / "bag" / "data") == {path.decode("latin-1"): data for path, data in BAGGABLE.items()}
    assert bag.info["External-Identifier"] == "dt1:" + (version.digest or b"").hex()
    assert bag.info["Payload-Oxum"] == f"{sum(map(len, BAGGABLE.values()))}.{len(BAGGABLE)}"
    assert bag.info["Reprod-Special-Files-Left-Out"] == "1"
    assert json.loads((tmp_path / "bag" / "symlinks.jsonl").read_text()) == {
        "path": "link",
        "target": "a/b.txt",
        "sha256": hashlib.sha256(b"a/b.txt").hexdigest(),
    }
    assert (report["symlinks"], report["linked_files"], report["bagit_version"]) == (1, 0, "1.0")


def test_the_same_version_makes_the_same_bag(place: ExportPlace) -> None:
    """Nothing in it says when it was made."""
    place.fill(BAGGABLE).seal()
    bag_of(place, "one")
    (place.base / "two").mkdir()
    bag_of(place, "two")

    assert tree_of(place.base / "one") == tree_of(place.base / "two")


def test_a_bag_with_a_percent_sign_is_of_the_version_that_reads_it(place: ExportPlace) -> None:
    """BagIt 0.97, where nothing is encoded."""
    place.fill({b"100%.csv": b"1", b"a%25b": b"2"}).seal()
    bag_of(place)
    bag = bagit.Bag(str(place.base / "bag"))

    assert bag.validate()
    assert bag.version_info == (0, 97)


def test_names_that_no_bag_holds_are_listed_and_nothing_is_left(place: ExportPlace) -> None:
    """Not UTF-8, two spellings of one name, a percent sign beside a line break."""
    place.fill(HOSTILE).seal()

    with pytest.raises(UsageError, match="a bag cannot hold 3 of the names") as error:
        bag_of(place)
    assert "\\xff\\xfe.bin' is not UTF-8" in error.value.message
    assert left_behind(place) == []


def _other_content(root: Path) -> None:
    (root / "sub" / "f").write_bytes(b"X" * 3)


def _truncated(root: Path) -> None:
    (root / "sub" / "f").write_bytes(b"")


def _gone(root: Path) -> None:
    (root / "sub" / "f").unlink()


def _symlink(root: Path) -> None:
    (root / "sub" / "f").rename(root.parent / "outside")
    (root / "sub" / "f").symlink_to(root.parent / "outside")


def _folder_symlink(root: Path) -> None:
    (root / "sub").rename(root.parent / "outside")
    (root / "sub").symlink_to(root.parent / "outside")


def _fifo(root: Path) -> None:
    (root / "sub" / "f").unlink()
    os.mkfifo(root / "sub" / "f")


def _link_elsewhere(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize(
    "change", [_other_content, _truncated, _gone, _symlink, _folder_symlink, _fifo, _link_elsewhere]
)
def test_no_bag_is_made_of_files_that_are_not_the_version(
    place: ExportPlace, change: Callable[[Path], None], link: bool
) -> None:
    """Changed, gone, or something else in their place, inside the root or out of it: named, and nothing is left."""
    place.fill({b"sub/f": b"abc", b"z": b"1"})
    (place.root / "link").symlink_to("z")
    place.seal()
    change(place.root)

    why = {_other_content: "its content", _truncated: "it has 0 bytes, not 3", _gone: "it is gone"}
    why |= {_link_elsewhere: "it leads elsewhere", _folder_symlink: "its folder: something of another kind"}

    with pytest.raises(IncompleteError, match=r"is not what data@1 says") as error:
        bag_of(place, link=link)
    assert why.get(change, "something of another kind is there") in error.value.message
    assert ("'link'" if change is _link_elsewhere else "'sub/f'") in error.value.message
    assert "reprod verify data@1" in error.value.hint
    assert [name for name in left_behind(place) if name != "outside"] == []


@pytest.mark.parametrize("link", [False, True])
def test_a_symlink_that_takes_a_file_s_place_after_the_look_is_never_followed(tmp_path: Path, link: bool) -> None:
    """What is opened is the entry itself, so nothing outside the root can come into a bag."""
    for name in ("data", "bag"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret").write_bytes(b"abc")
    (tmp_path / "data" / "f").symlink_to(tmp_path / "secret")
    expected = {"sha256": hashlib.sha256(b"abc").digest()}

    def refuse(_: bytes, why: str) -> IncompleteError:
        return IncompleteError(why)

    with (
        open_root(str(tmp_path / "data")) as root,
        Placer(root, tmp_path / "bag", ("sha256",), refuse, lambda: None, link=link) as placer,
        pytest.raises(IncompleteError, match="something of another kind is there"),
    ):
        placer.place(b"f", expected)


def test_a_bag_is_made_only_in_a_new_or_empty_place_outside_the_data(place: ExportPlace) -> None:
    """What is there is never mixed with a bag, and the bag never becomes part of the data."""
    place.fill({b"sub/f": b"abc"}).seal()
    full = place.base / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    for output in ("full", "data/sub/bag", "none/bag", "full/mine"):
        with pytest.raises(UsageError):
            bag_of(place, output)
    with pytest.raises(UsageError, match="a bag is a folder"):
        made(place, "bagit")
    assert tree_of(full) == {"mine": b"x"}
    assert tree_of(place.root) == {"sub/f": b"abc"}

    place.root.rename(place.base / "away")
    with pytest.raises(DatasetUnavailableError):
        bag_of(place)
    bag_of(place, data=str(place.base / "away"))
    assert bagit.Bag(str(place.base / "bag")).validate()


def test_linked_files_are_the_dataset_s_own_and_copies_are_not(place: ExportPlace) -> None:
    """A link costs no space; a copy keeps the bag apart from later writes."""
    place.fill({b"sub/f": b"abc"}).seal()
    linked, copied = bag_of(place, "linked", link=True), bag_of(place, "copied")
    inode = (place.root / "sub" / "f").stat().st_ino

    assert (linked["linked_files"], copied["linked_files"]) == (1, 0)
    assert (place.base / "linked" / "data" / "sub" / "f").stat().st_ino == inode
    assert (place.base / "copied" / "data" / "sub" / "f").stat().st_ino != inode
    assert bagit.Bag(str(place.base / "linked")).validate()


def test_a_bag_lets_nobody_read_what_they_could_not_read_before(place: ExportPlace) -> None:
    """Permissions are those of the source; times of change too."""
    place.fill({b"private": b"1", b"sub/f": b"2"})
    (place.root / "private").chmod(0o600)
    (place.root / "sub").chmod(0o700)
    os.utime(place.root / "private", (1_000_000, 1_000_000))
    place.seal()
    bag_of(place)
    data = place.base / "bag" / "data"

    assert stat.S_IMODE((data / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((data / "sub").stat().st_mode) == 0o700
    assert (data / "private").stat().st_mtime == 1_000_000


def test_a_deep_tree_is_bagged_whole(place: ExportPlace) -> None:
    """Deeper than the descriptors that are held, each folder made on the way to the first file."""
    path = b"/".join([b"d"] * 200) + b"/f"
    folder = os.open(place.root, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    place.seal()
    report = bag_of(place)

    assert report["files"] == 1
    assert path in (place.base / "bag" / "manifest-sha256.txt").read_bytes()


def test_a_dataset_that_is_one_file_is_a_bag_of_that_file(tmp_path: Path) -> None:
    """What lies beside it is no part of it, and the bag may lie there too."""
    place = ExportPlace(tmp_path, only="one.csv")
    place.fill({b"one.csv": b"1", b"other": b"2"}).seal()
    export(place.state, Request("data", "bagit"), place.root / "bag")
    place.close()

    assert tree_of(place.root / "bag" / "data") == {"one.csv": b"1"}
    assert bagit.Bag(str(place.root / "bag")).validate()
