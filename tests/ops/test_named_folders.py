"""A run on ``NAME/SUB`` used that folder alone: what verify, diff and export say of it with real files and history."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import oracle
import pytest
from export_place import ExportPlace, tree_of

from reprod.config import Config, DatasetConfig, EnvironmentConfig, MlflowConfig, ScanConfig, WatchConfig
from reprod.core import digest
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import IncompleteError, NotFoundError, UsageError
from reprod.ops.diff import diff
from reprod.ops.export import Format, Request, export
from reprod.ops.run_verify import root_here
from reprod.ops.verify import verify
from reprod.store import files, outbox, subtree

HELD = {b"part-0.csv": b"0", b"sub/x.csv": b"x", b"sub/deep/y.csv": b"y", b"sub2/z.csv": b"z"}


class Folders(ExportPlace):
    """A dataset with folders, and runs on them."""

    def verify(self, ref: str, path: str | None = None, name: str | None = None) -> dict[str, Any]:
        return verify(self.state, self.settings, ref, path, "full", lambda: None, dataset=name)

    def diff(self, a: str, b: str | None = None) -> dict[str, Any]:
        return diff(self.state, self.settings, a, b)

    def export(self, form: Format, name: str = "out", ref: str = "run:one", **more: Any) -> Path:
        export(self.state, Request(ref, form, **more), self.base / name)
        return self.base / name

    @property
    def settings(self) -> Config:
        return Config(
            MlflowConfig(), EnvironmentConfig(), WatchConfig(), ScanConfig(),
            (DatasetConfig("data", str(self.root)),), (), None, self.base, self.state, self.base / "socket",
        )  # fmt: skip

    def dt1(self, path: str = "") -> str:
        return oracle.dt1(oracle.scan(os.fsencode(self.root / path)))

    def run(self, name: str, seq: int, *paths: str | None) -> None:
        """Record a run that used these folders (None: the whole) of a version."""
        bound = tuple(self._bound(seq, path) for path in paths)
        snapshot = msgspec.json.encode(Snapshot(1, "host", bound, None, None, None))

        def write(c: files.Connection) -> None:
            outbox.notice(c, "u", f"{name}-id", "data", msgspec.json.encode({"name": name}), 1)
            outbox.published(c, c.execute("SELECT max(id) FROM delivery").fetchone()[0], snapshot)

        self._records.write(write)

    def _bound(self, seq: int, path: str | None) -> BoundDataset:
        found = self._db.read(lambda c: subtree.subtree(c, seq, os.fsencode(path or "")))
        node = digest.text(found.node) if found is not None and found.node is not None else None
        whole = BoundDataset(
            "data", str(self.root), "start", "walk", seq, node, 1, 1, 1, "00", ("sha256",), 0.1, path=path
        )
        return whole if node is not None else replace(whole, error=f"version {seq} of data has no folder {path!r}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Folders]:
    """One sealed version, and a run on a folder of it."""
    found = Folders(tmp_path)
    found.fill(HELD).seal()
    found.run("one", 1, "sub")
    yield found
    found.close()


@pytest.mark.parametrize("sealed", [False, True])
def test_what_changed_beside_the_folder_is_no_difference(place: Folders, sealed: bool) -> None:
    """A run on a folder verifies by that folder, whatever became of the rest, sealed since or not."""
    expected = place.dt1("sub")
    place.fill({b"part-0.csv": b"other", b"sub2/new": b"new"})
    if sealed:
        place.seal()
    found = place.verify("run:one")
    assert (found["valid"], found["differs"], found["complete"]) == (True, False, True)
    assert (found["name"], found["digest_expected"], found["checked_files"]) == ("data/sub", expected, 2)


def test_what_changed_in_the_folder_is_told(place: Folders) -> None:
    """Its other bytes, its lost and its new files differ, each by its path from the root."""
    place.fill({b"sub/x.csv": b"X", b"sub/new": b"new"})
    (place.root / "sub/deep/y.csv").unlink()
    found = place.verify("run:one")
    assert found["differs"]
    assert [each["path"] for each in found["mismatched"]] == ["sub/x.csv"]
    assert (found["missing"], found["extra"]) == (["sub/deep/y.csv"], ["sub/new"])
    assert place.verify("run:one", "sub/x.csv")["checked_files"] == 1


def test_a_path_that_the_run_did_not_use_is_refused(place: Folders) -> None:
    """PATH is from the root, and inside of what the run named: a neighbour of a like name is not."""
    for path in ("part-0.csv", "sub2/z.csv", "sub2"):
        with pytest.raises(UsageError, match="used data/sub alone"):
            place.verify("run:one", path)


def test_a_folder_that_was_not_there_has_no_version(place: Folders) -> None:
    """No verb takes the whole dataset for it: 5."""
    place.run("lost", 1, "nowhere")
    for ask in (place.verify, place.diff, lambda ref: place.export("sha256sums", ref=ref)):
        with pytest.raises(IncompleteError, match="no version of data/nowhere"):
            ask("run:lost")


def test_one_of_several_is_named(place: Folders) -> None:
    """A run on two folders of one dataset is asked which, and each is found by its name."""
    place.run("two", 1, "sub", "sub2")
    place.fill({b"sub/x.csv": b"X"})
    with pytest.raises(UsageError, match="several datasets: data/sub, data/sub2") as raised:
        place.verify("run:two")
    assert "--dataset NAME" in raised.value.hint
    assert place.verify("run:two", name="data/sub2")["valid"]
    assert place.verify("run:two", name="data/sub")["differs"]
    with pytest.raises(UsageError, match="several datasets"):
        place.verify("run:two", name="data")
    with pytest.raises(NotFoundError, match="did not use other"):
        place.verify("run:two", name="other")
    with pytest.raises(UsageError, match="no version of other"):
        place.verify("data@1", name="other")


def test_a_diff_is_of_the_folder(place: Folders) -> None:
    """Against now and against versions it compares what the run named, by paths from there."""
    expected = place.dt1("sub")
    place.fill({b"part-0.csv": b"other"})
    found = place.diff("run:one")
    assert (found["different"], found["a"]["name"], found["a"]["digest"]) == (False, "data/sub", expected)
    place.fill({b"sub/x.csv": b"XX"})
    assert [each["path"] for each in place.diff("run:one")["modified"]] == ["x.csv"]
    place.seal()
    between = place.diff("data@2", "run:one")
    assert [each["path"] for each in between["modified"]] == ["x.csv"]
    assert (between["a"]["digest"], between["b"]["digest"]) == (place.dt1("sub"), expected)
    place.run("again", 2, "sub")
    assert [each["path"] for each in place.diff("run:one", "run:again")["modified"]] == ["x.csv"]
    place.run("other", 2, "sub2")
    with pytest.raises(UsageError, match=r"of data/sub2$"):
        place.diff("run:one", "run:other")
    place.run("whole", 2, None)
    with pytest.raises(UsageError, match="is of data/sub,"):
        place.diff("run:one", "run:whole")


def test_a_folder_is_compared_with_a_manifest_of_it(place: Folders) -> None:
    """A list of the folder's files is what the run used."""
    sums = place.export("sha256sums", "SHA256SUMS")
    assert not place.diff(str(sums), "run:one")["different"]


