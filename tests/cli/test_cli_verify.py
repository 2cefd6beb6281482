"""``reprod verify`` and ``reprod manifest --validate`` on real files: what a person reads, and the exit codes."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_daemon import Done
from terminal import seen_on

from reprod.config import DatasetConfig
from reprod.core.digest import text as digest_text
from reprod.core.run import PendingRun
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.fs import read as reading
from reprod.ops import history
from reprod.ops.plan import Order
from reprod.ops.refresh import Settings, refresh
from reprod.store import files, outbox, registry

Run = Callable[..., Done]


@pytest.fixture
def data(home: Path, reprod: Run) -> Path:
    """A folder of four files and its manifest beside it, m.json."""
    root = home / "data"
    (root / "d").mkdir(parents=True)
    for name, text in {"a": "alpha", "b": "beta", "d/c": "gamma", "d/e": "delta"}.items():
        (root / name).write_text(text)
    assert reprod("manifest", str(root), "--output", str(home / "m.json")).code == 0
    return root


def test_a_manifest_file_and_a_folder(home: Path, data: Path, reprod: Run) -> None:
    """FILE FOLDER, FILE --root FOLDER and manifest FOLDER --validate FILE are the same question."""
    file = str(home / "m.json")
    for argv in (["verify", file, str(data)], ["verify", file, "--root", str(data)],
                 ["manifest", str(data), "--validate", file]):  # fmt: skip
        done = reprod(*argv)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"● {data} is what was recorded (4 files, 19 B read, ")
        found = json.loads(reprod(*argv, "--json").out)
        assert (found["schema"], found["ref"], found["root"]) == ("reprod.verify/1", file, str(data))
        assert (found["valid"], found["mode"]) == (True, "full")


def test_the_working_directory_is_what_paths_are_relative_to(
    home: Path, data: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SHA256SUMS by its bare name, and a folder given as a dot."""
    monkeypatch.chdir(data)
    digest = hashlib.sha256(b"alpha").hexdigest()
    Path("SHA256SUMS").write_text(f"{digest}  a\n")
    done = reprod("verify", "SHA256SUMS", ".")
    assert done.code == 0
    assert "not recorded: b (nothing says that it should not be there)" in done.out
    assert "SHA256SUMS" not in done.out


def test_every_difference_has_its_word(home: Path, data: Path, reprod: Run) -> None:
    """1, and for each path what is the matter with it; the two digests below."""
    (data / "a").write_text("ALPHA")
    (data / "b").write_text("beta and more")
    (data / "d/c").rename(data / "d/moved\n")
    (data / "d/e").unlink()
    (data / "d/e").symlink_to("c")
    (data / "new").write_text("n")
    done = reprod("verify", str(home / "m.json"), str(data))
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith(f"✗ {data} does not match what was recorded (4 files, ")
    alpha = [hashlib.sha256(text).hexdigest()[:12] for text in (b"alpha", b"ALPHA")]
    for line in (
        f"  modified: a  other content  {alpha[0]} → {alpha[1]}",
        "  modified: b  other size  4 B → 13 B",
        "  modified: d/e  other kind of file  file → link",
        "  moved: d/c → d/moved\\n",
        "  not recorded: new",
    ):
        assert line in lines
    assert not any("missing" in line or "not recorded: d/" in line for line in lines)
    assert any(line.startswith("  recorded dt1:") for line in lines)
    assert any(line.startswith("  found    dt1:") for line in lines)


def test_how_deep_it_looked_is_said(home: Path, data: Path, reprod: Run) -> None:
    """--quick and --sample exit 0 when nothing differs, and never read as if all had been read."""
    file = str(home / "m.json")
    done = reprod("verify", file, str(data), "--quick")
    assert done.code == 0
    assert done.out.splitlines()[0].startswith(f"● {data}: nothing differs in what was checked (4 files, 0 B read, ")
    assert done.out.splitlines()[1] == "  content not read: sizes and times only"
    done = reprod("verify", file, str(data), "--sample", "50%", "--seed", "7")
    assert done.code == 0
    assert " of 4 files read: a random 50 % (seed 7) and every file with other times" in done.out
    assert (
        "chance of finding silent damage: 50 % if it is in 1, over 99.9 % if it is in 10, 100 % if it is in 100"
        in done.out
    )
    found = json.loads(reprod("verify", file, str(data), "--sample", "50", "--seed", "7", "--json").out)
    assert (found["sample"]["percent"], found["sample"]["seed"], found["content_verified"]) == (50, 7, False)
    done = reprod("verify", file, str(data), "--uncached")
    assert "is what was recorded (4 files, 19 B read" in done.out
    done = reprod("verify", file, str(data), "--sample", "0%")
    assert "  content of 0 of 4 files read: every file with other times" in done.out
    assert "chance" not in done.out
    (data / "a").chmod(0o600)
    done = reprod("verify", file, str(data))
    assert done.code == 0
    assert "  other times or permissions: 1 (the content is equal where it was read)" in done.out


