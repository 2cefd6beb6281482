"""No name reaches a person's terminal unescaped, from wherever it comes, and no program gets another name than it is.

What may not come out is decided here by Unicode's own tables, not by the list that the product escapes.
"""

import base64
import copy
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from export_place import ExportPlace
from hypothesis import given
from hypothesis import strategies as st
from scripted_daemon import Done, ScriptedDaemon, dataset_row, status_answer
from terminal import written_to

from reprod.cli import render

Run = Callable[..., Done]

#: Clears the screen, sets the title, breaks the line, turns the direction, is C1, is not UTF-8, ends with a C1 byte.
EVIL = "e\x1b[2J\x1b]0;title\x07\r\n\t\x08v\u202e\u2066\u2069\u200f\x9b31mi\u2028\x7f\udcff\udc9bl"
NAMES = [
    b"\x1b[2J\x1b[31mred", b"new\nline", b"cr\rname", b"tab\tname", b"\x07bell", "rtl\u202egpj.exe".encode(),
    "iso\u2066late\u2069".encode(), "c1\x9b31m".encode(), "sep\u2028arated".encode(), b"\xff\xfe.bin", b"\x9b31m.raw",
    b"del\x7f", b"back\\slash", "caf\u00e9".encode(), b"\xed\xb3\xbf",
]  # fmt: skip


