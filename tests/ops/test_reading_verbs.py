"""verify, diff, log, references and the last known state: what they say of real files and real history."""

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import oracle
import pytest

from reprod.config import Config, DatasetConfig, EnvironmentConfig, MlflowConfig, ScanConfig, WatchConfig
from reprod.core import digest
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import DatasetUnavailableError, IncompleteError, NotFoundError, UsageError
from reprod.fs import read as reading
from reprod.ops import history, lastknown
from reprod.ops.diff import diff
from reprod.ops.plan import Order
from reprod.ops.reference import last_used, resolve
from reprod.ops.refresh import Settings, refresh
from reprod.ops.verify import verify
from reprod.store import files, outbox, registry, versions
from reprod.store.connection import Database


class Store:
    """STATE with one dataset or several, scanned as the daemon does."""

    def __init__(self, base: Path) -> None:
        self.base, self.state = base, base / "state"
        self.records = files.open_registry(self.state).db
        self.opened: dict[str, Database] = {}
        self.datasets: dict[str, DatasetConfig] = {}

    @property
    def config(self) -> Config:
        return Config(
            MlflowConfig(), EnvironmentConfig(), WatchConfig(), ScanConfig(), tuple(self.datasets.values()), (), None,
            self.base, self.state, self.base / "socket",
        )  # fmt: skip

    def add(self, name: str, **content: str) -> Path:
        root = self.base / name
        root.mkdir()
        self.datasets[name] = DatasetConfig(name, str(root))
        self.opened[name] = files.open_dataset(self.state, self.records, name, os.fsencode(root)).db
        for path, text in content.items():
            (root / path).write_text(text)
        self.scan(name)
        return root

    def scan(self, name: str = "data") -> versions.Version:
        report = refresh(self.opened[name], self.datasets[name], Order(), Settings(str(self.state)))
        version = report.version
        self.records.write(lambda c: registry.sealed(c, name, version))
        return version

    def run(self, run_id: str, *, name: str = "fast", **used: int | None) -> None:
        """A recorded run that used these versions."""
        bound = tuple(
            BoundDataset(n, "/", "start", "walk", seq, "dt1:00", 1, 1, 1, "00", ("sha256",), 0.1, "not provable")
            for n, seq in used.items()
        )
        snapshot = msgspec.json.encode(Snapshot(1, "host", bound, None, None, None))

        def write(c: files.Connection) -> None:
            outbox.notice(c, "u", run_id, "data", msgspec.json.encode({"name": name}), 1)
            number = c.execute("SELECT max(id) FROM delivery").fetchone()[0]
            if used:
                outbox.published(c, number, snapshot)

        self.records.write(write)

    def verify(self, ref: str = "data", path: str | None = None, mode: Any = "full") -> dict[str, Any]:
        return verify(self.state, self.config, ref, path, mode, lambda: None)

    def diff(self, a: str, b: str | None = None) -> dict[str, Any]:
        return diff(self.state, self.config, a, b)

    def close(self) -> None:
        for db in (*self.opened.values(), self.records):
            db.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One dataset of three files."""
    found = Store(tmp_path)
    found.add("data", a="alpha", b="beta", c="gamma")
    yield found
    found.close()


def flip(path: Path) -> None:
    """Change one byte and put the mtime back."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_untouched_is_valid(store: Store) -> None:
    """All equal: valid, complete, every byte read, the same digest from the disk."""
    found = store.verify()
    assert (found["valid"], found["differs"], found["complete"], found["content_verified"]) == (True, False, True, True)
    assert found["digest_actual"] == found["digest_expected"] == oracle.dt1(oracle.scan(bytes(store.base / "data")))
    assert found["bytes_hashed"] == 14
    assert store.verify(mode="quick")["content_verified"] is False


