"""A manifest against a folder: every kind of difference by its list, and what each is worth (tests 30 to 34)."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest

from reprod.core.claims import Claims
from reprod.core.manifest import document
from reprod.errors import DatasetUnavailableError, IncompleteError
from reprod.fs import read as reading
from reprod.ops.generate import generate
from reprod.ops.manifest_file import claims_of, read_claims
from reprod.ops.observe import Look
from reprod.ops.sample import Sample
from reprod.ops.verify import validate

LISTS = ("missing", "mismatched", "extra", "moved", "type_changes", "metadata_only", "unreadable", "unread", "unknown")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a few files, a link, an empty file and a folder."""
    folder = tmp_path / "data"
    (folder / "d").mkdir(parents=True)
    for name, text in {"a": "alpha", "b": "beta", "c": "gamma", "d/e": "delta", "empty": "", "d/f": "six!!"}.items():
        (folder / name).write_text(text)
    (folder / "link").symlink_to("a")
    (folder / "pipe").unlink(missing_ok=True)
    return folder


def make(root: Path, **arguments: Any) -> dict[str, Any]:
    with generate(root, **arguments) as found:
        return found.read(lambda entries: document(found.header, entries))


def lists(answer: dict[str, Any]) -> dict[str, Any]:
    """The lists that are not empty, each entry shortened to what names it."""

    def short(entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        keys = ("from", "to") if "from" in entry else ("path", "reason", "expected", "actual", "field", "problem")
        return tuple(entry[key] for key in keys if key in entry and len(str(entry[key])) < 40)

    return {key: [short(entry) for entry in answer[key]] for key in LISTS if answer[key]}


def verdict(answer: dict[str, Any]) -> tuple[bool, bool, bool, bool]:
    return answer["valid"], answer["differs"], answer["complete"], answer["content_verified"]


def test_unchanged(root: Path) -> None:
    """All equal: valid, every byte read, the digest recomputed from the disk; the seed's keys are there."""
    found = validate(claims_of(make(root)), str(root))
    assert verdict(found) == (True, False, True, True)
    assert lists(found) == {}
    assert found["digest_actual"] == found["digest_expected"] == oracle.dt1(oracle.scan(bytes(root)))
    assert found["checked_links"] == 1
    assert (found["checked_files"], found["hashed_files"], found["bytes_hashed"]) == (7, 6, 24)
    assert (found["missing_files"], found["hash_mismatches"]) == ([], [])


def grow(root: Path) -> None:
    (root / "a").write_text("alpha and more")


def other_bytes(root: Path) -> None:
    (root / "a").write_text("ALPHA")


def copy(root: Path) -> None:
    (root / "a2").write_text("alpha")


def swap_with_directory(root: Path) -> None:
    (root / "a").unlink()
    (root / "a").mkdir()
    (root / "a" / "inner").write_text("x")


def swap_with_link(root: Path) -> None:
    (root / "b").unlink()
    (root / "b").symlink_to("a")


def swap_link_with_file(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").write_text("alpha")


def swap_with_fifo(root: Path) -> None:
    (root / "b").unlink()
    os.mkfifo(root / "b")


def other_target(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("b")


def move_two_alike(root: Path) -> None:
    (root / "c").rename(root / "c2")
    (root / "c3").write_text("gamma")


TABLE: list[tuple[Callable[[Path], Any], dict[str, Any]]] = [
    (lambda root: (root / "b").unlink(), {"missing": ["b"]}),
    (lambda root: (root / "new").write_text("n"), {"extra": ["new"]}),
    (other_bytes, {"mismatched": [("a", "content")]}),
    (grow, {"mismatched": [("a", "size")]}),
    (lambda root: (root / "c").rename(root / "d/c9"), {"missing": ["c"], "extra": ["d/c9"], "moved": [("c", "d/c9")]}),
    (lambda root: (root / "empty").rename(root / "none"), {"missing": ["empty"], "extra": ["none"]}),
    (lambda root: (root / "link").rename(root / "l2"),
     {"missing": ["link"], "extra": ["l2"], "moved": [("link", "l2")]}),
    (move_two_alike, {"missing": ["c"], "extra": ["c2", "c3"]}),
    (copy, {"extra": ["a2"]}),
    (swap_with_directory,
     {"mismatched": [("a", "type", None)], "extra": ["a/inner"], "type_changes": [("a", "file", "directory")]}),
    (swap_with_link, {"mismatched": [("b", "type")], "type_changes": [("b", "file", "link")]}),
    (swap_link_with_file, {"mismatched": [("link", "type")], "type_changes": [("link", "link", "file")]}),
    (swap_with_fifo, {"mismatched": [("b", "type", None)], "type_changes": [("b", "file", "special")]}),
    (other_target, {"mismatched": [("link", "content")]}),
    (lambda root: (root / "d").rename(root / "d2"),
     {"missing": ["d/e", "d/f"], "extra": ["d2/e", "d2/f"], "moved": [("d/e", "d2/e"), ("d/f", "d2/f")]}),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), TABLE)
def test_each_difference_in_its_list(root: Path, change: Callable[[Path], Any], expected: dict[str, Any]) -> None:
    """Test 30: exactly these lists, not valid, complete, and the digest of what is there now."""
    claims = claims_of(make(root))
    change(root)
    found = validate(claims, str(root))
    assert lists(found) == expected
    assert verdict(found) == (False, True, True, True)
    assert found["digest_actual"] == oracle.dt1(oracle.scan(bytes(root)))
    assert found["missing_files"] == found["missing"]
    assert [(m["path"], m["algorithm"]) for m in found["hash_mismatches"]] == [
        (m["path"], "sha256") for m in found["mismatched"]
    ]


def test_a_size_that_is_not_the_hashes(root: Path) -> None:
    """A manifest that contradicts itself is not valid: the size counts, whatever the hash says."""
    made = make(root)
    made["files"][0]["size_bytes"] += 1
    made["summary"]["total_size_bytes"] += 1
    found = validate(claims_of(made), str(root))
    assert [(m["path"], m["reason"], m["expected_size"], m["actual_size"]) for m in found["mismatched"]] == [
        ("a", "size", 6, 5)
    ]


def test_metadata_is_reported_and_is_no_difference(root: Path) -> None:
    """chmod and touch: valid all the same, and each named with before and after."""
    os.utime(root / "a", ns=(0, 1_700_000_000_123_456_789))
    (root / "a").chmod(0o644)
    claims = claims_of(make(root))
    assert lists(validate(claims, str(root))) == {}  # 789 ns are not in the manifest
    (root / "a").chmod(0o600)
    os.utime(root / "b", ns=(0, 1_600_000_000_000_000_000))
    found = validate(claims, str(root))
    assert verdict(found) == (True, False, True, True)
    fields = {(m["path"], m["field"]): (m["expected"], m["actual"]) for m in found["metadata_only"]}
    assert fields["a", "permissions"] == ("0644", "0600")
    assert fields["b", "modified_time"][1] == "2020-09-13T12:26:40.000000Z"
    assert found["metadata_only_count"] == len(fields) == 2


def test_every_algorithm_must_agree(root: Path) -> None:
    """Test 34: one equal hash is not enough; unknown ones are passed over with a warning (39)."""
    good = make(root, algorithms=["md5", "sha256", "sha512", "blake2b", "sha1"])
    assert validate(claims_of(good), str(root))["valid"]
    for name in ("md5", "sha512", "blake2b", "sha1"):
        bad = make(root, algorithms=["md5", "sha256", "sha512", "blake2b", "sha1"])
        bad["files"][0]["hashes"][name] = bad["files"][1]["hashes"][name]
        found = validate(claims_of(bad), str(root))
        assert [(m["path"], m["reason"], m["algorithm"]) for m in found["mismatched"]] == [("a", "content", name)]
        assert not found["valid"]
    good["files"][0]["hashes"]["tiger"] = "00"
    found = validate(claims_of(good), str(root))
    assert found["valid"]
    assert found["manifest_warnings"] == ["hash algorithms that are not known here were passed over: 'tiger'"]


def seeds(root: Path, *algorithms: str) -> dict[str, Any]:
    """A document as the seed wrote it: no selection, no digest, no links; times without a zone."""
    files = []
    for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()):
        data = path.read_bytes()
        files.append({
            "path": str(path), "relative_path": str(path.relative_to(root)), "size_bytes": len(data),
            "size_human": "?", "modified_time": "2024-01-01T00:00:00",
            "hashes": {name: hashlib.new(name, data).hexdigest() for name in algorithms},
        })  # fmt: skip
    return {
        "manifest_version": "1.0", "generated_at": "2024-01-01T00:00:00", "data_path": str(root),
        "hash_algorithms": list(algorithms), "files": files,
        "summary": {"total_files": len(files), "total_size_bytes": sum(f["size_bytes"] for f in files)},
    }  # fmt: skip


def test_extra_files_of_a_manifest_that_records_no_selection(root: Path) -> None:
    """Reported, not held against it, nor read, unless asked. A moved file is still found; md5 is called weak."""
    claims = claims_of(seeds(root, "md5"))
    (root / "new").write_text("n")
    found = validate(claims, str(root))
    assert verdict(found) == (True, False, True, True)
    assert lists(found) == {"extra": ["link", "new"]}
    assert (found["weak"], found["extra_fails"], found["hashed_files"]) == (True, False, 6)
    assert not validate(claims, str(root), extra_fails=True)["valid"]
    (root / "c").rename(root / "c2")
    found = validate(claims, str(root))
    assert lists(found) == {"missing": ["c"], "extra": ["c2", "link", "new"], "moved": [("c", "c2")]}
    (root / "c2").rename(root / "c")
    (root / "a").write_text("ALPHA")
    found = validate(claims, str(root))
    assert [(m["algorithm"], m["actual"]) for m in found["mismatched"]] == [("md5", "002101f8725e5c78d9f30d87f3fa4c87")]


def test_the_recorded_selection_decides_what_is_extra(root: Path) -> None:
    """Files that were left out then are not extra now, and .reprodignore is the recorded one."""
    (root / ".reprodignore").write_text("*.log\n")
    (root / "x.log").write_text("log")
    (root / "x.tmp").write_text("tmp")
    claims = claims_of(make(root, exclude=["*.tmp"]))
    (root / "y.log").write_text("log")
    assert validate(claims, str(root))["valid"]
    (root / ".reprodignore").write_text("#nothing\n")
    found = validate(claims, str(root))
    assert lists(found)["mismatched"] == [(".reprodignore", "size")]
    assert "extra" not in lists(found)


def test_what_the_recorded_selection_hides_is_still_looked_at(root: Path) -> None:
    """A manifest may list what its own patterns leave out: such a file is compared, not called missing."""
    good = make(root)
    good["selection"]["exclude"] = ["a", "d/"]
    assert validate(claims_of(good), str(root))["valid"]
    (root / "d/e").write_text("DELTA")
    (root / "a").unlink()
    found = validate(claims_of(good), str(root))
    assert lists(found) == {"missing": ["a"], "mismatched": [("d/e", "content")]}


def test_a_cut_manifest(root: Path) -> None:
    """Only its own part is judged: what comes after the cut is not extra, what comes before it is."""
    claims = claims_of(make(root, max_files=3))
    found = validate(claims, str(root))
    assert found["valid"]
    assert found["manifest_warnings"] == ["the manifest lists only the first files of the set (max_files)"]
    (root / "aa").write_text("new")
    (root / "zz").write_text("new")
    found = validate(claims, str(root))
    assert lists(found) == {"extra": ["aa"]}
    assert not found["valid"]


def test_a_single_file(root: Path) -> None:
    """A manifest of one file against that file, and against its folder; its neighbours are none of its business."""
    claims = claims_of(make(root / "a"))
    assert validate(claims, str(root / "a"))["valid"]
    assert validate(claims, str(root))["valid"]
    assert lists(validate(claims, str(root / "b"))) == {"missing": ["a"], "extra": ["b"]}


def test_the_manifest_itself_is_not_extra(root: Path) -> None:
    """A list that lies among the files cannot list itself; the same name with other content elsewhere is extra."""
    import json

    (root / "data_manifest.json").write_text(json.dumps(make(root, exclude=["/data_manifest.json"])))
    made = json.loads((root / "data_manifest.json").read_text())
    made["selection"]["exclude"] = []
    (root / "data_manifest.json").write_text(json.dumps(made))
    found = validate(read_claims(root / "data_manifest.json"), str(root))
    assert verdict(found) == (True, False, True, True)
    (root / "copy.json").write_text(json.dumps(made))
    assert lists(validate(read_claims(root / "data_manifest.json"), str(root))) == {"extra": ["copy.json"]}


def test_unreadable_is_incomplete_never_valid(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test 33: everything else equal, one file that cannot be read; and one that is new and cannot be read."""
    claims = claims_of(make(root))
    (root / "new").write_text("x")
    original = reading._open

    def refuse(directory: int, name: bytes) -> int:
        if name in {b"b", b"new"}:
            raise OSError(5, "Input/output error")
        return original(directory, name)

    monkeypatch.setattr(reading, "_open", refuse)
    found = validate(claims, str(root))
    assert verdict(found) == (False, False, False, False)
    assert lists(found) == {"unreadable": [("b", "unreadable"), ("new", "unreadable")]}
    assert found["digest_actual"] is None


def test_a_folder_that_cannot_be_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed below it is unknown, not missing; its own name is said."""
    claims = claims_of(make(root))
    original = os.open

    def bar(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if path == b"d" and flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return original(path, flags, *args, **named)

    monkeypatch.setattr(os, "open", bar)
    found = validate(claims, str(root))
    assert lists(found) == {"unreadable": [("d", "unreadable")]}
    assert verdict(found) == (False, False, False, False)
    assert found["checked_files"] == 5


def test_vanished_while_it_was_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was listed and then gone: nobody knows what it held, so the result is incomplete."""
    claims = claims_of(make(root))
    original = Look._read

    def vanish(self: Look, sight: Any, *rest: Any) -> Any:
        (root / "b").unlink(missing_ok=True)
        return original(self, sight, *rest)

    monkeypatch.setattr(Look, "_read", vanish)
    found = validate(claims, str(root))
    assert ("b", "vanished") in lists(found)["unreadable"]
    assert verdict(found) == (False, False, False, False)


def test_what_was_not_known_when_it_was_recorded(root: Path) -> None:
    """A path that the manifest lists as unreadable proves nothing either way."""
    made = make(root)
    made["files"] = [f for f in made["files"] if f["relative_path"] not in {"b", "d/e"}]
    made["summary"] = {"total_files": 4, "total_size_bytes": 15}
    made |= {"digest": None, "complete": False, "unstable": [{"relative_path": "b"}],
             "unreadable": [{"relative_path": "d", "kind": "directory"}]}  # fmt: skip
    found = validate(claims_of(made), str(root))
    assert lists(found) == {"unknown": ["d/", "b"]}
    assert verdict(found) == (False, False, False, False)


def test_no_root_is_unavailable(root: Path, tmp_path: Path) -> None:
    """Not "everything is missing"."""
    with pytest.raises(DatasetUnavailableError):
        validate(claims_of(make(root)), str(tmp_path / "nothing"))


def test_a_digest_without_its_hashes_is_still_compared(root: Path) -> None:
    """With md5 listed and a dt1 above: the files must have that digest, even if every md5 is right."""
    made = make(root, algorithms=["md5"])
    for entry in made["files"]:
        entry["hashes"].pop("sha256")
    found = validate(claims_of(made), str(root))
    assert found["valid"]
    assert found["digest_actual"] == made["digest"]
    made["digest"] = "dt1:" + "0" * 64
    found = validate(claims_of(made), str(root))
    assert verdict(found) == (False, True, True, True)
    assert "the dataset digest differs" in found["manifest_warnings"][-1]


def test_blake3_only_needs_blake3(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed such a manifest cannot be verified (5), never passes; beside sha256 it is skipped."""
    monkeypatch.setattr("reprod.ops.verify.find_spec", lambda _: None)
    listed = seeds(root, "sha256")
    for entry in listed["files"]:
        entry["hashes"]["blake3"] = "00" * 32
    found = validate(claims_of(listed), str(root))
    assert found["valid"]
    assert "blake3 digests were not compared: it is not installed" in found["manifest_warnings"]
    for entry in listed["files"]:
        entry["hashes"].pop("sha256")
    with pytest.raises(IncompleteError):
        validate(claims_of(listed), str(root))


def test_hostile_names_on_the_disk(tmp_path: Path) -> None:
    """Names that are not UTF-8 and names with control characters come back as paths that open."""
    root = tmp_path / "data"
    root.mkdir()
    for name in (b"\xff\xfe", b"new\nline", b"back\\slash", b"\x1b[31m"):
        with open(bytes(root) + b"/" + name, "wb") as file:
            file.write(name)
    claims = claims_of(make(root))
    assert validate(claims, str(root))["valid"]
    os.unlink(bytes(root) + b"/\xff\xfe")
    found = validate(claims, str(root))
    assert found["missing"] == [os.fsdecode(b"\xff\xfe")]


def test_sums_of_coreutils(root: Path, tmp_path: Path) -> None:
    """The list of sha256sum itself verifies the folder; a changed size is found by content, since it says no sizes."""
    import subprocess

    names = ["a", "b", "c", "d/e", "empty"]
    (tmp_path / "SHA256SUMS").write_bytes(subprocess.run(["sha256sum", *names], cwd=root, capture_output=True).stdout)
    claims: Claims = read_claims(tmp_path / "SHA256SUMS")
    found = validate(claims, str(root))
    assert found["valid"]
    assert found["extra"] == ["d/f", "link"]
    (root / "a").write_text("longer than it was")
    found = validate(claims, str(root))
    assert [(m["path"], m["reason"]) for m in found["mismatched"]] == [("a", "content")]
    assert validate(claims, str(root), mode="quick")["valid"]


def test_quick_and_sampled_of_a_manifest(root: Path) -> None:
    """Test 31: same size and time: quick says valid and that nothing was read; other times are read in a sample."""
    claims = claims_of(make(root))
    before = (root / "a").stat()
    (root / "a").write_text("ALPHA")
    os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    found = validate(claims, str(root), mode="quick")
    assert verdict(found) == (True, False, True, False)
    assert (found["hashed_files"], found["bytes_hashed"], found["digest_actual"]) == (0, 0, None)
    assert not validate(claims, str(root))["valid"]
    os.utime(root / "a", ns=(0, 0))
    assert validate(claims, str(root), mode="quick")["metadata_only_count"] == 1
    found = validate(claims, str(root), mode="sampled", sample=Sample(0, 1))
    assert lists(found)["mismatched"] == [("a", "content")]
    assert found["hashed_files"] == 1
    (root / "b").write_text("other size")
    assert lists(validate(claims, str(root), mode="quick"))["mismatched"] == [("b", "size", None)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify", "data", ""], "the PATH is empty"),
        (["verify", "./m.json", ""], "the PATH is empty"),
        (["verify", "./m.json", "--chain"], "--chain is of a dataset, a manifest has none"),
        (["verify", "./m.json"], "where are the files that ./m.json lists?"),
        (["manifest", ".", "--validate", ""], "the path of the manifest is empty"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty path is not the current folder, and what does not go together is named before what is lacking (2)."""
    from reprod.cli.main import main

    monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "state"))
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