def acting(text: str) -> list[str]:
    """Return the characters of a text that a terminal acts on or that turn its direction; lines may end."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        character
        for character in text
        if character != "\n"
        and (
            unicodedata.category(character) in {"Cc", "Zl", "Zp", "Cs"}
            or unicodedata.bidirectional(character) in turning
            or character in "\u200e\u200f\u061c"
        )
    ]


def check(*texts: str) -> None:
    for text in texts:
        assert acting(text) == [], text


@given(st.text(st.characters(codec=None)))
def test_nothing_acting_passes(text: str) -> None:
    """Whatever a text holds, lone surrogates included, what is shown of it is one line that acts on nothing."""
    shown = render.safe(text)
    assert acting(shown) == []
    assert "\n" not in shown
    shown.encode()


@given(st.binary(min_size=1, max_size=40))
def test_any_bytes_come_back_from_json(name: bytes) -> None:
    """A name is in --json as itself or, where it is not UTF-8, with its bytes beside it; the output is ASCII."""
    text = render.to_json("x", {"path": name.decode("utf-8", "surrogateescape")})
    assert text.isascii()
    assert name_of(json.loads(text)) == name


def name_of(entry: dict[str, Any], key: str = "path") -> bytes:
    encoded = entry.get(f"{key}_b64")
    return base64.b64decode(encoded) if encoded is not None else str(entry[key]).encode()


# --- what a daemon may say -------------------------------------------------------------------------------------------

PROGRESS = {"phase": "hashing", "files": 3, "bytes": 10, "total_files": 9, "total_bytes": 30, "percent": 30.0,
            "seconds_left": 2.0}  # fmt: skip
PROBLEM = {"path": "x", "problem": "unreadable"}
STATUS = status_answer(
    dataset_row("one", progress=PROGRESS, watch_reason="limit", reason="why", hint="do", history={
        "versions": 3, "pruned": 1, "history_bytes": 1, "file_bytes": 2, "next_prune_at": "2026-11-24T05:00:00Z",
        "pruned_at": "2026-11-22T05:00:00Z"}),
    dataset_row("two", "incomplete", problems=[PROBLEM] * 6, problem_count=9),
    attention=[{"what": "two: something", "hint": "do"}],
    tracking={"uri": "http://h", "state": "unreachable", "last_poll_at": None, "error": "gone", "local": False},
)  # fmt: skip
SCANNED = {
    "name": "one", "version": 3, "digest": "dt1:" + "a" * 64, "complete": False, "changed": True, "files": 3,
    "bytes": 9, "added": 1, "modified": 1, "removed": 1, "hashed_files": 1, "hashed_bytes": 9, "seconds": 0.5,
    "problems": [PROBLEM] * 12, "problem_count": 20,
}  # fmt: skip
PRUNED = {
    "name": "one", "dry_run": False, "pruned": [1, 2], "kept": {"newest": 1, "run": 2}, "kept_versions": 3,
    "bytes": 9, "bytes_before": 10, "over_bytes": 1,
}  # fmt: skip
RELOADED = {
    "added": ["one"], "removed": ["two"], "changed": ["three"], "restart_needed": ["socket"], "nested": [],
    "misconfigured": [{"name": "four", "file": "/f", "message": "wrong", "hint": "do"}],
}  # fmt: skip
SNAPSHOT = {
    "name": "one", "version": 3, "digest": "dt1:" + "a" * 64, "complete": False, "files": 3, "bytes": 9,
    "assurance": "walk", "sealed_at": "2026-11-23T05:00:00Z", "run_id": "r", "delivery": "waiting",
}  # fmt: skip
RUN = {
    "run_id": "r", "name": "n", "experiment_id": "1", "datasets": ["one"], "state": "failed", "attempts": 3,
    "noticed_at": "2026-11-23T05:00:00Z", "settled_at": None, "next_try_at": None, "error": "no", "hint": "do",
}  # fmt: skip
FAILED = {"name": "one", "error": "away", "hint": "do", "exit_code": 6, "complete": False}
ANSWERS: list[tuple[list[str], str, dict[str, Any]]] = [
    (["status"], "status", STATUS),
    (["status", "two"], "status", STATUS),
    (["dataset", "list"], "status", STATUS),
    (["scan"], "scan", {"datasets": [SCANNED, FAILED]}),
    (["snapshot", "one", "--run", "r"], "snapshot", SNAPSHOT),
    (["prune"], "prune", {"datasets": [PRUNED]}),
    (["reload"], "reload", RELOADED),
    (["runs"], "runs", {"which": "all", "total": 9, "runs": [RUN]}),
    (["retry", "r"], "retry", {"run_id": "r", "name": "n", "state": "failed", "due": True, "what": "it is tried"}),
]


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where every value that holds no others is."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*at, key))
    else:
        yield at


def with_evil(value: dict[str, Any], *places: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(value)
    for *path, last in places:
        inner: Any = changed
        for key in path:
            inner = inner[key]
        inner[last] = EVIL
    return changed


@pytest.mark.parametrize(("argv", "method", "answer"), ANSWERS, ids=[" ".join(each[0]) for each in ANSWERS])
def test_whatever_a_daemon_says(
    daemon: ScriptedDaemon, reprod: Run, argv: list[str], method: str, answer: dict[str, Any]
) -> None:
    """Evil in every value of an answer, one by one and in all texts at once, also where a number should be."""
    places = list(leaves(answer))
    texts = [place for place in places if isinstance(value_at(answer, place), str)]
    for chosen in [texts, *([place] for place in places)]:
        daemon.says(method, **with_evil(answer, *chosen))
        done = reprod(*argv)
        check(done.out, done.err)
        assert "Traceback" not in done.err
    shown = reprod(*argv).out
    assert "\n" in shown


def value_at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


@pytest.mark.parametrize("argv", [each[0] for each in ANSWERS], ids=" ".join)
def test_whatever_a_daemon_refuses_with(daemon: ScriptedDaemon, reprod: Run, argv: list[str]) -> None:
    """Message and hint of an error are one line each, on standard error."""
    for method in ("status", "scan", "snapshot", "prune", "reload", "runs", "retry"):
        daemon.refuses(method, 5, EVIL, EVIL)
    done = reprod(*argv)
    check(done.out, done.err)
    assert len(done.err.splitlines()) == 2


# --- what lies on the disk -------------------------------------------------------------------------------------------


@pytest.fixture
def place(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExportPlace]:
    """Two versions of a dataset with evil names, in a folder with one, known to this account as ``data``."""
    base = home / "e\x1b[2J\u202e\nl"
    base.mkdir()
    here = ExportPlace(base)
    here.fill({b"same": b"", **{name: b"1" + name for name in NAMES}}).seal()
    os.rename(os.fsencode(here.root) + b"/" + NAMES[0], os.fsencode(here.root) + b"/moved" + NAMES[0])
    os.unlink(os.fsencode(here.root) + b"/" + NAMES[1])
    here.fill({b"new" + name: b"added %d" % i for i, name in enumerate(NAMES)})
    here.fill({name: b"22" + name for name in NAMES[2:]}).seal()
    monkeypatch.setenv("REPROD_STATE_DIR", str(here.state))
    (home / "etc" / "datasets.d" / "data.toml").write_text(f"path = {json.dumps(str(here.root))}\n")
    monkeypatch.chdir(home)
    yield here
    here.close()


def commands(place: ExportPlace, manifest: Path) -> list[list[str]]:
    evil = os.fsdecode(NAMES[0] + b"\xff")
    return [
        ["status"],
        ["dataset", "list"],
        ["log", "data"],
        ["diff", "data@1", "data@2"],
        ["diff", "data@1"],
        ["diff", str(manifest), "data"],
        ["verify", "data"],
        ["verify", "data", "--quick"],
        ["verify", "data", os.fsdecode(b"new" + NAMES[0])],
        ["verify", "data", "--chain"],
        ["verify", str(manifest), str(place.root)],
        ["manifest", str(place.root), "--validate", str(manifest)],
        ["manifest", str(place.root), "--output", str(place.root / evil)],
        ["export", "data", "--format", "json", "--output", str(place.base / evil)],
        ["export", "data@1", "--format", "croissant", "--output", str(place.base / f"c{evil}")],
        ["export", "data", "--format", "bagit", "--output", str(place.base / f"b{evil}")],
        ["prune", "--dry-run"],
    ]


@pytest.fixture
def manifest(home: Path, place: ExportPlace, reprod: Run) -> Path:
    """A manifest of the folder from which then a file went, one came and one changed."""
    file = home / "m.json"
    assert reprod("manifest", str(place.root), "--output", str(file)).code == 0
    root = os.fsencode(place.root)
    os.rename(root + b"/new" + NAMES[0], root + b"/gone" + NAMES[0])
    os.unlink(root + b"/new" + NAMES[5])
    place.fill({b"come" + name: b"more" for name in NAMES} | {b"new" + name: b"other" for name in NAMES[6:]})
    return file


def test_every_report_in_a_pipe(place: ExportPlace, manifest: Path, reprod: Run) -> None:
    """status, list, log, diff, verify, manifest, export and prune name what is there, escaped, one line each."""
    told = ""
    for argv in commands(place, manifest):
        done = reprod(*argv)
        assert done.code in {0, 1, 3, 5}, (argv, done.err)
        check(done.out, done.err)
        told += done.out + done.err
    for shown in ("\\x1b[2J", "new\\nline", "cr\\rname", "rtl\\u202egpj.exe", "\\xff\\xfe.bin", "\\x9b31m", "café"):
        assert shown in told


def test_every_report_on_a_terminal(place: ExportPlace, manifest: Path) -> None:
    """With colours and a progress line, nothing but those acts: what is left after taking them out is plain."""
    script = (
        "import json, sys\nfrom reprod.__main__ import main\n"
        "for argv in json.load(open(sys.argv[1])):\n    main(argv)\n    sys.stdout.flush()\n"
    )
    lines = place.base.parent / "argv.json"
    lines.write_text(json.dumps([*commands(place, manifest), ["manifest", str(place.root)]]))
    raw = written_to([], 100, command=[sys.executable, "-c", script, str(lines)], TERM="xterm")
    text = raw.replace("\r\n", "\n")
    plain = re.sub(r"\r?\x1b\[K|\x1b\[(?:0|1|2|3[1236])m|\r(?=\x1b)", "", text)
    check(plain)
    assert "Traceback" not in plain
    assert "new\\nline" in plain


def test_every_name_comes_back_from_json(place: ExportPlace, manifest: Path, reprod: Run) -> None:
    """manifest, diff and verify name every file so that a program finds it again, byte by byte; all is ASCII."""
    found = reprod("manifest", str(place.root), "--json")
    root = os.fsencode(place.root)
    assert {name_of(entry, "relative_path") for entry in relative(found.json["files"])} == set(os.listdir(root))

    done = reprod("diff", "data@1", "data@2", "--json")
    assert done.out.isascii()
    assert done.code == 1, done.err
    assert {name_of(entry) for entry in done.json["added"]} == {b"new" + name for name in NAMES}
    assert {name_of(entry) for entry in done.json["removed"]} == {NAMES[1]}
    assert {name_of(entry) for entry in done.json["modified"]} == set(NAMES[2:])
    assert [(name_of(e, "from"), name_of(e, "to")) for e in done.json["renamed"]] == [(NAMES[0], b"moved" + NAMES[0])]

    done = reprod("verify", str(manifest), str(place.root), "--json")
    assert done.out.isascii()
    mismatched = {name_of(entry) for entry in done.json["mismatched"]}
    assert mismatched == {b"new" + name for name in NAMES[6:]}
    assert names_in(done.json, "missing") == {b"new" + NAMES[0], b"new" + NAMES[5]}
    assert names_in(done.json, "extra") == {b"gone" + NAMES[0], *(b"come" + name for name in NAMES)}


def names_in(answer: dict[str, Any], key: str) -> set[bytes]:
    """Return the names of a plain list: those that are not UTF-8 are in another list, at the same places."""
    encoded = answer.get(f"{key}_b64") or [None] * len(answer[key])
    pairs = zip(answer[key], encoded, strict=True)
    return {str(shown).encode() if coded is None else base64.b64decode(coded) for shown, coded in pairs}


def relative(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the manifest's entries with their bytes under the key of the relative path."""
    return [{**entry, **({"relative_path_b64": entry["path_b64"]} if "path_b64" in entry else {})} for entry in entries]


