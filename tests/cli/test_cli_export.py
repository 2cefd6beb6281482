"""``reprod export`` as a user meets it: what goes where, what is said, and which code comes back. No daemon runs."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from export_place import HOSTILE, ExportPlace
from scripted_daemon import Done

Run = Callable[..., Done]


@pytest.fixture
def place(home: Path) -> Iterator[ExportPlace]:
    here = ExportPlace(home)
    here.fill(HOSTILE).seal()
    yield here
    here.close()


def test_the_export_is_on_stdout_and_all_talk_on_stderr(place: ExportPlace, reprod_process: Run) -> None:
    """A name means the newest version, and which one that is is said; an exact one needs no word."""
    (place.root / "link").symlink_to("x")
    place.seal()
    done = reprod_process("export", "data", "--format", "croissant")
    exact = reprod_process("export", "data@2", "--format", "json", "--output", "-")

    assert done.code == exact.code == 0
    assert json.loads(done.out)["version"] == "2.0.0"
    assert done.err.startswith("exporting data@2, sealed ")
    assert "1 symlink left out: croissant lists regular files only" in done.err
    assert "license, creator, url and datePublished are not known here" in done.err
    assert json.loads(exact.out)["version"] == 2
    assert exact.err == ""


def test_a_file_and_the_report_of_it(place: ExportPlace, reprod: Run) -> None:
    """With --output, --json says what was written; without it there is no room for a report."""
    output = place.base / "SHA256SUMS"
    report = reprod("export", "data", "--format", "sha256sums", "--output", str(output), "--json").json

    assert report["schema"] == "reprod.export/1"
    assert report["sums_sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert (report["format"], report["output"], report["files"]) == ("sha256sums", str(output), len(HOSTILE))
    assert (report["name"], report["version"], report["complete"]) == ("data", 1, True)
    assert reprod("export", "data", "--format", "json", "--output", str(output)).out == ""
    done = reprod("export", "data", "--format", "json", "--json")
    assert (done.code, "--output PATH" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nope", "--format", "json"], 4, "no dataset named 'nope'"),
        (["data@7", "--format", "json"], 4, "there is no version 7"),
        (["run:abc", "--format", "json"], 4, "no run 'abc'"),
        (["./none.json", "--format", "json"], 2, "does not exist"),
        (["data", "--format", "xml"], 2, "invalid choice"),
        (["data"], 2, "--format"),
        (["data", "--format", "bagit"], 2, "a bag is a folder"),
        (["data", "--format", "bagit", "--output", "bag"], 2, "\\xff\\xfe.bin' is not UTF-8"),
        (["data", "--format", "json", "--output", "/none/x"], 2, "there is no folder /none"),
        (["data", "--format", "json", "--output", "/dev/full"], 77, "No space left"),
        (["data", "--format", "json", "--output", ""], 2, "--output '' is no path"),
        (["data", "--format", "json", "--link"], 2, "--link is for --format bagit"),
        (["data", "--format", "parquet", "--output", "x", "--data", "/elsewhere"], 2, "--data is for --format bagit"),
        (["data", "--format", "bagit", "--output", "x", "--data", ""], 2, "--data '' is no path"),
        (["./m.json", "--format", "json", "--dataset", "data"], 2, "is a manifest file"),
    ],
)
def test_a_refusal_is_one_line_a_hint_and_its_code(
    place: ExportPlace, reprod_process: Run, arguments: list[str], code: int, said: str
) -> None:
    """No dataset, no version, no run, no file, no such format, no place, no such bag, no space."""
    done = reprod_process("export", *arguments)

    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "bug" not in done.err


def test_an_incomplete_version_is_json_only_and_the_code_says_so(place: ExportPlace, reprod_process: Run) -> None:
    """5 either way: with the document that says what is missing, or without a file."""
    place.mark("UPDATE file SET problem = 2, sha256 = NULL WHERE name = CAST('plain.csv' AS BLOB)")
    place.mark(
        "UPDATE version SET digest = NULL, problems = 1, record = json_set(record, '$.digest', NULL, '$.problems', 1)"
    )
    shown = reprod_process("export", "data", "--format", "json")
    refused = reprod_process("export", "data", "--format", "sha256sums", "--output", str(place.base / "out"))

    assert (shown.code, json.loads(shown.out)["complete"]) == (5, False)
    assert "not complete: 'plain.csv' was unstable" in shown.err
    assert (refused.code, (place.base / "out").exists()) == (5, False)
    assert "hint: --format json" in refused.err


def test_what_is_said_of_a_cut_manifest_makes_sense_for_a_file(home: Path, reprod_process: Run) -> None:
    """It has no earlier versions; a manifest of the whole set is what is wanted."""
    (home / "cut.json").write_text(
        '{"manifest_version": "1.0", "files": [], "cut": {"max_files": 1, "total_files": null}, "digest": null}'
    )
    done = reprod_process("export", str(home / "cut.json"), "--format", "sha256sums")

    assert (done.code, done.out) == (5, "")
    assert "it lists only the first files" in done.err
    assert "export a manifest of the whole set" in done.err
    assert "reprod log" not in done.err


def test_an_altered_database_is_65_and_leaves_no_file(place: ExportPlace, reprod_process: Run) -> None:
    """What a digest does not stand for is never written out under it; on standard output no list is finished."""
    place.mark("UPDATE file SET sha256 = zeroblob(32) WHERE name = CAST('plain.csv' AS BLOB)")
    output = place.base / "out"
    done = reprod_process("export", "data", "--format", "json", "--output", str(output))
    shown = reprod_process("export", "data", "--format", "sha256sums")

    assert (done.code, output.exists()) == (65, False)
    assert (shown.code, shown.out) == (65, "")
    assert "the records of data@1 are not what its digest says" in done.err
    assert "reprod verify data --chain" in done.err
    assert not list(place.base.glob(".reprod-*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("form", ["sha256sums", "bagit"])
def test_an_export_that_is_stopped_leaves_nothing(home: Path, form: str, number: int, code: int) -> None:
    """A signal ends it quietly, in the middle of a file or of a bag, and what is half made is gone."""
    ref = str(home / "SHA256SUMS")
    if form == "bagit":
        place = ExportPlace(home)
        place.fill({b"folder/%06d" % i: b"x" for i in range(12_000)}).seal()
        place.close()
        ref = "data"
    else:  # a second of writing without a file
        Path(ref).write_bytes(b"".join(b"%b  file%06d\n" % (b"0" * 64, i) for i in range(200_000)))
    command = [sys.executable, "-m", "reprod", "export", ref, "--format", form, "--output", str(home / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ)
    deadline = time.monotonic() + 60
    while not list(home.glob(".reprod-*.tmp")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)

    assert process.returncode == code
    assert said.count(b"\n") <= 1  # which version it is
    assert not list(home.glob(".reprod-*"))
    assert not (home / "out").exists()


def test_nohup_is_heeded(home: Path) -> None:
    """A hangup that is ignored from the start does not end an export."""
    code = (
        "import os, signal\n"
        "from reprod.cli.output import ended_by_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with ended_by_signals():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_hostile_manifest_is_65(home: Path, reprod_process: Run) -> None:
    """Nothing of it is exported."""
    path = home / "evil.json"
    path.write_text('{"manifest_version": "1.0", "files": [{"relative_path": "/etc/passwd"}]}')
    done = reprod_process("export", str(path), "--format", "sha256sums")

    assert (done.code, done.out) == (65, "")


def test_a_reader_that_goes_away_ends_it_quietly(home: Path) -> None:
    """``| head -1`` is no failure worth words."""
    sums = home / "SHA256SUMS"
    sums.write_bytes(b"".join(b"%b  file%06d\n" % (b"0" * 64, i) for i in range(20_000)))
    command = [sys.executable, "-m", "reprod", "export", str(sums), "--format", "sha256sums"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        process.wait(30)

    assert line.endswith(b"file000000\n")
    assert said == b""
    assert process.returncode == 141


def test_parquet_without_pyarrow_is_one_line(home: Path, place: ExportPlace, reprod_process: Run) -> None:
    """An optional library that is missing is no bug."""
    (home / "hidden" / "pyarrow").mkdir(parents=True)
    (home / "hidden" / "pyarrow" / "__init__.py").write_text("raise ImportError('hidden')")
    done = reprod_process("export", "data", "--format", "parquet", PYTHONPATH=str(home / "hidden"))

    assert (done.code, done.out) == (2, "")
    assert "needs pyarrow" in done.err
    assert "pip install" in done.err
