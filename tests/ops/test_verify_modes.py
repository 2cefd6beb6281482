"""How deep a verification looks: what each mode reads, what it may say after that, and that the disk is read at all."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reprod.config import Config, DatasetConfig, EnvironmentConfig, MlflowConfig, ScanConfig, WatchConfig
from reprod.core.delta import compare
from reprod.errors import DamagedError, DatasetUnavailableError, NotFoundError
from reprod.fs.root import open_root
from reprod.ops import observe as observing
from reprod.ops.observe import Look
from reprod.ops.plan import Order
from reprod.ops.refresh import Settings, refresh
from reprod.ops.sample import Sample, drop_cached
from reprod.ops.verify import verify
from reprod.ops.version_claims import claims_of_version
from reprod.store import files, meta, registry


class Dataset:
    """STATE with one dataset, scanned as the daemon does."""

    def __init__(self, base: Path, algorithms: tuple[str, ...] = ("sha256",)) -> None:
        self.base, self.state, self.root = base, base / "state", base / "data"
        self.root.mkdir()
        self.records = files.open_registry(self.state).db
        self.config = DatasetConfig("data", str(self.root), algorithms=algorithms)
        self.db = files.open_dataset(self.state, self.records, "data", os.fsencode(self.root)).db

    def scan(self, **content: str) -> None:
        for path, text in content.items():
            (self.root / path.replace("__", "/")).parent.mkdir(exist_ok=True)
            (self.root / path.replace("__", "/")).write_text(text)
        version = refresh(self.db, self.config, Order(), Settings(str(self.state))).version
        self.records.write(lambda c: registry.sealed(c, "data", version))

    def verify(self, mode: Any = "full", *, ref: str = "data", path: str | None = None, **more: Any) -> dict[str, Any]:
        config = Config(
            MlflowConfig(), EnvironmentConfig(), WatchConfig(), ScanConfig(), (self.config,), (), None,
            self.base, self.state, self.base / "socket",
        )  # fmt: skip
        return verify(self.state, config, ref, path, mode, lambda: None, **more)

    def rewrite(self, name: str, text: str, *, keep_times: bool = False) -> None:
        """Write other bytes, and put the mtime back if asked."""
        path = self.root / name
        before = path.stat()
        path.write_text(text)
        if keep_times:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def forget_writing(self, name: str) -> None:
        """Have the index know the stat that the file has now, as if it had never been written."""
        st = (self.root / name).stat()
        values = (st.st_mtime_ns, st.st_ctime_ns, os.path.basename(name).encode())
        self.db.write(lambda c: c.execute("UPDATE file SET mtime_ns = ?, ctime_ns = ? WHERE name = ?", values))


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Dataset]:
    """Four files in one version."""
    found = Dataset(tmp_path)
    found.scan(a="alpha", b="beta", d__c="gamma", d__e="delta")
    yield found
    found.db.close()
    found.records.close()


def verdict(answer: dict[str, Any]) -> tuple[bool, bool, bool, bool]:
    return answer["valid"], answer["differs"], answer["complete"], answer["content_verified"]


@pytest.mark.parametrize(("mode", "read"), [("full", 4), ("uncached", 4), ("quick", 0), ("sampled", 4)])
def test_each_mode_of_untouched_files(data: Dataset, mode: str, read: int) -> None:
    """All are valid and complete; only those that read every byte say that the content is verified."""
    found = data.verify(mode, sample=Sample(100, 7))
    assert verdict(found) == (True, False, True, mode in {"full", "uncached"})
    assert (found["mode"], found["hashed_files"], found["checked_files"]) == (mode, read, 4)
    assert (found["digest_actual"] == found["digest_expected"]) == (mode in {"full", "uncached"})
    assert (found["sample"] is not None) == (mode == "sampled")


def test_quick_does_not_judge_what_was_written(data: Dataset) -> None:
    """Same size and another stamp: the content is unknown (incomplete), and a sample of 0 % reads just that."""
    data.rewrite("a", "ALPHA", keep_times=True)  # its ctime tells
    os.utime(data.root / "b")
    found = data.verify("quick")
    assert verdict(found) == (False, False, False, False)
    assert found["unread"] == ["a", "b"]
    found = data.verify("sampled", sample=Sample(0, 1))
    assert verdict(found) == (False, True, True, False)
    assert [(m["path"], m["reason"], m["silent"]) for m in found["mismatched"]] == [("a", "content", False)]
    assert found["hashed_files"] == 2


def test_quick_proves_what_the_stat_proves(data: Dataset) -> None:
    """Another size, a missing and a new file are differences without a byte read."""
    data.rewrite("a", "alpha and more")
    (data.root / "b").unlink()
    (data.root / "new").write_text("n")
    found = data.verify("quick")
    assert [
        (m["path"], m["reason"], m["expected_size"], m["actual_size"], m["actual"]) for m in found["mismatched"]
    ] == [("a", "size", 5, 14, None)]
    assert (found["missing"], found["extra"], found["moved"], found["hashed_files"]) == (["b"], ["new"], [], 0)


def test_quick_trusts_the_index_for_older_versions(data: Dataset) -> None:
    """An unchanged stamp means the content that the index has, also if an older version had another."""
    data.rewrite("a", "ALPHA")
    data.scan()
    assert data.verify("quick", ref="data@2")["valid"]
    found = data.verify("quick", ref="data@1")
    assert [(m["path"], m["reason"], m["silent"]) for m in found["mismatched"]] == [("a", "content", False)]
    assert found["hashed_files"] == 0


def test_silent_corruption_needs_reading(data: Dataset) -> None:
    """Other bytes behind the very stat that is known: only reading finds it, and then it has its name."""
    data.rewrite("a", "ALPHA", keep_times=True)
    data.forget_writing("a")
    assert data.verify("quick")["valid"]
    assert data.verify("sampled", sample=Sample(0, 1))["valid"]
    for mode in ("full", "uncached"):
        found = data.verify(mode)
        assert [(m["path"], m["silent"]) for m in found["mismatched"]] == [("a", True)]
    assert not data.verify("sampled", sample=Sample(100, 1))["valid"]


def test_the_same_seed_draws_the_same_files() -> None:
    """Test 32: independent of order and of other files; about as many as asked; the chance is the textbook's."""
    paths = [b"d%d/f%05d" % (i % 7, i) for i in range(20_000)]
    drawn = {path for path in paths if Sample(10, 7).takes(path)}
    assert drawn == {path for path in reversed(paths) if Sample(10, 7).takes(path)}
    assert 1800 < len(drawn) < 2200
    other = {path for path in paths if Sample(10, 8).takes(path)}
    assert 120 < len(drawn & other) < 280
    assert not any(Sample(0, 7).takes(path) for path in paths)
    assert all(Sample(100, 7).takes(path) for path in paths)
    assert len({Sample(1).seed for _ in range(5)}) > 1
    assert Sample(10, 7).document() == {
        "percent": 10, "seed": 7, "detection_probability": {"1": 0.1, "10": 0.651322, "100": 0.999973},
    }  # fmt: skip


