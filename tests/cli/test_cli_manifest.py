"""``reprod manifest`` as its users call it: what goes where, exit codes, and nothing left behind."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import oracle
import pytest
from scripted_daemon import Done
from terminal import Terminal

Run = Callable[..., Done]


@pytest.fixture
def data(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small folder, and the current folder is its parent."""
    root = home / "data"
    for name, content in {"a.csv": "1,2", "d/b.json": "{}", "d/c.tmp": "x", "d/e.csv": "3"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    monkeypatch.chdir(home)
    return root


def listed(text: str) -> list[str]:
    return [entry["relative_path"] for entry in json.loads(text)["files"]]


def digest(root: Path) -> str:
    return oracle.dt1(oracle.scan(os.fsencode(root)))


class TestWhere:
    def test_to_standard_output(self, reprod: Run, data: Path) -> None:
        """The document is all of standard output; what is said of it is on standard error."""
        for flags in ([], ["--output", "-"]):
            done = reprod("manifest", "data", *flags)
            assert (done.code, json.loads(done.out)["digest"]) == (0, digest(data))
            assert done.out.isascii()
            assert f"{digest(data)[:16]}  4 files, 7 B" in done.err
            assert "schema" not in json.loads(done.out)

    def test_into_a_file(self, reprod: Run, data: Path) -> None:
        """With --output the document is in the file, its summary on standard output, and nothing on standard error."""
        done = reprod("manifest", "data", "--output", "m.json", "--metadata", "experiment=x", "a=b=c")
        assert (done.code, done.err) == (0, "")
        assert str(data) in done.out
        assert "→ m.json" in done.out
        found = json.loads(Path("m.json").read_bytes())
        assert (found["digest"], found["metadata"]) == (digest(data), {"experiment": "x", "a": "b=c"})

    def test_json(self, reprod: Run, data: Path) -> None:
        """--json is one object of one schema: the document, or its head where the document is in a file."""
        whole = json.loads(reprod("manifest", "data", "--json").out)
        done = reprod("manifest", "data", "--json", "--output", "m.json")
        head = json.loads(done.out)
        assert next(iter(whole)) == next(iter(head)) == "schema"
        assert whole["schema"] == head["schema"] == "reprod.manifest/1"
        assert (len(whole["files"]), head["files"], head["files_omitted"]) == (4, [], True)
        assert (head["output"], head["summary"]["total_files"], done.err) == ("m.json", 4, "")
        assert "schema" not in json.loads(Path("m.json").read_bytes())

    def test_the_document_is_not_in_its_own_set(self, reprod: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Written into the folder that it describes it is left out, says so, and still validates, again and again."""
        monkeypatch.chdir(data)
        expected = digest(data)
        for name in ("m.json", "with space [1]*.json ", "m.json"):
            done = reprod("manifest", ".", "--output", name, "--exclude", "*.json*")
            assert f"{name} is the manifest itself" in done.out
        assert reprod("manifest", ".", "--output", "d/m.json", "--exclude", "/m.json", "/with*").code == 0
        found = json.loads((data / "d/m.json").read_bytes())
        assert found["selection"]["exclude"] == ["/m.json", "/with*", "/d/m.json"]
        assert found["digest"] == expected
        assert reprod("manifest", ".", "--validate", "d/m.json").code == 0

    def test_redirected_into_the_set(self, reprod_process: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The shell has made the file before the walk begins: it is left out too."""
        monkeypatch.chdir(data)
        expected = digest(data)
        with open("out.json", "wb") as out:
            command = [sys.executable, "-m", "reprod", "manifest", "."]
            done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=30)
        assert "out.json is the manifest itself" in done.stderr
        assert json.loads(Path("out.json").read_bytes())["digest"] == expected

    def test_what_is_no_file(self, reprod: Run, reprod_process: Run, data: Path) -> None:
        """A device stays a device, and a full one is an error."""
        assert reprod("manifest", "data", "--output", "/dev/null").code == 0
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
        done = reprod("manifest", "data", "--output", "/dev/full")
        assert (done.code, done.err.splitlines()[0]) == (
            77,
            "error: /dev/full cannot be written: No space left on device",
        )
        pipe = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m reprod manifest data --output >(cat >&2)"],
            capture_output=True,
            timeout=30,
        )
        assert pipe.returncode == 0

    def test_a_reader_that_goes(self, data: Path) -> None:
        """Cut off by head, it ends without words of its own failure."""
        for i in range(3000):
            (data / f"f{i}").touch()
        shell = f"{sys.executable} -m reprod manifest data | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=30)
        assert (done.stdout.split(), done.stderr) == (["{", "141"], "")

    def test_no_place_for_the_output(self, reprod: Run, data: Path) -> None:
        """A folder that is not there, and a folder as the file, are usage errors; nothing is written."""
        for output in ("nowhere/m.json", "data", "data/a.csv/m.json"):
            done = reprod("manifest", "data", "--output", output)
            assert (done.code, done.err.count("\n")) == (2, 2)
        if os.geteuid():
            Path("closed").mkdir(mode=0o500)
            assert reprod("manifest", "data", "--output", "closed/m.json").code == 77


