"""Selection: gitignore syntax on bytes, exclude wins, no include means everything."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprod.core.pattern import Selection


@pytest.mark.parametrize(
    ("selection", "taken", "left"),
    [
        (Selection(), [b"a", b"d/e", b"\xff"], []),
        (Selection(include=("*.csv",)), [b"a.csv", b"d/e/f.csv"], [b"a.CSV", b"a.csv2", b"a"]),
        (Selection(include=("*.csv",), exclude=("bad*",)), [b"a.csv"], [b"bad.csv", b"d/bad.csv"]),
        (Selection(exclude=("/top",)), [b"d/top"], [b"top"]),
        (Selection(exclude=("a/**/z",)), [b"a/y"], [b"a/z", b"a/b/c/z"]),
        (Selection(exclude=("*.tmp", "!keep.tmp")), [b"keep.tmp"], [b"x.tmp"]),
        (Selection(ignore=(b"# note", b"", b"*.log")), [b"a"], [b"a.log", b"d/a.log"]),
        (Selection(ignore=(b"\xff*",)), [b"\xfe"], [b"\xff\x01"]),
        (Selection(exclude=("\u00e9",)), [b"e"], ["\u00e9".encode()]),
        (Selection(exclude=("?",)), ["\u00e9".encode()], [b"a", b"\xff"]),
        (Selection(only=b"one"), [b"one"], [b"two", b"d/one"]),
    ],
)
def test_files(selection: Selection, taken: list[bytes], left: list[bytes]) -> None:
    """Each row's paths are taken or left as git would."""
    assert [path for path in taken if not selection.takes_file(path)] == []
    assert [path for path in left if selection.takes_file(path)] == []


def test_directories() -> None:
    """An excluded directory is not entered; an include never keeps one out."""
    selection = Selection(include=("*.csv",), exclude=("skip/", "/top"))
    assert [selection.takes_directory(p) for p in (b"", b"d", b"skip", b"d/skip", b"top", b"d/top")] == [
        True, True, False, False, False, True,
    ]  # fmt: skip
    assert not Selection(only=b"one").takes_directory(b"d")


@given(st.binary(min_size=1, max_size=12))
def test_any_bytes_are_a_path(path: bytes) -> None:
    """No name can break the matching."""
    assert isinstance(Selection(include=("*.x",), exclude=("y*",)).takes_file(path), bool)


def test_agrees_with_git(tmp_path: Path) -> None:
    """A set of patterns says the same as git itself."""
    lines = ["*.o", "!keep.o", "/build/", "doc/*.txt", "**/cache", "a/**/b", "x[0-9].dat", "sp\\ ace", "trail "]
    paths = ["m.o", "keep.o", "d/m.o", "build/x", "d/build/x", "doc/a.txt", "doc/s/a.txt", "q/cache/z", "a/b",
             "a/c/d/b", "x1.dat", "xx.dat", "sp ace", "trail", "plain"]  # fmt: skip
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=20)
    (tmp_path / ".gitignore").write_text("\n".join(lines) + "\n")
    out = subprocess.run(
        ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin"],
        input="\n".join(paths), capture_output=True, text=True, timeout=20,
    ).stdout  # fmt: skip
    selection = Selection(ignore=tuple(line.encode() for line in lines))

    def left(path: str) -> bool:
        folders = path.split("/")[:-1]
        inside = any(not selection.takes_directory("/".join(folders[: i + 1]).encode()) for i in range(len(folders)))
        return inside or not selection.takes_file(path.encode())

    assert {p for p in paths if left(p)} == set(out.splitlines())


def test_record_is_json() -> None:
    """What stands beside a digest can always be written."""
    import json

    for selection in (
        Selection(),
        Selection(include=("a",), exclude=("b",), ignore=(b"\xff", b"c\\xff"), only=b"\xfe", symlinks="skip"),
        Selection(ignore=(b"*.log", b"\xc3\xa9"), only=b"one"),
    ):
        record = json.loads(json.dumps(selection.record()))
        assert Selection.of_record(record) == selection
    assert Selection(ignore=(b"\xff",)).record()["ignore_file"] == ["\\xff"]


@pytest.mark.parametrize("bad", ["[z-a]", "a/[9-1]*"])
def test_what_is_no_pattern_is_a_value_error(bad: str) -> None:
    """A range that is none is said with its line, wherever it stands; no other exception gets out."""
    for selection in (
        Selection(include=("ok", bad)),
        Selection(exclude=(bad,)),
        Selection(ignore=(b"ok", bad.encode())),
    ):
        with pytest.raises(ValueError, match="is no gitignore pattern") as caught:
            selection.takes_file(b"x")
        assert repr(bad) in str(caught.value)


def test_posix_classes_mean_what_git_says() -> None:
    """pathspec would warn of them and match nothing."""
    selection = Selection(include=("[[:digit:]_]x", "[![:space:]]y"))
    assert [selection.takes_file(path) for path in (b"1x", b"_x", b"ax", b"ay", b" y")] == [
        True,
        True,
        False,
        True,
        False,
    ]
