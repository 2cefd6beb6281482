"""A manifest of any folder, with no dataset: against the published vectors and an independent full read."""

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprod.core.entry import Entry, Kind, Problem
from reprod.core.manifest import Header, document, document_chunks, sums
from reprod.errors import DatasetUnavailableError, StateError, UsageError
from reprod.ops.generate import generate

VECTORS = {
    "V1": ({}, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    "V2": ({b"a": b"hello\n"}, "e459fd5252c3ada0b5c18fc9008e490476fe21c7bd65d5268d45535be95d6267"),
    "V3": (
        {b"a/z": b"1", b"a-b/c": b"2", b"a/b/q": b"3", b"a.txt": b"4", b"a/b.txt": b"5"},
        "98a904d56b8e4d14bec28637747c68bd797d5d53240d72c13f855605c54e3759",
    ),
    "V4": (
        dict.fromkeys([b"new\nline", b"cr\rname", b"back\\slash", b"\xff\xfe", b"\xc3\xa9", b"e\xcc\x81"], b""),
        "da561e51dbfbf2dc6619e5a1213dcc9f239feb32a1adaa9b89f8eba55337b3b8",
    ),
    "V5": ({b"f": b""}, "1b5a5e00aa4662e17e8e8d1053130ee8ea6463b0ef55251531a7688ca4a954c3"),
}

names = st.binary(min_size=1, max_size=4).filter(lambda n: not set(n) & {0x2F, 0} and n not in {b".", b".."})
names |= st.sampled_from([b"a", b"a-b", b"a.b", b"a0", b"new\nline", b"cr\rx", b"back\\slash", b"\xff", b"#L x"])
trees = st.recursive(
    st.binary(max_size=3) | st.tuples(st.just("link"), st.binary(min_size=1, max_size=3).filter(lambda t: 0 not in t)),
    lambda inner: st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, in which nothing may be left, and a data folder beside it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "state"))
    yield tmp_path / "data"
    assert os.listdir(temporary) == []
    assert not (tmp_path / "state").exists()