ARGUMENT = EVIL.replace("\udcff\udc9b", "")
MISTAKES = [
    [ARGUMENT],
    ["status", ARGUMENT],
    ["log", ARGUMENT],
    ["diff", ARGUMENT],
    ["diff", f"{ARGUMENT}@1", f"run:{ARGUMENT}"],
    ["verify", ARGUMENT],
    ["verify", "data", EVIL],
    ["verify", f"./{EVIL}.json", "."],
    ["verify", "data", "--sample", EVIL],
    ["verify", "data", "--seed", EVIL],
    ["export", ARGUMENT, "--format", "json"],
    ["export", "data", "--format", EVIL],
    ["export", "data", "--format", "json", "--dataset", EVIL],
    ["manifest", EVIL],
    ["manifest", ".", "--algorithm", EVIL],
    ["manifest", ".", "--metadata", EVIL],
    ["manifest", ".", "--max-files", EVIL],
    ["manifest", ".", "--validate", EVIL],
    ["prune", ARGUMENT],
    ["snapshot", EVIL],
    ["scan", EVIL],
    ["dataset", EVIL],
    ["dataset", "add", EVIL, "."],
    ["dataset", "add", "x", EVIL],
    ["dataset", "remove", EVIL],
    ["dataset", "remove", ARGUMENT, "--purge"],
    ["dataset", "move", EVIL, "."],
    ["dataset", "move", "data", EVIL],
    ["dataset", "rename", "data", EVIL],
    ["--config", EVIL, "dataset", "list"],
]
#: argparse would write these as they are.
UNRECOGNIZED = [["status", "x", EVIL], ["status", f"--{EVIL}"]]
#: A name that is not UTF-8 cannot be asked of SQLite.
NOT_UTF8 = [
    ["log", "\udcff"],
    ["diff", "\udcff"],
    ["diff", "run:\udcff", "data"],
    ["verify", "\udcff"],
    ["export", "\udcff", "--format", "json"],
    ["prune", "\udcff"],
    ["dataset", "remove", "\udcff", "--purge"],
]


def named(argv: list[str]) -> str:
    return " ".join(each if each.isascii() and each.isprintable() else "EVIL" for each in argv)


@pytest.mark.parametrize("argv", [pytest.param(argv, id=named(argv)) for argv in [*MISTAKES, *UNRECOGNIZED, *NOT_UTF8]])
def test_a_name_that_is_no_argument_is_refused_without_obeying_it(
    place: ExportPlace, reprod: Run, capfd: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    """What a shell's ``*`` puts into the arguments: the error names it, escaped, with a documented code."""
    try:
        done = reprod(*argv)
    except SystemExit as left:  # argparse's own errors
        sys.stdout.flush()
        captured = capfd.readouterr()
        done = Done(int(str(left.code)), captured.out, captured.err)
    check(done.out, done.err)
    assert done.code in {2, 3, 4, 5, 6, 65, 78}, done.err