def test_a_flipped_byte_behind_an_old_mtime_is_named(store: Store) -> None:
    """The mtime says nothing happened; the bytes say otherwise. Its ctime moved, so it is a modification."""
    flip(store.base / "data/b")
    time.sleep(0.03)
    found = store.verify()
    assert found["differs"]
    assert [(m["path"], m["reason"], m["silent"]) for m in found["mismatched"]] == [("b", "content", False)]


def test_silent_corruption_is_told_from_modification(store: Store) -> None:
    """Other bytes under the very fingerprint that the index has: nobody wrote, the disk lies."""
    path = store.base / "data/b"
    flip(path)
    time.sleep(0.03)
    status = path.stat()
    store.opened["data"].write(  # as if the stat had never moved
        lambda c: c.execute("UPDATE file SET ctime_ns = ? WHERE name = x'62'", (status.st_ctime_ns,))
    )
    found = store.verify()
    assert [(m["path"], m["silent"]) for m in found["mismatched"]] == [("b", True)]
    assert store.verify(mode="quick")["valid"]  # which is why quick says that content was not read


def test_missing_extra_modified_moved(store: Store) -> None:
    """Each by its name, and one path alone can be asked for."""
    root = store.base / "data"
    (root / "a").write_text("other size")
    (root / "b").rename(root / "moved")
    (root / "c").unlink()
    (root / "new").write_text("new")
    found = store.verify()
    assert sorted(found["missing"]) == ["b", "c"]
    assert sorted(found["extra"]) == ["moved", "new"]
    assert [(m["path"], m["reason"]) for m in found["mismatched"]] == [("a", "size")]
    assert [(m["from"], m["to"]) for m in found["moved"]] == [("b", "moved")]
    assert store.verify(path="a")["missing"] == []
    with pytest.raises(NotFoundError):
        store.verify(path="nothing")


def test_an_older_version_is_what_it_was(store: Store) -> None:
    """NAME@1 against the disk of today names what changed since; a version that is not there is an error."""
    (store.base / "data/a").write_text("second")
    store.scan()
    assert store.verify("data")["valid"]
    assert [m["path"] for m in store.verify("data@1")["mismatched"]] == ["a"]
    with pytest.raises(NotFoundError):
        store.verify("data@9")
    store.opened["data"].write(lambda c: c.execute("UPDATE version SET pruned = 1 WHERE seq = 1"))
    with pytest.raises(IncompleteError):
        store.verify("data@1")
    for pair in (("data@1", "data@2"), ("data@2", "data@1")):
        with pytest.raises(IncompleteError):
            store.diff(*pair)