class TestFlags:
    @pytest.mark.parametrize(
        "flags",
        [
            ["data", "--include", "*.csv", "*.json", "--exclude", "*.tmp"],
            ["data", "--include", "*.csv", "--exclude", "*.tmp", "--include", "*.json"],
            ["--include", "*.csv", "*.json", "--exclude", "*.tmp", "--", "data"],
            ["--include", "*.csv", "*.json", "data"],
            ["--exclude", "*.tmp", "data", "--output", "-"],
        ],
        ids=" ".join,
    )
    def test_several_and_repeated_values(self, reprod: Run, data: Path, flags: list[str]) -> None:
        """Several after one flag, repeated flags, and PATH behind them are the same call."""
        done = reprod("manifest", *flags)
        assert (done.code, listed(done.out)) == (0, ["a.csv", "d/b.json", "d/e.csv"])

    @pytest.mark.parametrize(
        "flags", [[], ["--include", "data"], ["--include", "*.csv", "nothing-there"]], ids=" ".join
    )
    def test_no_path(self, reprod: Run, data: Path, flags: list[str]) -> None:
        """Without a PATH, also where a flag may have taken it, the hint shows how to write it."""
        done = reprod("manifest", *flags)
        assert (done.code, done.out) == (2, "")
        assert "hint: write it first: reprod manifest PATH --include" in done.err

    def test_algorithms(self, reprod: Run, data: Path) -> None:
        """Asked for they are there, with sha256 in any case; an unknown one is named."""
        done = reprod("manifest", "data", "--algorithm", "md5", "--algorithm", "sha1", "sha512")
        assert json.loads(done.out)["hash_algorithms"] == ["sha256", "md5", "sha1", "sha512"]
        done = reprod("manifest", "data", "--algorithm", "sha265")
        assert (done.code, done.err.splitlines()[0]) == (2, "error: 'sha265' is no hash algorithm")
        assert "did you mean sha256?" in done.err

    def test_a_cut_that_was_asked_for_is_fine(self, reprod: Run, data: Path) -> None:
        """--max-files exits 0 and says that there is no digest; a limit that cuts nothing leaves the digest."""
        done = reprod("manifest", "data", "--max-files", "2")
        assert (done.code, listed(done.out)) == (0, ["a.csv", "d/b.json"])
        assert "cut after the first 2 files: no digest" in done.err
        assert json.loads(reprod("manifest", "data", "--max-files", "4").out)["digest"] == digest(data)
        assert reprod("manifest", "data", "--max-files", "0").code == 2

    @pytest.mark.parametrize("pair", ["x", "=x", ""])
    def test_what_is_no_pair(self, reprod: Run, data: Path, pair: str) -> None:
        """Metadata without a key or a value says how it is written."""
        done = reprod("manifest", "data", "--metadata", pair)
        assert (done.code, "KEY=VALUE" in done.err) == (2, True)

    def test_depth_is_for_validating(self, reprod: Run, data: Path) -> None:
        """--quick makes no manifest, and --include checks none."""
        assert reprod("manifest", "data", "--quick").code == 2
        assert reprod("manifest", "data", "--seed", "1").code == 2
        done = reprod("manifest", "data", "--validate", "m.json", "--include", "*.csv")
        assert (done.code, "--include is for making one" in done.err) == (2, True)


class TestCodes:
    def test_what_is_not_there(self, reprod: Run, data: Path) -> None:
        """A missing path is 6 with one line and one hint, and no output is made."""
        done = reprod("manifest", "nowhere", "--output", "m.json")
        assert (done.code, done.out) == (6, "")
        assert done.err.splitlines()[1] == "hint: check the path, and generate again"
        assert not Path("m.json").exists()

    def test_what_cannot_be_read(self, reprod: Run, data: Path) -> None:
        """With an entry that cannot be read the document is made, names it, and the exit code is 5."""
        # A file of the kernel's that can only be written, whoever asks.
        done = reprod("manifest", f"/proc/{os.getpid()}/clear_refs")
        found = json.loads(done.out)
        assert (done.code, found["digest"], found["complete"], found["files"]) == (5, None, False, [])
        assert [entry["relative_path"] for entry in found["unreadable"]] == ["clear_refs"]
        assert "clear_refs: unreadable" in done.err
        cut = ("--include", "/clear_refs", "/comm", "--exclude", "*/", "--max-files", "1")
        assert reprod("manifest", f"/proc/{os.getpid()}", *cut).code == 5

    def test_validate(self, reprod: Run, data: Path) -> None:
        """0 while nothing differs, 1 once something does, 65 for what was tampered with, each also in JSON."""
        reprod("manifest", "data", "--output", "m.json", "--algorithm", "md5")
        done = reprod("manifest", "data", "--validate", "m.json")
        assert (done.code, "is what was recorded" in done.out) == (0, True)
        assert json.loads(reprod("manifest", "data", "--validate", "m.json", "--json").out)["valid"]
        done = reprod("manifest", "--validate", "m.json", "data", "--quick")
        assert (done.code, "content not read" in done.out) == (0, True)
        (data / "a.csv").write_text("2,1")
        (data / "d/b.json").unlink()
        done = reprod("manifest", "data", "--validate", "m.json")
        assert done.code == 1
        assert "modified: a.csv" in done.out
        assert "missing: d/b.json" in done.out
        text = Path("m.json").read_text()
        Path("m.json").write_text(text.replace('"relative_path": "a.csv"', '"relative_path": "../a.csv"'))
        assert reprod("manifest", "data", "--validate", "m.json").code == 65
        Path("m.json").write_text(text[:-100])
        assert reprod("manifest", "data", "--validate", "m.json").code == 65
        assert reprod("manifest", "data", "--validate", "nowhere.json").code == 2
        Path("m.json").write_text(text)
        assert reprod("manifest", "nowhere", "--validate", "m.json").code == 6


