"""Selection: gitignore syntax on bytes, exclude wins, no include means everything."""

import random
import subprocess
import time
from pathlib import Path

import pytest
from drawn import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from reprod.core.gitignore import compile_lines
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


def ignored_by_git(repository: Path, lines: list[bytes], paths: list[bytes]) -> set[bytes]:
    (repository / ".gitignore").write_bytes(b"\n".join(lines) + b"\n")
    out = subprocess.run(
        ["git", "-C", str(repository), "check-ignore", "--no-index", "--stdin", "-z"],
        input=b"\0".join(paths), capture_output=True, timeout=20,
    ).stdout  # fmt: skip
    return {path for path in out.split(b"\0") if path}


def left_out(lines: list[bytes], paths: list[bytes]) -> set[bytes]:
    """Of some paths those that a walk would not come to, or would not take."""
    selection = Selection(ignore=tuple(lines))

    def left(path: bytes) -> bool:
        folders = path.split(b"/")[:-1]
        inside = any(not selection.takes_directory(b"/".join(folders[: i + 1])) for i in range(len(folders)))
        return inside or not selection.takes_file(path)

    return {path for path in paths if left(path)}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=20)
    return tmp_path


def test_agrees_with_git(repository: Path) -> None:
    """A set of patterns says the same as git itself."""
    lines = [
        b"*.o",
        b"!keep.o",
        b"/build/",
        b"doc/*.txt",
        b"**/cache",
        b"a/**/b",
        b"x[0-9].dat",
        b"sp\\ ace",
        b"trail ",
    ]
    paths = [b"m.o", b"keep.o", b"d/m.o", b"build/x", b"d/build/x", b"doc/a.txt", b"doc/s/a.txt", b"q/cache/z", b"a/b",
             b"a/c/d/b", b"x1.dat", b"xx.dat", b"sp ace", b"trail", b"plain"]  # fmt: skip
    assert left_out(lines, paths) == ignored_by_git(repository, lines, paths)


#: Components of patterns, and names that some of them fit in more than one way.
PARTS = ["a", "b", "ab", "*", "**", "a*", "*b", "a*b", "*a*", "*a*b", "a**b", "?", "?*", "*?b", "[ab]", "[!a]*",
         "*[b-c]a", "\\*", "[^b]", "[]a]", "c", "*a*b*c", "*ab*a", "a?*b*", "*[!b]*b", "[*-9]", "a*a",
         "*aa*a", "ab*ba", "*ab*ab",
         "\xc3\xa0", "*\xa0"]  # fmt: skip
NAMES = ["a", "b", "c", "ab", "ba", "aab", "abab", "abc", "aabc", "*", "acb", "ca", "bca", "aba", "\xc3\xa0", "a\xa0"]


def test_single_patterns_agree_with_git(repository: Path) -> None:
    """Stars, ``**``, classes and bytes outside ASCII in any order, names with line feeds among them."""
    choose = random.Random(5)
    for _ in range(150):
        parts = choose.choices(PARTS, k=choose.choice([1, 1, 2, 3, 4]))
        pattern = (
            choose.choice(["", "", "/"]) + "/".join(parts) + ("" if parts[-1] == "**" else choose.choice(["", "/"]))
        )
        line = pattern.encode("latin-1")
        names = [*NAMES, "a\n", "a\nb"]
        found = {"/".join(choose.choices(names, k=choose.randint(1, 5))).encode("latin-1") for _ in range(60)}
        paths = sorted(found)
        assert left_out([line], paths) == ignored_by_git(repository, [line], paths), line


def test_what_a_library_for_it_gets_wrong(repository: Path) -> None:
    """A letter whose last byte looks like a blank, a class and a slash, line feeds, an escaped blank before a blank."""
    for line, path in (
        ("voil\u00e0".encode(), "voil\u00e0".encode()), (b"a[!x]b", b"a/b"), (b"a[+-9]b", b"a/b"), (b"foo", b"foo\n"),
        (b"x.csv", b"a\nb/x.csv"), (b"a\\  ", b"a "), (b"a\\\\ ", b"a\\"), (b"a/**/b", b"a/\n/b"), (b"*", b"\n"),
    ):  # fmt: skip
        git = ignored_by_git(repository, [line], [path])
        assert left_out([line], [path]) == git, (line, path)
        assert bool(git) is (path not in {b"a/b", b"foo\n"})