def fill(root: Path | bytes, files: dict[bytes, bytes]) -> None:
    for path, data in files.items():
        target = os.path.join(os.fsencode(root), path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(data)


def plant(path: bytes, tree: Any) -> None:
    if isinstance(tree, dict):
        os.mkdir(path)
        for name, below in tree.items():
            plant(path + b"/" + name, below)
    elif isinstance(tree, tuple):
        os.symlink(tree[1], path)
    else:
        with open(path, "wb") as file:
            file.write(tree)


def made(path: Any, **options: Any) -> dict[str, Any]:
    with generate(path, **options) as found:
        return found.read(lambda entries: document(found.header, entries))


def paths(manifest: dict[str, Any]) -> list[str]:
    return [entry["relative_path"] for entry in manifest["files"]]


def assert_true(root: Path | bytes, manifest: dict[str, Any]) -> None:
    """The manifest is what an independent read of everything finds."""
    truth = oracle.scan(os.fsencode(root))
    assert manifest["digest"] == oracle.dt1(truth)
    assert manifest["complete"]
    files = {path: (size, digest.hex()) for path, (kind, size, digest) in truth.items() if kind == "file"}
    listed = {raw(e): (e["size_bytes"], e["hashes"]["sha256"]) for e in manifest["files"]}
    assert listed == files
    assert [raw(e) for e in manifest["files"]] == sorted(files)
    links = {path: digest.hex() for path, (kind, _, digest) in truth.items() if kind == "link"}
    assert {raw(e): e["target_sha256"] for e in manifest["symlinks"]} == links
    assert manifest["summary"]["total_files"] == len(files)
    assert manifest["summary"]["total_size_bytes"] == sum(size for size, _ in files.values())


def raw(entry: dict[str, Any]) -> bytes:
    import base64

    return base64.b64decode(entry["path_b64"]) if "path_b64" in entry else entry["relative_path"].encode()


class TestDigest:
    @pytest.mark.parametrize("vector", VECTORS)
    def test_vectors(self, place: Path, vector: str) -> None:
        """The published digests come out of real folders."""
        files, expected = VECTORS[vector]
        fill(place, files)
        if vector == "V5":
            (place / "e").mkdir()
            (place / "l").symlink_to("../v2/a")
        manifest = made(place)
        assert manifest["digest"] == f"dt1:{expected}"
        assert_true(place, manifest)

    @given(tree=st.dictionaries(names, trees, max_size=5))
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_tree(self, place: Path, tree: dict[bytes, Any]) -> None:
        """Whatever the names are, the manifest is what an independent read finds."""
        with tempfile.TemporaryDirectory(dir=place) as folder:
            root = os.fsencode(folder) + b"/root"
            plant(root, tree)
            assert_true(root, made(root))

    def test_renames_and_swaps_count(self, place: Path) -> None:
        """A new name or two contents that changed places are another digest; going back is the old one."""
        fill(place, {b"a.txt": b"1", b"b.txt": b"2"})
        first = made(place)["digest"]
        (place / "a.txt").rename(place / "a0.txt")
        renamed = made(place)["digest"]
        (place / "a0.txt").rename(place / "a.txt")
        assert made(place)["digest"] == first
        fill(place, {b"a.txt": b"2", b"b.txt": b"1"})
        assert len({first, renamed, made(place)["digest"]}) == 3

    def test_no_name_imitates_two(self, place: Path) -> None:
        """A name with a line break is not the two names that it looks like (a collision in other tools)."""
        fill(place, {b"one/a": b"x", b"one/b": b"x"})
        fill(place, {b"two/a:" + hashlib.sha256(b"x").hexdigest().encode() + b"\nb": b"x"})
        assert made(place / "one")["digest"] != made(place / "two")["digest"]

    def test_metadata_does_not_count(self, place: Path) -> None:
        """Times, modes, empty directories and hard links are no content."""
        fill(place, {b"a": b"1", b"d/b": b"1"})
        first = made(place)
        os.utime(place / "a", (1, 1))
        (place / "a").chmod(0o600)
        (place / "empty").mkdir()
        (place / "d/b").unlink()
        os.link(place / "a", place / "d/b")
        second = made(place)
        assert second["digest"] == first["digest"]
        assert second["files"][0]["permissions"] == "0600"
        assert second["files"][0]["modified_time"] == "1970-01-01T00:00:01.000000Z"

    def test_a_copy_has_the_digest(self, place: Path) -> None:
        """The same files at another place, by cp -r or tar, are the same set."""
        files, expected = VECTORS["V3"]
        fill(place / "one", files)
        subprocess.run(["cp", "-r", "one", "two"], cwd=place, check=True, timeout=20)
        (place / "three").mkdir()
        subprocess.run(["tar", "cf", "one.tar", "-C", "one", "."], cwd=place, check=True, timeout=20)
        subprocess.run(["tar", "xf", "one.tar", "-C", "three"], cwd=place, check=True, timeout=20)
        assert {made(place / name)["digest"] for name in ("one", "two", "three")} == {f"dt1:{expected}"}

    def test_order_is_that_of_the_sums(self, place: Path) -> None:
        """Files come in the order of their paths' bytes, and sha256sum accepts what is made of them."""
        fill(place / "root", VECTORS["V3"][0])
        with generate(place / "root") as found:
            text = found.read(lambda entries: b"".join(sums(entries)))
        (place / "SUMS").write_bytes(text)
        listed = [line.split(b"  ")[1] for line in text.splitlines()]
        in_order = subprocess.run(
            ["sort"], input=b"\n".join(listed), env={"LC_ALL": "C"}, capture_output=True, check=True, timeout=20
        )
        assert listed == in_order.stdout.split()
        command = ["sha256sum", "--check", "--strict", "--quiet", "../SUMS"]
        subprocess.run(command, cwd=place / "root", check=True, timeout=20)
        assert hashlib.sha256(text).hexdigest() == "24c71752de9b89dcdeca26377d36cb0a9496101aef418dd0866861160adf2ab9"


class TestWhatIsThere:
    def test_fields_of_a_file(self, place: Path) -> None:
        """Every field of the seed for a file, as the file system has it."""
        fill(place, {b"d/a.csv": b"x" * 1536})
        (place / "d/a.csv").chmod(0o4750)
        os.utime(place / "d/a.csv", ns=(0, 1_700_000_000_123_456_789))
        (entry,) = made(place)["files"]
        assert entry == {
            "path": f"{place}/d/a.csv",
            "relative_path": "d/a.csv",
            "size_bytes": 1536,
            "size_human": "1.50 KB",
            "modified_time": "2023-11-14T22:13:20.123456Z",
            "permissions": "4750",
            "hashes": {"sha256": hashlib.sha256(b"x" * 1536).hexdigest()},
        }

    def test_fields_of_the_set(self, place: Path) -> None:
        """What is said of the set as a whole, in the order in which it is written."""
        fill(place, {b"a.csv": b"1", b"b.tmp": b"2"})
        before = time.time()
        found = made(place, include=["*.csv"], exclude=["*.tmp"], metadata={"experiment": "x", "n": [1, None]})
        assert list(found) == [
            "manifest_version", "generated_at", "data_path", "hash_algorithms", "digest", "complete", "selection",
            "metadata", "throughput_bytes_per_second", "throughput_files_per_second", "files", "files_omitted",
            "symlinks", "special", "unreadable", "unstable", "summary",
        ]  # fmt: skip
        assert found["manifest_version"] == "1.0"
        assert found["data_path"] == str(place)
        assert found["selection"] == {
            "include": ["*.csv"], "exclude": ["*.tmp"], "ignore_file": [], "symlinks": "record"
        }  # fmt: skip
        assert found["metadata"] == {"experiment": "x", "n": [1, None]}
        assert list(found["summary"]) == [
            "total_files", "total_size_bytes", "total_size_human", "processing_time_seconds"
        ]  # fmt: skip
        assert 0 < found["summary"]["processing_time_seconds"] < 120
        assert found["throughput_files_per_second"] > 0
        from datetime import datetime

        assert abs(datetime.fromisoformat(found["generated_at"]).timestamp() - before) < 120

    @pytest.mark.parametrize("size", [0, 10, 70_000, 2_500_000], ids=str)
    def test_all_algorithms_at_once(self, place: Path, size: int) -> None:
        """Each digest is what hashlib says, sha256 among them even if nobody asked."""
        data = os.urandom(size)
        fill(place, {b"f": data})
        found = made(place, algorithms=["md5", "sha512", "sha1", "blake2b", "md5"])
        assert found["hash_algorithms"] == ["sha256", "md5", "sha512", "sha1", "blake2b"]
        hashes = found["files"][0]["hashes"]
        assert hashes == {name: hashlib.new(name, data).hexdigest() for name in found["hash_algorithms"]}
        assert made(place, algorithms=["md5", "sha256"])["hash_algorithms"] == ["md5", "sha256"]

    def test_blake3(self, place: Path) -> None:
        """With the package blake3 is one more, without it the error says how to get it."""
        try:
            import blake3
        except ImportError:
            with pytest.raises(UsageError) as caught:
                made(place, algorithms=["blake3"])
            assert "pip install blake3" in caught.value.hint
        else:
            fill(place, {b"f": b"abc"})
            assert (
                made(place, algorithms=["blake3"])["files"][0]["hashes"]["blake3"] == blake3.blake3(b"abc").hexdigest()
            )

    def test_a_single_file(self, place: Path) -> None:
        """A file is a set of that file: its path is its own, and what lies beside it is not looked at."""
        fill(place, {b"d/a.csv": b"1", b"d/other": b"2"})
        (place / "d/.reprodignore").write_text("*.csv")
        found = made(place / "d/a.csv", max_files=1)
        (entry,) = found["files"]
        assert (found["data_path"], entry["path"], entry["relative_path"]) == (
            str(place / "d/a.csv"), str(place / "d/a.csv"), "a.csv",
        )  # fmt: skip
        assert found["digest"] == oracle.dt1({b"a.csv": ("file", 1, hashlib.sha256(b"1").digest())})
        assert found["selection"]["only"] == "a.csv"

    def test_special_files_are_listed_and_never_opened(self, place: Path) -> None:
        """A FIFO and a socket are named, the manifest is whole, and nothing waits for a writer."""
        fill(place, {b"a": b"1"})
        os.mkfifo(place / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            # A socket's address is shorter than many a temporary path.
            here = os.open(place, os.O_RDONLY)
            listener.bind(f"/proc/self/fd/{here}/sock")
            os.close(here)
            if os.geteuid() == 0:
                os.mknod(place / "null", 0o20600, os.makedev(1, 3))
            began = time.monotonic()
            found = made(place)
        assert time.monotonic() - began < 60
        assert {e["relative_path"] for e in found["special"]} >= {"fifo", "sock"}
        assert (paths(found), found["complete"]) == (["a"], True)

    def test_symlinks_are_recorded_and_never_followed(self, place: Path) -> None:
        """Links to a file, a directory, nothing, themselves and outside are their targets' names, no more."""
        fill(place, {b"d/a": b"1"})
        targets = {"file": "d/a", "dir": "d", "broken": "nowhere", "loop": "loop", "outside": "../../..", "abs": "/etc"}
        for name, target in targets.items():
            (place / name).symlink_to(target)
        found = made(place)
        assert_true(place, found)
        assert {e["relative_path"]: e["target_sha256"] for e in found["symlinks"]} == {
            name: hashlib.sha256(target.encode()).hexdigest() for name, target in targets.items()
        }

    def test_two_spellings_are_two_files_and_one_warning(self, place: Path) -> None:
        """NFC and NFD of a name are two entries here, and the manifest warns of systems where they are one."""
        fill(place, {"\xe9/x".encode(): b"1", "e\u0301/y".encode(): b"2", "e\u0301/z".encode(): b"2", b"plain": b""})
        found = made(place)
        assert_true(place, found)
        assert found["warnings"] == ["'e\\u0301' and '\\xe9' are one name to systems that normalise Unicode"]

    def test_names_that_are_no_text(self, place: Path) -> None:
        """A root and a file whose names are not UTF-8 are shown, and their bytes are beside that."""
        root = os.fsencode(place) + b"/\xffroot"
        fill(root, {b"\xfe": b"1"})
        found = made(root)
        assert_true(root, found)
        assert found["data_path"] == f"{place}/\\xffroot"
        assert found["files"][0]["path"] == f"{place}/\\xffroot/\\xfe"
        assert found["data_path_b64"]


class TestSelection:
    FILES: ClassVar = {b"a.csv": b"1", b"d/b.csv": b"2", b"d/c.json": b"3", b"d/x.tmp": b"4", b"skip/e.csv": b"5"}

    def test_gitignore_syntax(self, place: Path) -> None:
        """Includes match at any depth, exclude wins, and what is excluded as a directory never comes back."""
        fill(place, self.FILES)
        found = made(place, include=["*.csv", "*.json"], exclude=["skip/", "/a.csv"])
        assert paths(found) == ["d/b.csv", "d/c.json"]

    def test_the_ignore_file_counts(self, place: Path) -> None:
        """A .reprodignore at the root leaves out what it names, is part of the set and of the selection."""
        fill(place, {**self.FILES, b".reprodignore": b"# comment\n*.tmp\nskip/\n", b"d/.reprodignore": b"*\n"})
        found = made(place)
        assert paths(found) == [".reprodignore", "a.csv", "d/.reprodignore", "d/b.csv", "d/c.json"]
        assert found["selection"]["ignore_file"] == ["# comment", "*.tmp", "skip/"]

    def test_the_selection_is_not_in_the_digest(self, place: Path) -> None:
        """Two ways to select the same files give the same digest, each with its own selection."""
        fill(place, self.FILES)
        one, two = made(place, include=["/d/"]), made(place, exclude=["/a.csv", "skip"])
        assert one["digest"] == two["digest"] == made(place, include=["d/*"])["digest"]
        assert one["selection"] != two["selection"]

    def test_nothing_selected_is_the_empty_set(self, place: Path) -> None:
        """A set without files has the digest of nothing."""
        fill(place, self.FILES)
        found = made(place, include=["*.nothing"])
        assert (found["digest"], found["files"]) == (f"dt1:{VECTORS['V1'][1]}", [])

    def test_a_single_pattern_need_not_be_in_a_list(self, place: Path) -> None:
        """A pattern given as it is means itself, never its letters."""
        fill(place, self.FILES)
        assert paths(made(place, include="*.json", exclude="*.tmp")) == ["d/c.json"]


class TestCut:
    FILES: ClassVar = {b"a-b/c": b"1", b"a.txt": b"2", b"a/b.txt": b"3", b"a/b/q": b"4", b"a/z": b"5", b"b": b"6"}

    @pytest.mark.parametrize("number", range(1, 6))
    def test_the_first_files_in_byte_order(self, place: Path, number: int) -> None:
        """The cut is where the order of the paths' bytes says, with no digest, and the manifest says so."""
        fill(place, self.FILES)
        found = made(place, max_files=number)
        assert paths(found) == [path.decode() for path in sorted(self.FILES)][:number]
        assert found["cut"] == {"max_files": number, "total_files": None}
        assert (found["digest"], found["complete"]) == (None, False)
        assert found["summary"]["total_files"] == number

    @pytest.mark.parametrize("number", [6, 7, 10**9])
    def test_no_more_files_than_asked_for_is_no_cut(self, place: Path, number: int) -> None:
        """A set that fits is whole: it has its digest, and what comes after the last file is in it."""
        fill(place, self.FILES)
        (place / "z").symlink_to("a")
        found = made(place, max_files=number)
        assert "cut" not in found
        assert_true(place, found)

    def test_only_selected_files_count(self, place: Path) -> None:
        """What is left out, links and special files take no place; links before the last file are kept."""
        fill(place, self.FILES)
        (place / "a/a-link").symlink_to("z")
        (place / "a/zz-link").symlink_to("z")
        os.mkfifo(place / "a-fifo")
        found = made(place, max_files=2, exclude=["*.txt", "a-b"])
        assert paths(found) == ["a/b/q", "a/z"]
        assert [e["relative_path"] for e in found["symlinks"]] == ["a/a-link"]

    def test_nothing_after_the_cut_is_read(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither files nor directories behind the cut are opened."""
        fill(place, {**self.FILES, b"later/x": b"7", b"later/y": b"8"})
        opened: list[object] = []
        real = os.open

        def watched(path: Any, *args: Any, **options: Any) -> int:
            opened.append(path)
            return real(path, *args, **options)

        monkeypatch.setattr(os, "open", watched)
        assert paths(made(place, max_files=1)) == ["a-b/c"]
        assert not {b"a", b"b", b"later", b"x", b"z", b"q"} & {os.fsencode(os.path.basename(p)) for p in opened if p}  # type: ignore[arg-type]

    @given(tree=st.dictionaries(names, trees, max_size=5), number=st.integers(1, 8))
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_cut(self, place: Path, tree: dict[bytes, Any], number: int) -> None:
        """Whatever the tree, the files are the first N of all, and the digest is there exactly if that is all."""
        with tempfile.TemporaryDirectory(dir=place) as folder:
            root = os.fsencode(folder) + b"/root"
            plant(root, tree)
            found = made(root, max_files=number)
            every = sorted(path for path, (kind, _, _) in oracle.scan(root).items() if kind == "file")
            assert [raw(e) for e in found["files"]] == every[:number]
            assert ("cut" in found, found["digest"] is None) == (len(every) > number,) * 2

    @pytest.mark.parametrize("bad", [0, -1, True, 1.5, "3"])
    def test_what_is_no_number_of_files(self, place: Path, bad: Any) -> None:
        """A limit that means nothing is said to be none."""
        with pytest.raises(UsageError, match="max_files"):
            made(place, max_files=bad)


class TestNeverAWrongDigest:
    def test_a_file_that_never_rests(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that changes under every read is unstable and not in the list; the set has no digest."""
        fill(place, {b"f": b"A" * (3 << 20), b"other": b"x"})
        real = os.readv

        def reading(fd: int, buffers: Any) -> int:
            got = real(fd, buffers)
            with open(place / "f", "ab") as file:
                file.write(b"more")
            return got

        monkeypatch.setattr(os, "readv", reading)
        with generate(place) as found:
            manifest = found.read(lambda entries: document(found.header, entries))
            assert found.problems == ((b"f", Problem.UNSTABLE),)
        assert [e["relative_path"] for e in manifest["unstable"]] == ["f"]
        assert (paths(manifest), manifest["digest"], manifest["complete"]) == (["other"], None, False)
        assert manifest["summary"]["total_files"] == 1

    def test_rewritten_behind_its_old_time(self, place: Path) -> None:
        """The same size and time with other bytes is another digest: everything is read, every time."""
        fill(place, {b"f": b"old"})
        before = made(place)
        status = os.stat(place / "f")
        fill(place, {b"f": b"new"})
        os.utime(place / "f", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert made(place)["digest"] != before["digest"]

    @pytest.mark.skipif(os.geteuid() != 0 and not hasattr(os, "seteuid"), reason="needs a user that may not read")
    def test_what_may_not_be_read_is_named(self, place: Path) -> None:
        """A file and a directory that this user may not read are listed, and there is no digest."""
        with barred(place.parent) as root:
            fill(root, {b"ok": b"1", b"secret": b"2", b"dark/x": b"3"})
            (root / "secret").chmod(0)
            (root / "dark").chmod(0)
            with as_nobody():
                manifest = made(root)
        assert manifest["unreadable"] == [
            {"relative_path": "secret"},
            {"relative_path": "dark", "kind": "directory"},
        ]
        assert (paths(manifest), manifest["digest"], manifest["complete"]) == (["ok"], None, False)

    def test_a_root_that_goes_meanwhile(self, place: Path) -> None:
        """A root that is replaced during the walk gives an error, never a mixture."""
        fill(place, {b"d%d/f" % i: b"1" for i in range(3)})
        moved = []

        def checkpoint() -> None:
            if not moved:
                moved.append(place.rename(place.with_name("moved")))
                place.mkdir()

        with pytest.raises(DatasetUnavailableError, match="replaced") as caught:
            made(place, checkpoint=checkpoint)
        assert "registered" not in caught.value.hint


class TestAlone:
    def test_an_exception_leaves_nothing(self, place: Path) -> None:
        """Ctrl-C in the walk, an error in the block: the temporary folder goes (the fixture looks)."""
        fill(place, {b"a": b"1"})

        def interrupted() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            made(place, checkpoint=interrupted)
        with pytest.raises(RuntimeError), generate(place):
            raise RuntimeError
        with generate(place) as found, pytest.raises(RuntimeError):
            found.read(failing)

    def test_its_own_folder_is_in_no_set(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the temporary folder lies in the data, it is left out, and the manifest does not speak of it."""
        fill(place, {b"a": b"1", b"tmp/b": b"2"})
        monkeypatch.setattr(tempfile, "tempdir", str(place / "tmp"))
        found = made(place)
        assert_true(place, found)
        assert found["selection"]["exclude"] == []
        assert paths(made(place, max_files=1)) == ["a"]

    def test_the_state_is_in_no_set(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The daemon's state inside the data is left out, as the daemon leaves it out; alone it is no set."""
        fill(place, {b"a": b"1", b".state/registry.sqlite": b"2"})
        monkeypatch.setenv("REPROD_STATE_DIR", str(place / ".state"))
        assert paths(made(place)) == paths(made(place, max_files=1)) == ["a"]
        with pytest.raises(UsageError, match="reprod's own state"):
            made(place / ".state")

    def test_no_place_for_it(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no temporary folder can be made, the error says which variable to set."""
        monkeypatch.setattr(tempfile, "tempdir", str(place / "nowhere"))
        with pytest.raises(StateError) as caught:
            made(place)
        assert "TMPDIR" in caught.value.hint

    def test_nobody_else_can_look(self, place: Path) -> None:
        """The temporary folder, which holds names and digests, is its owner's alone."""
        fill(place, {b"a": b"1"})
        with generate(place) as found:
            (folder,) = Path(tempfile.gettempdir()).iterdir()
            assert folder.stat().st_mode & 0o777 == 0o700
            assert found.files == 1


class TestRefused:
    @pytest.mark.parametrize(
        ("names", "hint"),
        [(["sha265"], "did you mean sha256?"), (["crc32"], "known: md5"), ("md6", "did you mean md5?"), ([1], "known")],
    )
    def test_unknown_algorithms(self, place: Path, names: Any, hint: str) -> None:
        """An unknown algorithm is named, with the nearest one or all."""
        with pytest.raises(UsageError, match="no hash algorithm") as caught:
            made(place, algorithms=names)
        assert hint in caught.value.hint

    @pytest.mark.parametrize("bad", [[""], ["\udcff"], [3]])
    def test_what_is_no_pattern(self, place: Path, bad: Any) -> None:
        """A pattern that is none is a usage error, for include and exclude."""
        for which in ("include", "exclude"):
            with pytest.raises(UsageError, match=which):
                made(place, **{which: bad})

    @pytest.mark.parametrize("bad", ["", "a\0b", b"\0"])
    def test_what_is_no_path(self, bad: Any) -> None:
        """Nothing, and a NUL, are no path."""
        with pytest.raises(UsageError, match="no path"):
            made(bad)

    def test_what_is_not_there(self, place: Path) -> None:
        """A missing path and a FIFO are unavailable, and the hint speaks of this call."""
        os.mkfifo(place / "fifo")
        for path in (place / "missing", place / "fifo"):
            with pytest.raises(DatasetUnavailableError) as caught:
                made(path)
            assert "generate again" in caught.value.hint


def test_any_kind_of_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, bytes, Path, relative, with a slash at its end and through a link are the same set."""
    fill(place, {b"a": b"1"})
    monkeypatch.chdir(place.parent)
    (place.parent / "via").symlink_to("data")
    found = [made(path) for path in (place, str(place), bytes(place), "data", b"data/", "./data/../data", "via")]
    assert len({manifest["digest"] for manifest in found}) == 1
    assert [manifest["data_path"] for manifest in found[:-1]] == [str(place)] * 6
    assert found[-1]["data_path"] == str(place.parent / "via")


def test_many_files_come_as_they_are_needed(place: Path) -> None:
    """The document is written in pieces, each a small part of the whole, and is what json reads back."""
    import json

    fill(place, {b"d%02d/f%03d" % (i % 20, i): b"%d" % i for i in range(1500)})
    with generate(place) as found:
        pieces = found.read(lambda entries: list(document_chunks(found.header, entries)))
        again = found.read(lambda entries: document(found.header, entries))
    assert max(map(len, pieces)) < sum(map(len, pieces)) / 8
    assert json.loads(b"".join(pieces)) == again
    assert_true(place, again)


def test_files_that_come_after_the_cut_was_found(place: Path) -> None:
    """A file that appears before the last one does not make the manifest longer than was asked."""
    fill(place, {b"b": b"1", b"c": b"2", b"d": b"3"})
    seen = iter(range(100))

    def checkpoint() -> None:
        if next(seen) == 1:  # the search is over, the walk begins
            fill(place, {b"a": b"new"})

    found = made(place, max_files=2, checkpoint=checkpoint)
    assert paths(found) == ["a", "b"]


def test_the_header_names_no_directory_of_a_single_file() -> None:
    """The folder of a set is its path, and the folder of a single file the one that it lies in."""
    header = Header("/data/a.csv", 0, (), None, 0.0, selection={"only": "a.csv"})
    assert header.folder == "/data/"
    assert Header("/", 0, (), None, 0.0).folder == "/"


def failing(entries: Iterator[Entry]) -> None:
    assert next(entries).content.kind is Kind.FILE
    raise RuntimeError


class barred:  # noqa: N801 - used as a block
    """A folder that any user can reach, gone afterwards: pytest's own are closed to others."""

    def __init__(self, _: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="reprod-test-", dir="/tmp"))

    def __enter__(self) -> Path:
        self.path.chmod(0o755)
        return self.path

    def __exit__(self, *_: object) -> None:
        for folder in self.path.glob("*/"):
            folder.chmod(0o700)
        shutil.rmtree(self.path)


class as_nobody:  # noqa: N801 - used as a block
    """As a user who may not read everything, with a temporary folder that this user may write."""

    def __enter__(self) -> None:
        self._before: Callable[[], None] = lambda: None
        if os.geteuid() == 0:
            self._tempdir, tempfile.tempdir = tempfile.tempdir, "/tmp"
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if os.getuid() == 0:
            os.seteuid(0)
            tempfile.tempdir = self._tempdir