def test_an_export_holds_the_folder(place: Folders) -> None:
    """Each format has the files below it alone, with its own digest, also after a later version."""
    expected = place.dt1("sub")
    place.fill({b"sub/x.csv": b"XX", b"part-0.csv": b"other"})
    place.seal()
    sums = place.export("sha256sums").read_text().splitlines()
    assert [line.split("  ")[1] for line in sums] == ["deep/y.csv", "x.csv"]
    document = json.loads(place.export("json").read_bytes())
    assert (document["digest"], document["dataset"], document["version"]) == (expected, "data/sub", 1)
    assert document["data_path"] == str(place.root / "sub")
    assert document["summary"]["total_files"] == 2
    place.fill({b"sub/x.csv": b"x"})
    bag = tree_of(place.export("bagit", "bag"))
    assert {path: bag[path] for path in bag if path.startswith("data/")} == {
        "data/deep/y.csv": b"y",
        "data/x.csv": b"x",
    }


def test_a_folder_is_looked_for_where_its_dataset_is_registered(place: Folders) -> None:
    """The files of NAME/SUB are at SUB below the root here; a name that leads out of it finds nothing."""
    assert root_here(place.settings, "data/sub", "/nowhere") == str(place.root / "sub")
    assert root_here(place.settings, "data/none", "/nowhere") is None
    assert root_here(place.settings, "data/../state", "/nowhere") is None