def test_a_sample_reads_its_part_and_what_was_written(tmp_path: Path) -> None:
    """Test 32: 10 % with a seed reads the same files twice, and those with another stat in any case."""
    data = Dataset(tmp_path)
    data.scan(**{f"f{i:03d}": str(i) for i in range(300)})
    data.rewrite("f007", "8")
    data.rewrite("f123", "longer")
    seven = Sample(10, 7)
    expected = {p for p in (f"f{i:03d}" for i in range(300)) if seven.takes(p.encode())} - {"f123"} | {"f007"}
    for _ in range(2):
        found = data.verify("sampled", sample=seven)
        assert found["hashed_files"] == len(expected)
        assert [(m["path"], m["reason"]) for m in found["mismatched"]] == [("f007", "content"), ("f123", "size")]
    data.db.close()
    data.records.close()


def cached(path: Path) -> bool:
    """Whether the first page of a file is in the page cache; skips where the file system cannot say."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            pytest.skip("this file system does not tell what is cached")
        raise
    finally:
        os.close(fd)
    return True


def test_uncached_reads_the_disk(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is dropped from the page cache before it is read, also one that was not yet on the disk."""
    big = data.root / "big"
    big.write_bytes(os.urandom(1 << 20))
    data.scan()
    assert cached(big)
    fd = os.open(big, os.O_RDONLY)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    if cached(big):
        pytest.skip("this file system keeps its pages")
    big.read_bytes()
    seen: list[bool] = []

    def drop(folder: int, name: bytes) -> None:
        drop_cached(folder, name)
        seen.append(cached(Path(os.readlink(f"/proc/self/fd/{folder}")) / os.fsdecode(name)))

    monkeypatch.setattr("reprod.ops.verify.drop_cached", drop)
    assert data.verify("uncached")["valid"]
    assert seen == [False] * 5