#: Of few components in which two letters meet stars at every depth, and of all there are.
_PARTS = st.one_of(
    st.lists(st.sampled_from(["a", "b", "**", "**", "*", "a*a"]), min_size=1, max_size=6),
    st.lists(st.sampled_from([*PARTS[:-2], "", "***", "[a", "*?*"]), min_size=1, max_size=6),
)
_NAMES = st.one_of(
    st.lists(st.sampled_from(["a", "b", "ab", "ba", "aa"]), min_size=1, max_size=8),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=8),
)
_patterns = st.builds(
    lambda negated, start, parts, end: negated + start + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    _PARTS,
    st.sampled_from(["", "", "/", " "]),
)
_paths = st.builds(lambda parts, end: "/".join(parts) + end, _NAMES, st.sampled_from(["", "", "/"]))


@settings(max_examples=examples(600), deadline=None)
@given(st.lists(_patterns, min_size=1, max_size=3), st.lists(_paths, min_size=1, max_size=20))
@example(["a/**/b/**/c", "!a/"], ["a/b/c/b/c", "a/b/c/b/c/x", "a/b/b/c/", "a/c/b", "a/ba/b/c", "a/b/bc/c"])
@example(["a/**/b", "!a/b/"], ["a/b/b", "a/b", "a/b/b/", "a/b/b/b"])
@example(["b", "!b/"], ["b/b", "b/", "b/b/"])
@example(["a/**/a/**/b", "!a/a/b/"], ["a/a/b/b", "a/a/b/b/a", "a/aa/a/b", "a/a/b/a/x"])
@example(["**/a/**/b"], ["a/a/b/b", "b/a/b/c/a", "a/b/a/"])
@example(["a/**/a/**/b"], ["a/a/b/a/x", "a/b", "a/aa/b", "a/x/a/b/a/a"])
@example(["//**/b", "***"], ["b", "b/", "a/b"])
@example(["!/", "/", "**/", "*/**", "/**"], ["a", "a/", "a/b"])
def test_nothing_is_matched_differently(lines: list[str], paths: list[str]) -> None:
    """Expressions that cannot backtrack match what pathspec's match that can, for lines in any order."""
    crossing = "[!", "[^", "[*-9]"  # pathspec lets a class match a slash, git does not
    try:
        theirs = GitIgnoreSpec.from_lines(lines)
    except ValueError:
        theirs = None
    try:
        ours = compile_lines(lines)
    except ValueError:
        assert theirs is None
        return
    assert theirs is not None
    if not any(part in line for line in lines for part in crossing):
        assert [ours.match(path) for path in paths] == [theirs.match_file(path) for path in paths]


@pytest.mark.parametrize(
    "pattern",
    ["**/*" + "a*" * 12 + "b", "*[!b]" * 40 + "*b", "*" + "?*" * 60 + "b", "**/a/" * 30 + "b", "a/**/" * 30 + "*a*/b",
     "**/*a*a/" * 20 + "b", "*a" * 2000 + "b"],
    ids=lambda pattern: pattern[:12],
)  # fmt: skip
def test_no_pattern_takes_long(pattern: str) -> None:
    """A hundred hostile names in less than a second, where half a second was not enough for one with three stars."""
    found = compile_lines([pattern])
    names = ["a" * 250, "a/" * 124 + "a", ("a" * 250 + "/") * 15 + "a" * 250]
    began = time.process_time()
    for _ in range(33):
        assert not any(found.match(name) for name in names)
    assert time.process_time() - began < 1


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


@pytest.mark.parametrize("bad", ["[z-a]", "a/[9-1]*", "!", "a\\"])
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