class TestNames:
    def test_names_do_not_act_on_a_terminal(self, reprod: Run, data: Path) -> None:
        """Neither the document nor the talk holds a control or reordering character of a name."""
        for name in ("\x1b[31mred", "cr\rx", "rtl\u202egpj.exe", "c1\x9bx", "del\x7f"):
            (data / name).touch()
        with open(os.fsencode(data) + b"/\xff\xfe", "wb"):
            pass
        done = reprod("manifest", "data")
        assert all(character.isprintable() or character == "\n" for character in done.out + done.err)
        assert len(json.loads(done.out)["files"]) == 10

    def test_two_spellings(self, reprod: Run, data: Path) -> None:
        """Names that some systems take for one are warned of, on both ways."""
        (data / "\xe9").touch()
        (data / "e\u0301").touch()
        done = reprod("manifest", "data")
        assert (done.code, "are one name to systems" in done.err) == (0, True)
        assert "are one name to systems" in reprod("manifest", "data", "--output", "m.json").out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("many", [False, True], ids=["one large file", "many files"])
def test_stopped_in_the_middle(data: Path, number: int, code: int, many: bool) -> None:
    """A signal ends it at once, quietly, with its temporary folder gone and no output and no process left."""
    if many:
        for i in range(12_000):
            (data / f"f{i}").symlink_to("a.csv") if i % 2 else (data / f"f{i}").write_bytes(b"x" * 20)
    else:
        with open(data / "large", "wb") as file:
            file.truncate(60 << 30)
    temporary = data.parent / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "reprod", "manifest", "data", "--output", "m.json"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)}, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(temporary.glob("*/manifest.sqlite-wal")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, b"")
    assert os.listdir(temporary) == []
    assert not Path("m.json").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_progress_on_a_terminal_only(data: Path, tmp_path: Path) -> None:
    """On a terminal it is shown how far it is, and taken away before the result."""
    with open(data / "large", "wb") as file:
        file.truncate(1 << 30)
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        terminal = Terminal(["manifest", "data", "--output", "m.json"], stdout=stdout.fileno())
    with terminal:
        assert terminal.ended(60) == 0
    assert "manifest reading" in terminal.raw
    assert terminal.raw.endswith("\r\x1b[K")
    assert out.read_text().startswith(str(data))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["manifest", "data", "--include", "[z-a]"], 2, "'[z-a]' is no gitignore pattern"),
        (["manifest", "data", "--include", "#x"], 2, "'#x' is a comment"),
    ],
)
def test_what_cannot_be_meant(reprod: Run, data: Path, arguments: list[str], code: int, said: str) -> None:
    """A bad pattern or path is said as such, before anything is read."""
    done = reprod(*arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_a_bad_line_of_reprodignore(reprod: Run, data: Path) -> None:
    """It is named with its file, and is no bug of reprod."""
    (data / ".reprodignore").write_text("*.tmp\n[z-a]\n")
    done = reprod("manifest", "data")
    assert done.code == 78
    assert f"{data}/.reprodignore: '[z-a]' is no gitignore pattern" in done.err


@pytest.mark.parametrize("command", [["manifest", "data"], ["dataset", "list"], ["--version"]])
@pytest.mark.parametrize("where", ["> /dev/full", ">&-"])
def test_standard_output_that_cannot_be_written(data: Path, command: list[str], where: str) -> None:
    """It is full or closed: said in one line, and no bug."""
    line = " ".join([sys.executable, "-m", "reprod", *command, where])
    variables = {**os.environ, "REPROD_STATE_DIR": str(data.parent / "state")}
    done = subprocess.run(
        ["sh", "-c", line], cwd=data.parent, env=variables, capture_output=True, text=True, timeout=30
    )
    assert done.returncode in ({77} if command[0] == "manifest" else {0, 77, 120})
    assert "a bug" not in done.stderr
    assert "Traceback" not in done.stderr