def test_what_cannot_be_dropped_is_read_as_it_is(tmp_path: Path) -> None:
    """A file that is gone, and a link, are no errors here: the read will say what is the matter."""
    folder = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in (b"gone", b"link"):
        drop_cached(folder, name)
    os.close(folder)


def test_one_folder_alone(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that folder is walked; what is elsewhere is not looked at, changed or not."""
    data.rewrite("a", "ALPHA!")
    original, listed = os.scandir, []

    def note(fd: Any) -> Any:
        listed.append(os.readlink(f"/proc/self/fd/{fd}"))
        return original(fd)

    monkeypatch.setattr(os, "scandir", note)
    found = data.verify(path="d/")
    assert (found["valid"], found["checked_files"], found["digest_actual"]) == (True, 2, None)
    assert listed == [str(data.root / "d")]
    (data.root / "d/new").write_text("n")
    assert data.verify(path="d")["extra"] == ["d/new"]
    assert data.verify(path="d/c")["extra"] == []
    assert [m["path"] for m in data.verify(path="a")["mismatched"]] == ["a"]
    with pytest.raises(NotFoundError):
        data.verify(path="d/none")


def test_a_folder_that_is_gone_or_a_link(data: Dataset) -> None:
    """Asked for alone, all of it is missing; a link in its place is not followed."""
    (data.root / "d").rename(data.base / "elsewhere")
    assert data.verify(path="d")["missing"] == ["d/c", "d/e"]
    (data.root / "d").symlink_to(data.base / "elsewhere")
    found = data.verify(path="d")
    assert (found["missing"], found["hashed_files"]) == (["d/c", "d/e"], 0)


def test_further_algorithms_of_a_dataset(tmp_path: Path) -> None:
    """What a dataset's algorithms added is compared too."""
    data = Dataset(tmp_path, ("sha256", "md5"))
    data.scan(a="alpha", b="beta")
    found = data.verify()
    assert (found["valid"], found["algorithms"]) == (True, ["sha256", "md5"])
    row = data.db.read(lambda c: c.execute("SELECT more FROM file WHERE name = x'62'").fetchone())[0]
    data.db.write(lambda c: c.execute("UPDATE file SET more = ? WHERE name = x'61'", (row,)))
    assert [(m["path"], m["algorithm"]) for m in data.verify()["mismatched"]] == [("a", "md5")]
    data.db.close()
    data.records.close()


def test_a_dataset_that_was_moved(data: Dataset) -> None:
    """Old versions are compared with the files where they are now."""
    data.root.rename(data.base / "new place")
    data.db.write(lambda c: meta.write(c, root=os.fsencode(data.base / "new place")))
    assert data.verify(ref="data@1")["valid"]


def test_records_that_were_altered_are_damaged(data: Dataset) -> None:
    """Row and file changed to match each other: the sealed digest still tells (65)."""
    import hashlib

    data.rewrite("a", "ALPHA")
    time.sleep(0.03)
    value = hashlib.sha256(b"ALPHA").digest()
    data.db.write(lambda c: c.execute("UPDATE file SET sha256 = ? WHERE name = x'61'", (value,)))
    with pytest.raises(DamagedError) as caught:
        data.verify()
    assert "--chain" in caught.value.hint


@pytest.mark.parametrize(("mode", "path"), [("full", None), ("quick", None), ("full", "a"), ("full", "d")])
def test_altered_records_do_not_blame_the_files(data: Dataset, mode: Any, path: str | None) -> None:
    """Where the records alone were altered no file is called modified: 65, for one path too, and beside changes."""
    data.rewrite("a", "ALPHA!")
    if mode == "full" and path is None:
        data.rewrite("a", "alpha")
    elif path == "d":
        data.rewrite("d/c", "GAMMA!")
    data.db.write(lambda c: c.execute("UPDATE file SET sha256 = zeroblob(32) WHERE name = x'62'"))
    with pytest.raises(DamagedError, match=r"the records of data@1 give another digest") as caught:
        data.verify(mode, path=path)
    assert caught.value.exit_code == 65
    assert ("the files are what was sealed" in caught.value.message) == (mode == "full" and path is None)
    assert "--chain --full" in caught.value.hint


def test_a_record_that_was_taken_out_is_no_extra_file(data: Dataset) -> None:
    """The file is there as it was sealed; the version's rows are not."""
    data.db.write(lambda c: c.execute("DELETE FROM file WHERE name = x'61'"))
    with pytest.raises(DamagedError, match="the files are what was sealed"):
        data.verify()


@pytest.mark.parametrize("mode", ["full", "quick"])
def test_the_place_of_an_unmounted_disk_is_no_loss(data: Dataset, mode: Any) -> None:
    """Another file system at the root is 6, not thousands of missing files, unless a person said that it is right."""
    identity = data.db.read(meta.read).identity or b""
    seen = msgspec.json.decode(identity)
    other = msgspec.json.encode({**seen, "source": "/dev/other"})
    (data.root / "a").unlink()
    data.db.write(lambda c: meta.write(c, identity=other))
    with pytest.raises(DatasetUnavailableError, match=r"is on another file system .* /dev/other then") as caught:
        data.verify(mode)
    assert caught.value.exit_code == 6
    data.db.write(lambda c: meta.write(c, moving="ordered"))
    assert data.verify(mode)["missing"] == ["a"]
    # After a remount device, inode and mount id are others.
    again = msgspec.json.encode({**seen, "mount_id": 7, "device": 8, "inode": 9})
    data.db.write(lambda c: meta.write(c, identity=again, moving=None))
    assert data.verify(mode)["missing"] == ["a"]


def test_a_version_with_something_unknown_is_incomplete(data: Dataset) -> None:
    """What had no digest then proves nothing now, neither valid nor different."""
    data.db.write(lambda c: c.execute("UPDATE file SET sha256 = NULL, problem = 1 WHERE name = x'61'"))
    found = data.verify()
    assert verdict(found) == (False, False, False, False)
    assert (found["unknown"], found["extra"]) == (["a"], [])
    assert claims_of_version(data.db, 1).unknown == (b"a",)


def test_a_file_that_is_being_written(data: Dataset) -> None:
    """Bytes that never stand still are unstable: incomplete, not different."""
    stop, begun = threading.Event(), threading.Event()
    path = data.root / "d/c"

    def write() -> None:
        with open(path, "r+b", buffering=0) as file:
            while not stop.is_set():
                file.seek(0)
                file.write(b"gamma")
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(60)
    try:
        found = data.verify()
    finally:
        stop.set()
        writer.join()
    assert found["unreadable"] == [{"path": "d/c", "problem": "unstable"}]
    assert verdict(found) == (False, False, False, False)
    assert data.verify()["valid"]


def test_a_read_that_failed_once_is_tried_again(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is written while it is read is read once more, and found equal."""
    read, written = os.read, []

    def read_and_write(fd: int, size: int) -> bytes:
        found = read(fd, size)
        if found == b"alpha":
            written.append(fd)
            if len(written) == 1:
                data.rewrite("a", "alpha")
        return found

    monkeypatch.setattr(os, "read", read_and_write)
    found = data.verify()
    assert (found["valid"], found["hashed_files"]) == (True, 4)
    assert len(written) == 2


def test_observe_for_diff(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what has another fingerprint is read; everything is with read_all; both see the same."""
    from reprod.core.pattern import Selection

    os.utime(data.root / "a")
    read: list[bytes] = []
    original = Look._read

    def note(self: Look, sight: Any, *rest: Any) -> Any:
        read.append(sight.path)
        return original(self, sight, *rest)

    monkeypatch.setattr(observing.Look, "_read", note)
    with open_root(str(data.root)) as root:
        some = observing.observe(root, Selection(), data.db, checkpoint=lambda: None)
        assert read == [b"a"]
        every = observing.observe(root, Selection(), data.db, read_all=True, checkpoint=lambda: None)
    assert len(read) == 5
    assert not compare(some.contents, every.contents)


def test_progress_is_told(data: Dataset) -> None:
    """Files, bytes and totals, from the first file on."""
    told: list[dict[str, Any]] = []
    data.verify(progress=told.append)
    assert told[0]["phase"] == "verifying"
    assert (told[0]["total_files"], told[0]["total_bytes"]) == (4, 19)
    assert set(told[0]) >= {"files", "bytes"}