def test_unreadable_is_incomplete_not_different(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read is not called changed."""
    original = reading._open

    def refuse(directory: int, name: bytes) -> int:
        if name == b"b":
            raise OSError(5, "Input/output error")
        return original(directory, name)

    monkeypatch.setattr(reading, "_open", refuse)
    found = store.verify()
    assert (found["differs"], found["complete"], found["valid"]) == (False, False, False)
    assert [u["path"] for u in found["unreadable"]] == ["b"]


def test_a_missing_root_is_unavailable(store: Store) -> None:
    """Not "everything is missing"."""
    (store.base / "data").rename(store.base / "away")
    with pytest.raises(DatasetUnavailableError):
        store.verify()
    with pytest.raises(DatasetUnavailableError):
        store.diff("data")


def test_diff_of_versions_and_of_now(store: Store) -> None:
    """Between two versions from history; from the last used to the disk; backwards is the mirror image."""
    root = store.base / "data"
    (root / "a").write_text("changed!")
    (root / "b").rename(root / "b2")
    (root / "n").write_text("n")
    (root / "c").unlink()
    store.scan()
    found = store.diff("data@1", "data@2")
    assert [c["path"] for c in found["added"]] == ["n"]
    assert [c["path"] for c in found["removed"]] == ["c"]
    assert [(c["path"], c["size_a"], c["size_b"]) for c in found["modified"]] == [("a", 5, 8)]
    assert [(r["from"], r["to"]) for r in found["renamed"]] == [("b", "b2")]
    assert found["summary"]["bytes"] == 8 - 5 + 1 - 5
    back = store.diff("data@2", "data@1")
    assert [c["path"] for c in back["added"]] == ["c"]
    assert back["summary"]["bytes"] == -found["summary"]["bytes"]
    assert not store.diff("data")["different"]
    store.run("r1", data=1)
    assert store.diff("data")["a"]["version"] == 1
    assert store.diff("data")["different"]
    assert store.diff("data@2", "data")["different"] is False
    (root / "n").write_text("nn")
    assert [c["path"] for c in store.diff("data@2", "data")["modified"]] == ["n"]


def bar(monkeypatch: pytest.MonkeyPatch, *folders: bytes) -> None:
    """Make directories unlistable, by the name in their parent."""
    original = os.open

    def barred(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if path in folders and flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return original(path, flags, *args, **named)

    monkeypatch.setattr(os, "open", barred)


def test_diff_does_not_call_unlistable_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is below a directory that cannot be listed now is not gone: the directory is not known."""
    root = store.base / "data"
    (root / "d/deep").mkdir(parents=True)
    (root / "d/x").write_text("x")
    store.scan()
    (root / "a").write_text("another")
    bar(monkeypatch, b"d")
    found = store.diff("data@2", "data")
    assert (found["removed"], [m["path"] for m in found["modified"]]) == ([], ["a"])
    assert found["unknown"] == [{"path": "d/", "side": "b"}]
    assert (found["a"]["complete"], found["b"]["complete"]) == (True, False)
    assert store.diff("data", "data@2")["unknown"] == [{"path": "d/", "side": "a"}]


@pytest.fixture
def closed(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """@2: ``d`` with three files; @3: it could not be listed; @4: it could again, and two of its files had changed."""
    root = store.base / "data"
    (root / "d").mkdir()
    for name, text in {"d/same": "1", "d/other": "2", "d/gone": "3", "d-e": "4"}.items():
        (root / name).write_text(text)
    assert store.scan().problems == 0
    with monkeypatch.context() as patch:
        bar(patch, b"d")
        assert store.scan().problems == 1
    (root / "d/other").write_text("two")
    (root / "d/gone").unlink()
    (root / "d/new").write_text("new")
    assert (store.scan().seq, store.scan().problems) == (4, 0)
    return store


def test_a_version_claims_nothing_of_a_folder_that_it_could_not_list(closed: Store) -> None:
    """Neither while the folder is closed nor when it is open again: what the index has of then is only remembered."""
    found = closed.verify("data@3")
    assert (found["differs"], found["complete"], found["valid"]) == (False, False, False)
    assert (found["missing"], found["mismatched"], found["extra"], found["unknown"]) == ([], [], [], ["d/"])
    assert (found["checked_files"], found["hashed_files"], found["digest_actual"]) == (4, 4, None)
    (closed.base / "data/a").write_text("elsewhere")
    assert [m["path"] for m in closed.verify("data@3")["mismatched"]] == ["a"]
    for path in ("d", "d/", "d/same", "d/deep/er"):
        with pytest.raises(IncompleteError, match="is not known at that version: the folder 'd/' could not be listed"):
            closed.verify("data@3", path)
    assert closed.verify("data@3", "d-e")["valid"] is False  # as the whole version is not
    assert closed.verify("data@3", "d-e")["unknown"] == []
    with pytest.raises(NotFoundError):
        closed.verify("data@3", "nothing")


def test_a_version_keeps_what_it_listed_before_the_folder_was_closed(
    closed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the index says of the folder now: @2 and @4 claim all that they saw."""
    bar(monkeypatch, b"d")
    assert closed.scan().problems == 1
    monkeypatch.undo()
    assert closed.verify("data@4")["valid"]
    found = closed.verify("data@2")
    assert ([m["path"] for m in found["mismatched"]], found["missing"], found["extra"]) == (
        ["d/other"], ["d/gone"], ["d/new"],
    )  # fmt: skip
    assert closed.verify("data@5")["unknown"] == ["d/"]
    closed.opened["data"].write(lambda c: c.execute("UPDATE pending SET touched = 1"))  # a refresh is under way
    assert closed.verify("data@5")["unknown"] == ["d/"]


def test_diff_says_nothing_of_a_folder_that_one_version_could_not_list(closed: Store) -> None:
    """Not that it is equal, and not what was removed, added or modified in it: only who could not list it."""
    for a, b, side in (("data@2", "data@3", "b"), ("data@3", "data@4", "a"), ("data@4", "data@3", "b"),
                       ("data@3", "data", "a"), ("data", "data@3", "b"), ("data@3", "data@3", "both")):  # fmt: skip
        found = closed.diff(a, b)
        assert not found["different"], (a, b)
        assert found["unknown"] == [{"path": "d/", "side": side}], (a, b)
    (closed.base / "data/b").rename(closed.base / "data/renamed")
    closed.scan()
    found = closed.diff("data@3", "data@5")
    assert [(r["from"], r["to"]) for r in found["renamed"]] == [("b", "renamed")]
    assert found["summary"] == {"added": 0, "removed": 0, "modified": 0, "renamed": 1, "bytes": 0}
    found = closed.diff("data@2", "data@4")
    assert (found["unknown"], [c["path"] for c in found["removed"]]) == ([], ["d/gone"])


def test_a_manifest_file_is_not_held_against_a_folder_that_could_not_be_listed(closed: Store, tmp_path: Path) -> None:
    """The files below it are listed in the manifest and are not called removed."""
    sums = tmp_path / "SHA256SUMS"
    lines = [f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in
             {"a": "alpha", "b": "beta", "c": "gamma", "d-e": "4", "d/same": "1", "d/zzz": "z"}.items()]  # fmt: skip
    sums.write_text("".join(lines))
    found = closed.diff(str(sums), "data@3")
    assert (found["different"], found["unknown"]) == (False, [{"path": "d/", "side": "b"}])
    assert [c["path"] for c in closed.diff(str(sums), "data@4")["removed"]] == ["d/zzz"]


def test_folders_in_folders_and_odd_names(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of any bytes comes back from the record, and one folder inside another is told once."""
    root = bytes(store.base / "data")
    for folder in (b"n", b"n/\xff", b"n-"):
        os.mkdir(root + b"/" + folder)
        Path(os.fsdecode(root + b"/" + folder + b"/f")).write_text("f")
    store.scan()
    bar(monkeypatch, b"\xff")
    store.scan()
    bar(monkeypatch, b"n", b"\xff")
    (store.base / "data/a").write_text("anew")
    store.scan()
    assert store.verify("data@3")["unknown"] == ["n/\udcff/"]
    assert store.diff("data@2", "data@3")["unknown"] == [{"path": "n/\\xff/", "path_b64": "bi//Lw==", "side": "b"}]
    assert store.diff("data@2", "data@4")["unknown"] == [{"path": "n/", "side": "b"}]
    assert [(u["path"], u["side"]) for u in store.diff("data@3", "data@4")["unknown"]] == [
        ("n/", "b"), ("n/\\xff/", "a"),
    ]  # fmt: skip


def test_too_many_folders_for_a_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are known of the newest version while nothing changes; later nobody knows, and that is said."""
    monkeypatch.setattr(versions, "MAX_UNLISTED", 1)
    for name in ("d", "e"):
        (store.base / "data" / name).mkdir()
        (store.base / "data" / name / "f").write_text("f")
    store.scan()
    with monkeypatch.context() as patch:
        bar(patch, b"d", b"e")
        store.scan()
    assert store.verify("data@3")["unknown"] == ["d/", "e/"]
    assert [u["path"] for u in store.diff("data@2", "data@3")["unknown"]] == ["d/", "e/"]
    store.scan()
    for ask in (lambda: store.verify("data@3"), lambda: store.diff("data@2", "data@3"),
                lambda: store.diff("data@3", "data")):  # fmt: skip
        with pytest.raises(IncompleteError, match="which of its folders could not be listed is not known any more"):
            ask()
    assert store.verify("data@2")["valid"]


def test_references(store: Store) -> None:
    """NAME, NAME@N, run:ID by id, prefix and name; each wrong one is told what to do."""
    store.add("other", x="x")
    store.run("abcdef01", data=1)
    store.run("abcdff02", name="slow", data=1, other=1)
    store.run("fedc0003", name="waiting")
    store.run("fedd0004", name="unproven", data=None)
    assert resolve(store.state, "data@1").seq == 1
    assert resolve(store.state, "data").seq is None
    for text in ("run:abcdef01", "run:abcde", "run:fast"):
        found = resolve(store.state, text)
        assert (found.name, found.seq, found.run_id) == ("data", 1, "abcdef01")
    assert resolve(store.state, "run:slow", name="other").name == "other"
    last = last_used(store.state, "other")
    assert last is not None
    assert last.run_id == "abcdff02"
    for text, error in [
        ("data@x", UsageError), ("run:abcd", UsageError), ("run:slow", UsageError), ("run:none", NotFoundError),
        ("run:waiting", IncompleteError), ("run:unproven", IncompleteError),
    ]:  # fmt: skip
        with pytest.raises(error) as caught:
            resolve(store.state, text)
        assert caught.value.hint, text
    with pytest.raises(UsageError):
        store.diff("data@1", "other@1")
    with pytest.raises(NotFoundError):
        store.verify("nothing")
    assert store.verify("run:abcdef01")["run_id"] == "abcdef01"


def test_log_and_purge(store: Store) -> None:
    """Newest first, with what each changed and who used it; purged is gone for good."""
    (store.base / "data/a").write_text("2")
    store.scan()
    store.run("r1", data=1)
    found = history.log(store.state, "data")
    assert [(v["version"], v["added"], v["modified"], v["removed"], v["runs"]) for v in found] == [
        (2, 0, 1, 0, []), (1, 3, 0, 0, ["r1"]),
    ]  # fmt: skip
    assert [v["reason"] for v in found] == ["change", "first"]
    with pytest.raises(NotFoundError):
        history.log(store.state, "nothing")
    store.opened.pop("data").close()
    history.purge(store.state, "data", store.records)
    assert list((store.state / "datasets").iterdir()) == []
    with pytest.raises(NotFoundError):
        history.purge(store.state, "data", store.records)


def test_last_known_state(store: Store, tmp_path: Path) -> None:
    """Without a daemon: what the registry last heard, and nothing at all where none ever ran."""
    found = lastknown.read(store.state)
    assert (found["live"], [d["name"] for d in found["datasets"]]) == (False, ["data"])
    newest = store.opened["data"].read(versions.newest)
    assert newest is not None
    assert newest.digest is not None
    assert found["datasets"][0]["digest"] == digest.text(newest.digest)
    assert lastknown.read(tmp_path / "never")["datasets"] == []


def test_verify_uses_the_versions_own_selection(store: Store) -> None:
    """Hostile names in .reprodignore included: what it left out then is not extra now."""
    root = store.base / "data"
    with open(bytes(root) + b"/\xfftmp", "wb") as file:
        file.write(b"left out")
    (root / "drop.log").write_text("log")
    (root / ".reprodignore").write_bytes(b"\xff*\n*.log\n")
    version = store.scan()
    assert version.files == 4
    store.datasets["data"] = dataclasses.replace(store.datasets["data"], include=("*.none",))
    found = store.verify()
    assert found["extra"] == []
    assert found["valid"]