def test_weak_and_warned(home: Path, data: Path, reprod: Run) -> None:
    """md5 alone is said to be weak; what was passed over is said too."""
    md5 = hashlib.new("md5", b"alpha", usedforsecurity=False).hexdigest()
    (home / "MD5SUMS").write_text(f"{md5}  a\n")
    done = reprod("verify", str(home / "MD5SUMS"), str(data))
    assert done.code == 0
    assert "only md5 or sha1: shows damage, not what somebody changed on purpose" in done.out
    made = json.loads((home / "m.json").read_text())
    made["files"][0]["hashes"]["tiger\x1b[31m"] = "0"
    (home / "m.json").write_text(json.dumps(made))
    done = reprod("verify", str(home / "m.json"), str(data))
    assert done.code == 0
    assert "hash algorithms that are not known here were passed over: 'tiger\\x1b[31m'" in done.out
    assert "\x1b" not in done.out


def test_what_cannot_be_read(home: Path, data: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 if nothing is proven different, 1 if something is: what differs counts more."""
    original = reading._open

    def refuse(directory: int, name: bytes) -> int:
        if name == b"b":
            raise PermissionError(13, "Permission denied")
        return original(directory, name)

    monkeypatch.setattr(reading, "_open", refuse)
    done = reprod("verify", str(home / "m.json"), str(data))
    assert done.code == 5
    assert "could not be verified as a whole" in done.out
    assert "  not readable: b  unreadable" in done.out
    (data / "a").unlink()
    assert reprod("verify", str(home / "m.json"), str(data)).code == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "it ends in the middle"),
        (b'{"manifest_version": "9.0", "files": []}', "made by a newer reprod"),
        (b'{"manifest_version": "1.0", "files": [{"relative_path": "../x"}]}', "size_bytes"),
        (b"no manifest at all\n", "line 1: 'no manifest at all' is not a digest"),
        (b"", "it is empty"),
    ],
)
def test_damaged_is_65(home: Path, data: Path, reprod: Run, content: bytes, says: str) -> None:
    """One line of what and where, one hint, nothing on standard output."""
    (home / "m.json").write_bytes(content)
    for argv in (
        ["verify", str(home / "m.json"), str(data)],
        ["manifest", str(data), "--validate", str(home / "m.json")],
    ):
        done = reprod(*argv)
        assert (done.code, done.out) == (65, "")
        assert says in done.err
        assert done.err.startswith("error: m.json: ")
        assert "\nhint: " in done.err


def test_wrong_use(home: Path, data: Path, reprod: Run, reprod_process: Run) -> None:
    """2 with a hint where a file or a folder is missing or too much; 6 where the folder is not there."""
    file = str(home / "m.json")
    for argv in (
        ["verify", file],
        ["verify", file, str(data), "--root", str(data)],
        ["verify", file, str(data), "--chain"],
        ["verify", file, str(data), "--dataset", "x"],
        ["verify", "x", "--chain", "--dataset", "y"],
        ["verify", "x", "--chain", "--seed", "1"],
        ["verify", file, str(data), "--seed", "1"],
        ["verify", str(home / "gone.json"), str(data)],
        ["verify", str(home), str(data)],
    ):
        done = reprod(*argv)
        assert (done.code, done.out) == (2, ""), argv
        assert "\nhint: " in done.err
    assert reprod("verify", file, str(home / "gone")).code == 6
    for argv in (
        ["--sample", "200%"],
        ["--sample", "-1%"],
        ["--sample", "-.5"],
        ["--sample", "x"],
        ["--sample", "1", "--quick"],
        ["--seed", "-1"],
        ["--seed", "1.5"],
    ):
        done = reprod_process("verify", file, str(data), *argv)
        assert (done.code, done.out) == (2, ""), argv
        if argv[0] == "--sample" and len(argv) == 2:
            assert f"argument --sample: '{argv[1]}' is no percentage from 0% to 100%" in done.err
    assert reprod("verify", "nothing").code == 4


@pytest.mark.parametrize("argv", [["young"], ["young@1", "--quick"], ["young", "a"], ["young", "--chain"]])
def test_a_dataset_that_waits_for_its_first_scan(home: Path, reprod: Run, argv: list[str]) -> None:
    """It is registered, so it is not unknown: 4 with what makes it known, as ``log`` says."""
    (home / "young").mkdir()
    (home / "etc/datasets.d/young.toml").write_text(f'path = "{home / "young"}"\n')
    done = reprod("verify", *argv)
    assert (done.code, done.out) == (4, "")
    assert done.err == "error: young is not scanned yet\nhint: start the daemon: reprod daemon\n"
    assert reprod("log", "young").err == done.err
    missing = reprod("verify", "old", *argv[1:])
    assert (missing.code, "not scanned yet" in missing.err) == (4, False)


@pytest.fixture
def closed(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset with a folder ``d`` that could not be listed in version 2, and could again in version 3."""
    root, state = home / "real", home / "state"
    (root / "d").mkdir(parents=True)
    for name in ("a", "d/x", "d/y"):
        (root / name).write_text(name)
    (home / "etc/datasets.d/real.toml").write_text(f'path = "{root}"\n')
    records = files.open_registry(state).db
    db = files.open_dataset(state, records, "real", os.fsencode(root)).db
    original = os.open

    def bar(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if path == b"d" and flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return original(path, flags, *args, **named)

    for number in (1, 2, 3):
        with monkeypatch.context() as patch:
            if number == 2:
                patch.setattr(os, "open", bar)
            version = refresh(db, DatasetConfig("real", str(root)), Order(), Settings(str(state))).version
            assert (version.seq, version.problems) == (number, int(number == 2))
            records.write(lambda c, version=version: registry.sealed(c, "real", version))  # type: ignore[misc]
    db.close()
    records.close()
    return root


def test_what_a_version_could_not_list_is_said(closed: Path, reprod: Run) -> None:
    """5, the folder's name, and never that something in it is equal, missing, new or removed."""
    (closed / "d/x").write_text("another")
    (closed / "d/y").unlink()
    done = reprod("verify", "real@2")
    assert done.code == 5
    assert "  not known when it was recorded: d/" in done.out.splitlines()
    assert not any(word in done.out for word in ("d/x", "d/y", "missing", "modified"))
    done = reprod("verify", "real@2", "d/x")
    assert (done.code, done.out) == (5, "")
    assert "'d/x' is not known at that version: the folder 'd/' could not be listed when real@2 was sealed" in done.err
    assert reprod("verify", "real@3").code == 1
    for pair in (("real@1", "real@2"), ("real@2", "real@3"), ("real@2", "real")):
        done = reprod("diff", *pair)
        assert done.code == 5
        assert done.out.splitlines()[1].endswith("no difference in what is known")
        assert done.out.splitlines()[2] == "  ?  d/  not known in real@2"
    (closed / "a").unlink()
    assert reprod("diff", "real@2", "real").code == 1
    assert reprod("verify", "real@2").code == 1


def test_many_differences_are_cut_on_the_screen_only(home: Path, data: Path, reprod: Run) -> None:
    """On a terminal fifty names of a kind, then how many more; a pipe and --json have them all."""
    for i in range(60):
        (data / f"new{i:02d}").write_text(str(i))
    command = ["verify", str(home / "m.json"), str(data)]
    assert reprod(*command).out.count("not recorded: new") == 60
    text = seen_on(command, 100).text
    assert text.count("not recorded: new") == 50
    assert "  not recorded: and 10 more (in a pipe or with --json all)\n" in text
    assert len(json.loads(reprod("verify", str(home / "m.json"), str(data), "--json").out)["extra"]) == 60


def test_names_that_are_not_utf8(home: Path, data: Path, reprod: Run) -> None:
    """Shown escaped, and in --json with their bytes beside them."""
    path = os.fsencode(data) + b"/\xff\xfe"
    with open(path, "wb") as file:
        file.write(b"x")
    done = reprod("verify", str(home / "m.json"), str(data))
    assert "  not recorded: \\xff\\xfe" in done.out
    found = json.loads(reprod("verify", str(home / "m.json"), str(data), "--json").out)
    assert (found["extra"], found["extra_b64"]) == (["\\xff\\xfe"], ["//4="])


def test_the_chain(home: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--chain asks for the records alone: 0 whole, 65 broken, with the version that is not what was sealed."""
    answers: list[dict[str, Any]] = [
        {"name": "x", "valid": True, "versions": 3, "broken": []},
        {"name": "x", "valid": False, "versions": 3, "broken": [{"version": 2, "reason": "its record was changed"}]},
        {"name": "x", "valid": True, "complete": False, "versions": 2, "broken": [], "contents_verified": True,
         "contents_checked": 1, "lost": [{"version": 1, "run_id": "r1"}, {"version": 2, "run_id": None}],
         "head": {"version": 3, "chain": "ab"}},
    ]  # fmt: skip
    asked: list[bool] = []

    def verify_chain(_state: Path, _ref: str, *, contents: bool, progress: Any) -> dict[str, Any]:
        asked.append(contents)
        return answers.pop(0)

    monkeypatch.setattr(history, "verify_chain", verify_chain)
    done = reprod("verify", "x", "--chain")
    assert (done.code, done.out) == (0, "● the chain of x is whole (3 versions)\n")
    done = reprod("verify", "x", "--chain")
    assert done.code == 65
    assert done.out.splitlines() == [
        "✗ the chain of x is broken (3 versions)",
        "  version 2: its record was changed",
    ]
    done = reprod("verify", "x", "--chain", "--full")
    assert done.code == 5
    assert done.out.splitlines() == [
        "▲ the chain of x has gaps (2 versions)",
        "  lost: version 1, which run r1 recorded",
        "  lost: version 2",
        "  1 digest computed again from the entries",
        "  head ab (version 3)",
    ]
    assert asked == [False, False, True]
    assert reprod("verify", "x", "--chain", "--quick").code == 2


def test_the_chain_of_a_run_is_that_of_the_dataset_that_is_named(home: Path, reprod: Run) -> None:
    """Of a run on two datasets --dataset picks whose chain is checked; without it 2, for a run that no state here knows
    4, and the hint says that a chain is of this host's history."""
    now = time.time_ns()
    opened = files.open_registry(home / "state")
    bound = []
    for name in ("images", "tables"):
        root = home / name
        root.mkdir()
        (root / "a").write_text(name)
        db = files.open_dataset(home / "state", opened.db, name, os.fsencode(root)).db
        order = Settings(str(home / "state"), 1)
        version = refresh(db, DatasetConfig(name, str(root)), Order(), order).version
        db.close()
        found = digest_text(version.digest or b"")
        bound.append(BoundDataset(name, str(root), "start", None, version.seq, found, 1, 6, now, None, (), 0.1))
    made = msgspec.json.encode(Snapshot(now, "h", tuple(bound), None, None, None))
    run = PendingRun("5" * 32, "7", "pair", "FINISHED", 1, 2, "images,tables")

    def fill(c: Any) -> None:
        outbox.notice(c, "http://server", run.run_id, "images,tables", msgspec.json.encode(run), now)
        outbox.published(c, 1, made)

    opened.db.write(fill)
    opened.db.close()
    done = reprod("verify", "run:pair", "--chain", "--dataset", "tables")
    assert (done.code, done.out.splitlines()[0]) == (0, "● the chain of tables is whole (1 version)")
    assert reprod("verify", "run:pair", "--chain", "--json", "--dataset", "images").json["name"] == "images"
    done = reprod("verify", "run:pair", "--chain")
    assert (done.code, "used several datasets: images, tables" in done.err) == (2, True)
    done = reprod("verify", "run:other", "--chain")
    assert (done.code, "a dataset's history on this host" in done.err) == (4, True)
