"""``reprod env``: what capture writes and says, what list, show and diff tell and exit with, on every screen."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_daemon import Done, ScriptedDaemon
from terminal import seen_on, written_to

from reprod.cli.completion import FILES, offer
from reprod.cli.screen import columns
from reprod.cli.tree import build_parser
from reprod.core.accelerator import Accelerators, Cuda, Gpu
from reprod.core.benchmark import Benchmark, Measurement
from reprod.core.environment import Environment, Record, encode
from reprod.core.execution import Execution, Subject
from reprod.core.imports import Imports, UsedDistribution
from reprod.core.invocation import Entry, Invocation, Launcher
from reprod.core.machine import Cpu, Limits, Memory, System
from reprod.core.numerics import NumericLibrary, Numerics, RandomState, TorchSettings
from reprod.core.packages import BrokenRecord, Conda, CondaPackage, Package, PackageSet, Python
from reprod.core.repository import Attachment, Git, Remote, Withheld
from reprod.ops import capture_here
from reprod.ops.write_environment import write_artifacts
from reprod.store import files, snapshots

Run = Callable[..., Done]

BEGIN = 1_795_000_000_000_000_000
FLAGS = tuple(f"avx512_{number:02}" for number in range(40))


def package(name: str, version: str = "1.0", **fields: Any) -> Package:
    return Package(name, version, "/venv/s", record_sha256=f"{name}-{version}", **fields)


def used(*names: str) -> Imports:
    return Imports("in-process", True, tuple(UsedDistribution(name, "1.0", "/venv/s", "record", 1) for name in names))


BASE = Environment(
    python=Python("3.11.7", "/venv", "/usr", "CPython", build="main", compiler="GCC 12"),
    packages=PackageSet(
        (
            package("numpy"),
            package("ruff", "0.1"),
            package("mine", origin="editable", editable=True, direct_url="file:///src"),
            *(package(f"extra-{number:02}") for number in range(70)),
        )
    ),
    system=System("Linux", "6.1", "#1", "x86_64", "Debian", libc="glibc", libc_version="2.36"),
    cpu=Cpu("Xeon", "Intel", 6, 85, "7", 1, 4, 8, FLAGS, "x86-64-v4"),
    memory=Memory(1 << 34, 0),
    limits=Limits("v2", 2.0, 8, 8, 2.0, 1 << 33),
    accelerators=Accelerators(
        tuple(
            Gpu(i, "NVIDIA A100", "550.54", f"GPU-{i}", capability="8.0", memory_bytes=80 << 30) for i in range(2)
        ),
        "NVML",
        "12.4",
    ),
    cuda=Cuda("12.4", "12.1", cudnn="9.1.0"),
    git=Git(
        "a" * 40, "main", True, "/src", tree="t" * 40, remotes=(Remote("origin", "https://example.org/r"),),
        untracked=1, unpushed=2, withheld=(Withheld(".env", 1, "it holds a secret"),),
        files=(Attachment("git_diff.txt", "0" * 64, 2048),), restorable="partial", reasons=("a file was withheld",),
    ),
    variables={"OMP_NUM_THREADS": "2"},
    other_variables=("PIP_CERT",),
    unknown={"cloud": "no DMI"},
)  # fmt: skip
SEEN = Execution(
    Subject("process", "trainer", "b", "in-process", 4242, 7, "/venv"),
    BEGIN,
    invocation=Invocation(
        ("python", "train.py", "--lr", "0.1"), cwd="/src", entry=Entry("script", "train.py"),
        launchers=(Launcher("torchrun", "parent"),), ranks={"RANK": "0"},
    ),
    numerics=Numerics(
        hash_seed="0", libraries=(NumericLibrary("blas", "OpenBLAS", "/o", "0.3.27", 8),),
        torch=TorchSettings("2.5.1", 8),
    ),
    random_state=RandomState("1234"),
    imports=used("numpy"),
    benchmark=Benchmark(
        BEGIN, 4.0, (Measurement("memory_copy", "B/s", 2.0e10, 1.9e10, 2.1e10, 5, "64 MiB"),), {"gpu": "no driver"}
    ),
)  # fmt: skip


def record(execution: Execution = SEEN, **sections: Any) -> Record:
    return Record(execution, replace(BASE, **sections))


def numpy_is(version: str) -> PackageSet:
    packages = BASE.packages
    assert packages is not None
    return PackageSet((package("numpy", version), *packages.packages[1:]))


def without_tool() -> PackageSet:
    packages = BASE.packages
    assert packages is not None
    return PackageSet(tuple(each for each in packages.packages if each.name != "ruff"))


@pytest.fixture
def written(home: Path) -> Callable[..., str]:
    """Write a record as ``env capture`` does, into a folder of that name."""

    def write(name: str, found: Record) -> str:
        shutil.rmtree(home / name, ignore_errors=True)
        write_artifacts(found, home / name)
        return str(home / name)

    return write


@pytest.fixture
def known(home: Path) -> str:
    """A registry with one environment, sampled and handed over; its digest."""
    digest = BASE.digest()
    opened = files.open_registry(home / "state").db
    opened.write(lambda c: snapshots.keep_environment(c, digest, encode(BASE), BEGIN))
    opened.write(lambda c: snapshots.keep_sample(c, "/venv", digest, BEGIN))
    opened.write(lambda c: snapshots.hand_over(c, "k", 0, digest, BEGIN, msgspec.json.encode(SEEN)))
    opened.close()
    return digest


@pytest.fixture
def elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user, in no repository."""
    (home / "work").mkdir()
    monkeypatch.chdir(home / "work")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(home))
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return home / "work"


@pytest.mark.parametrize("command", ["capture", "list", "show", "diff"])
def test_help_ends_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As that of every command."""
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["env", command, "--help"])
    assert caught.value.code == 0
    assert f"\n  reprod env {command}" in capsys.readouterr().out.rpartition("example")[2]


class TestCapture:
    def test_files_and_words(self, elsewhere: Path, reprod: Run) -> None:
        """The seed's folder by default; whose environment it is, what is in it, what is unknown and why."""
        done = reprod("env", "capture")
        assert (done.code, done.err) == (0, "")
        names = {path.name for path in (elsewhere / "env_artifacts").iterdir()}
        assert {"requirements.txt", "system_info.json", "packages.json", "environment.json"} <= names
        assert f" {sys.prefix} on {os.uname().nodename} (process {os.getpid()}, " in done.out.splitlines()[0]
        for said in (
            r"Python +CPython 3\.",
            r"packages +\d+",
            r"GPUs +\S",
            r"rebuilds +\S+ (yes|partial|no)",
            r"git: ",
        ):
            assert re.search(said, done.out), said
        assert "imports, numerics, random_state: reprod's own process: it tells nothing of a training" in done.out
        assert done.out.splitlines()[-1].startswith("wrote ./env_artifacts: environment.json, packages.json")

    def test_json(self, elsewhere: Path, reprod: Run) -> None:
        """One object with the files by name; what is captured is what the files say."""
        done = reprod("env", "capture", "--output-dir", "x/y", "--json")
        said = done.json
        assert (done.code, said["schema"], said["run_id"]) == (0, "reprod.env.capture/1", None)
        assert said["files"]["requirements.txt"] == "x/y/requirements.txt"
        info = json.loads((elsewhere / said["files"]["system_info.json"]).read_bytes())
        assert info["digest"] == said["digest"]
        assert (info["python"]["version"], info["packages_count"]) == (said["python"], said["packages"])
        assert info["unknown"] == said["unknown"]

    def test_another_environment_is_active(self, elsewhere: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has reprod installed elsewhere is told that this is not the environment of their shell."""
        monkeypatch.setenv("VIRTUAL_ENV", "/home/u/venv")
        assert "not the active one /home/u/venv" in reprod("env", "capture").out
        monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
        assert "not the active one" not in reprod("env", "capture").out

    def test_no_run_is_named(self, elsewhere: Path, reprod: Run) -> None:
        """2, and nothing is written."""
        done = reprod("env", "capture", "--mlflow-run")
        assert (done.code, done.out) == (2, "")
        assert "hint: --mlflow-run RUN_ID, or set MLFLOW_RUN_ID" in done.err
        assert list(elsewhere.iterdir()) == []

    @pytest.mark.parametrize(("argv", "code"), [(["--output-dir", ""], 2), (["--output-dir", "taken/x"], 77)])
    def test_no_folder(self, elsewhere: Path, reprod: Run, argv: list[str], code: int) -> None:
        """A wrong command, or a folder that cannot be made."""
        (elsewhere / "taken").touch()
        assert reprod("env", "capture", *argv).code == code

    def test_benchmark(self, elsewhere: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was measured is shown and in the files; inside a run it is refused with 5, and nothing is written."""
        monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
        done = reprod("env", "capture", "--benchmark")
        assert (done.code, list(elsewhere.iterdir())) == (5, [])
        assert f"no benchmark while a run is in progress: {'f' * 32}" in done.err
        monkeypatch.setattr(capture_here, "measure", lambda _state, _directory: SEEN.benchmark)
        done = reprod("env", "capture", "--benchmark")
        assert "  benchmark memory_copy 18.6 GiB/s, ±5 %\n" in done.out
        assert "gpu: not measured, no driver" in done.out
        info = json.loads((elsewhere / "env_artifacts" / "system_info.json").read_bytes())
        assert info["benchmark"]["measurements"][0]["name"] == "memory_copy"

    def test_packages_that_cannot_be_read(self, elsewhere: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """5: the files are there, without packages, and the reason is said."""
        env = replace(BASE, packages=None, unknown={"packages": "timeout: it took over 20 s"})
        monkeypatch.setattr(capture_here, "capture", lambda **_: Record(SEEN, env))
        done = reprod("env", "capture")
        assert done.code == 5
        assert "packages: timeout" in done.out
        assert not (elsewhere / "env_artifacts" / "requirements.txt").exists()

    @pytest.mark.mlflow
    def test_onto_a_run(self, elsewhere: Path, home: Path, mlflow_server: str, reprod_process: Run) -> None:
        """Files and parameters, on the server that the configuration names; a run that is not there writes nothing."""
        mlflow = pytest.importorskip("mlflow")
        client = mlflow.MlflowClient(mlflow_server)
        run_id = client.create_run("0").info.run_id
        (home / "etc" / "reprod.toml").write_text(f'[mlflow]\ntracking_uri = "{mlflow_server}"\n')
        done = reprod_process("env", "capture", "--mlflow-run", "0" * 32)
        assert (done.code, list(elsewhere.iterdir())) == (4, [])
        done = reprod_process("env", "capture", "--mlflow-run", MLFLOW_RUN_ID=run_id)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[-1] == f"logged to run {run_id}"
        names = {entry.path for entry in client.list_artifacts(run_id, "environment")}
        assert {"environment/requirements.txt", "environment/environment.json"} <= names
        assert client.get_run(run_id).data.params["platform_system"] == "Linux"
        found = reprod_process("env", "show", f"run:{run_id}", "--json").json
        assert (found["source"], found["run_id"]) == ("run", run_id)
        assert found["digest"] == json.loads(Path("env_artifacts/environment.json").read_bytes())["digest"]


class TestList:
    def test_rows(self, known: str, reprod: Run) -> None:
        """Digest, Python, packages, runs, when, and whose."""
        done = reprod("env", "list")
        heads, row = done.out.splitlines()
        assert heads.split() == ["DIGEST", "PYTHON", "PACKAGES", "RUNS", "FIRST", "SEEN", "LAST", "SEEN", "OF"]
        assert re.match(rf"env1:{known[:12]} +3\.11\.7 +73 +0 .* ago .*/venv on ", row)
        (document,) = reprod("env", "list", "--json").json["environments"]
        assert document["digest"] == f"env1:{known}"
        assert set(document) == {
            "digest", "python", "packages", "subjects", "first_seen_at", "last_seen_at", "runs",
        }  # fmt: skip

    def test_nothing(self, home: Path, reprod: Run) -> None:
        """Is no error, and an empty list for a program."""
        assert "no environment is known yet" in reprod("env", "list").out
        assert reprod("env", "list", "--json").json["environments"] == []

    def test_a_narrow_terminal(self, known: str) -> None:
        """Whose it is stands below then; nothing is wider than the terminal."""
        lines = seen_on(["env", "list"], 80).text.splitlines()
        assert lines[1].startswith(f"env1:{known[:12]}")
        assert lines[2].startswith("  /venv on ")


class TestShow:
    def test_everything_is_there(self, written: Callable[..., str], reprod: Run) -> None:
        """Each section of the environment and of the process, and what is unknown."""
        text = reprod("env", "show", written("a", record())).out
        for said in (
            f"env1:{BASE.digest()}", "CPython 3.11.7", "Debian, Linux 6.1, x86_64, glibc 2.36", "Xeon", "16.0 GiB",
            "2 CPUs, quota 2 CPUs, memory 8.0 GiB", "2 × NVIDIA A100 (80.0 GiB, compute 8.0, driver 550.54)",
            "driver up to 12.4, runtime 12.1, cuDNN 9.1.0", "aaaaaaaaaaaa main, uncommitted changes (1 untracked)",
            "2 unpushed commits", "origin https://example.org/r", "git_diff.txt (2.0 KiB)", ".env: it holds a secret",
            "OMP_NUM_THREADS=2", "not recorded: PIP_CERT", "python train.py --lr 0.1", "torchrun", "RANK=0",
            "OpenBLAS 0.3.27, 8 threads", "torch 1234", "numpy 1.0", "18.6 GiB/s", "editable: mine 1.0, file:///src",
            "73, 1 editable", "partial", "cloud: no DMI", "avx512_39",
        ):  # fmt: skip
            assert said in text, said

    def test_packages_in_columns(self, written: Callable[..., str], reprod: Run) -> None:
        """As many columns as fit on a terminal; one a line in a pipe, where nothing is cut."""
        place = written("a", record())
        narrow, wide = (seen_on(["env", "show", place], width).text.splitlines() for width in (60, 200))
        assert sum("extra-" in line for line in wide) < sum("extra-" in line for line in narrow) < 70
        assert "  extra-07 1.0" in reprod("env", "show", place).out.splitlines()

    def test_now(self, elsewhere: Path, reprod: Run) -> None:
        """Without a reference it is this interpreter."""
        document = reprod("env", "show", "--json").json
        assert (document["schema"], document["source"]) == ("reprod.env.show/1", "now")
        assert document["environment"]["python"]["prefix"] == sys.prefix
        assert document["execution"]["subject"]["pid"] == os.getpid()

    def test_json_holds_all(self, written: Callable[..., str], reprod: Run) -> None:
        """The same record comes out as went in."""
        document = reprod("env", "show", written("a", record()), "--json").json
        whole = {"environment": document["environment"], "execution": document["execution"]}
        assert msgspec.convert(whole, Record) == record()

    @pytest.mark.parametrize(("ref", "code"), [("", 2), ("nothing", 4), ("host", 4), ("run:nope", 4), ("/", 4)])
    def test_nothing_of_that_name(self, home: Path, reprod: Run, ref: str, code: int) -> None:
        """With what can be written instead."""
        done = reprod("env", "show", ref)
        assert (done.code, done.out) == (code, "")
        assert "\nhint: " in done.err


#: What is changed on the right, the verdict, and the exit code as it is, and with --fail-on semantic.
COMPARED: list[tuple[dict[str, Any], str, int, int]] = [
    ({}, "identical", 0, 0),
    ({"memory": Memory(1 << 33, 0)}, "equivalent", 0, 0),
    ({"packages": without_tool()}, "benign", 0, 0),
    ({"git": None}, "unknown", 5, 5),
    ({"cpu": replace(BASE.cpu or Cpu(), flags=FLAGS[:-1])}, "numeric", 1, 0),
    ({"packages": numpy_is("2.0")}, "semantic", 1, 1),
    ({"cpu": replace(BASE.cpu or Cpu(), flags=FLAGS[:-1]), "git": None}, "numeric", 1, 5),
]


class TestDiff:
    @pytest.mark.parametrize(("change", "verdict", "code", "lenient"), COMPARED, ids=[row[1] for row in COMPARED])
    def test_verdict_and_code(
        self, written: Callable[..., str], reprod: Run, change: dict[str, Any], verdict: str, code: int, lenient: int
    ) -> None:
        """Acceptance test 34: each class has its exit code; 1 goes before 5; --fail-on semantic lets numeric pass."""
        sides = written("a", record()), written("b", record(**change))
        done = reprod("env", "diff", *sides)
        assert done.code == code
        assert done.out.splitlines()[-1].split(":")[0].endswith(verdict)
        assert reprod("env", "diff", *sides, "--fail-on", "semantic").code == lenient
        document = reprod("env", "diff", *sides, "--json")
        assert (document.code, document.json["verdict"]) == (code, verdict)

    def test_identical_is_said_of_inputs(self, written: Callable[..., str], reprod: Run) -> None:
        """Nobody promises equal results, and the last line says so."""
        place = written("a", record())
        assert "of what went in, not of results" in reprod("env", "diff", place, place).out.splitlines()[-1]

    def test_rows(self, written: Callable[..., str], reprod: Run) -> None:
        """Class, what, left, right, why; the gravest first; a flag that went is named."""
        cpu = replace(BASE.cpu or Cpu(), flags=FLAGS[:-1])
        right = record(packages=numpy_is("2.0"), cpu=cpu, git=None, memory=Memory(1 << 33, 0))
        sides = written("a", record()), written("b", right)
        lines = reprod("env", "diff", *sides).out.splitlines()
        heads = next(line for line in lines if line.startswith("CLASS"))
        assert heads.split() == ["CLASS", "WHAT", "LEFT", "RIGHT", "WHY"]
        rows = [line.split() for line in lines if line.startswith(("semantic ", "numeric ", "unknown "))]
        assert [row[0] for row in rows] == ["semantic", "numeric", "unknown"]
        assert rows[0][1:4] == ["packages.numpy", "1.0", "2.0"]
        assert rows[1][1] == "cpu.flags"
        assert rows[1][-1] == "-avx512_39"
        assert rows[2][1:3] == ["git", "known"]
        assert not any(line.startswith("equivalent ") for line in lines)
        assert "1 semantic, 1 numeric, 1 unknown, 2 equivalent (--verbose lists the rest)" in lines
        verbose = reprod("env", "diff", *sides, "--verbose").out
        assert "equivalent  memory.total_bytes" in verbose
        assert "--verbose" not in verbose

    def test_json(self, written: Callable[..., str], reprod: Run) -> None:
        """All differences, whatever their class, and both sides."""
        sides = written("a", record()), written("b", record(packages=numpy_is("2.0")))
        document = reprod("env", "diff", *sides, "--json").json
        assert document["schema"] == "reprod.env.diff/1"
        assert (document["a"]["ref"], document["b"]["ref"]) == sides
        assert document["a"]["digest"] == f"env1:{BASE.digest()}"
        assert document["counts"]["semantic"] == 1
        assert document["differences"][0] == {
            "class": "semantic", "what": "packages.numpy", "left": "1.0", "right": "2.0", "why": None,
        }  # fmt: skip

    def test_a_class_does_not_push_another_off_the_screen(self, written: Callable[..., str]) -> None:
        """Of hundreds of packages the first are listed, and still each other class; code comes first."""
        many = PackageSet(tuple(package(f"p{number:03}") for number in range(200)))
        git = replace(BASE.git or Git("", None, None, ""), tree="u" * 40, withheld=())
        env = record(replace(SEEN, imports=None), packages=many, git=git, memory=Memory(1 << 33, 0))
        sides = written("a", record()), written("b", env)
        lines = seen_on(["env", "diff", *sides, "--verbose"], 120).text.splitlines()
        rows = [line.split()[0:2] for line in lines if line.startswith(("semantic ", "unknown ", "equivalent "))]
        assert rows[0] == ["semantic", "git.tree"]
        assert sum(row[0] == "semantic" for row in rows) == 50
        assert ["unknown", "imports"] not in rows
        assert any(row[0] == "equivalent" for row in rows)
        assert any("in a pipe or with --json all are listed" in line for line in lines)

    @pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
    def test_it_fits(self, written: Callable[..., str], width: int) -> None:
        """Nothing is wider than the terminal, and nothing is cut: what has no room stands below."""
        long = "/a/very/long/prefix/" + "x" * 60
        env = record(
            python=replace(BASE.python or Python("", "", ""), prefix=long, free_threaded=True), packages=numpy_is("2.0")
        )
        sides = written("a", record()), written("b", env)
        for argv in (["env", "diff", *sides, "--verbose"], ["env", "show", sides[1]]):
            glass = seen_on(argv, width)
            joined = "".join(line.strip() for line in glass.text.splitlines())
            assert long in joined
            assert all(columns(line) <= width for line in glass.text.splitlines())

    def test_a_pipe_gets_a_line_for_each(self, written: Callable[..., str], reprod: Run) -> None:
        """Whole, without colours, however long; also of 200 differences."""
        many = PackageSet(tuple(package(f"p{number:03}") for number in range(200)))
        sides = written("a", record()), written("b", record(replace(SEEN, imports=None), packages=many))
        done = reprod("env", "diff", *sides)
        assert sum(line.startswith("semantic ") for line in done.out.splitlines()) > 200
        assert "\x1b" not in done.out

    def test_colour_is_not_the_only_carrier(self, written: Callable[..., str]) -> None:
        """With NO_COLOR and on a dumb terminal the words are the same."""
        sides = written("a", record()), written("b", record(packages=numpy_is("2.0")))
        argv = ["env", "diff", *sides]
        plain = written_to(argv, 100, NO_COLOR="1")
        assert "\x1b" not in plain
        assert re.sub("\x1b\\[[0-9;]*m", "", written_to(argv, 100)) == plain


EVIL = "e\x1b[2J\x1b]0;t\x07\r\n\tv\u202e\u2066\x9b31m\u2028\x7f"


def hostile() -> Record:
    """A record in which every text that somebody else wrote acts on a terminal."""
    env = Environment(
        python=Python(EVIL, EVIL, EVIL, EVIL, build=EVIL, compiler=EVIL),
        packages=PackageSet(
            (
                Package(EVIL, EVIL, EVIL, direct_url=EVIL, commit=EVIL, edited=(EVIL,)),
                Package(EVIL, "2", EVIL, shadowed=True),
            ),
            (BrokenRecord(EVIL, EVIL, EVIL),),
            (EVIL,),
        ),
        conda=Conda(EVIL, EVIL, (CondaPackage(EVIL, EVIL, EVIL),)),
        system=System(EVIL, EVIL, EVIL, EVIL, EVIL),
        cpu=Cpu(EVIL, flags=(EVIL,)),
        accelerators=Accelerators((Gpu(0, EVIL, EVIL, capability=EVIL),), EVIL, EVIL, (EVIL,)),
        cuda=Cuda(EVIL, EVIL),
        git=Git(EVIL, EVIL, True, EVIL, tree=EVIL, remotes=(Remote(EVIL, EVIL),), withheld=(Withheld(EVIL, 1, EVIL),)),
        variables={"A" + EVIL: EVIL},
        other_variables=(EVIL,),
        unknown={EVIL: EVIL},
    )
    seen = replace(
        SEEN,
        subject=Subject("process", EVIL, EVIL, EVIL, 1, 1, EVIL),
        invocation=Invocation((EVIL,), cwd=EVIL, entry=Entry("script", EVIL), launchers=(Launcher(EVIL, "self"),)),
    )
    return Record(seen, env)


class TestHostileNames:
    @pytest.mark.parametrize("argv", [["show", "b"], ["diff", "a", "b", "--verbose"], ["diff", "b", "a"], ["list"]])
    def test_nothing_acts_on_a_terminal(self, home: Path, written: Callable[..., str], argv: list[str]) -> None:
        """Whatever a record holds, only reprod's own colours reach the terminal: another sequence fails the glass."""
        sides = {"a": written("a", record()), "b": written("b", hostile())}
        opened = files.open_registry(home / "state").db
        digest = hostile().environment.digest()
        opened.write(lambda c: snapshots.keep_environment(c, digest, encode(hostile().environment), 1))
        data = msgspec.json.encode(hostile().execution)
        opened.write(lambda c: snapshots.hand_over(c, "k", 0, digest, 1, data))
        opened.close()
        text = seen_on(["env", *(sides.get(word, word) for word in argv)], 80).text
        assert "\\x1b[2J" in text.replace("\n", "").replace(" ", "") or argv == ["list"]

    def test_of_a_capture(self, elsewhere: Path, reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also right after it was read."""
        monkeypatch.setattr(capture_here, "capture", lambda **_: hostile())
        done = reprod("env", "capture")
        assert done.code == 0
        assert not set(done.out) & set("\x1b\x07\r\t\x9b\u202e\u2028\x7f")


class TestCompletion:
    @pytest.fixture
    def answering(self, daemon: ScriptedDaemon) -> ScriptedDaemon:
        daemon.answers["complete"] = lambda asked: {"result": {"words": [[f"{asked['kind']}-1", "then"]]}}
        return daemon

    def test_environments_behind_show_and_diff(self, answering: ScriptedDaemon) -> None:
        """Digests, what else can stand there, files; behind run: the runs."""
        for words in (["env", "show", ""], ["env", "diff", "x", ""]):
            offered = [word for word, _ in offer(words)]
            assert offered == ["environments-1", "now", "host", "run:", FILES]
        assert [word for word, _ in offer(["env", "diff", "run:"])] == ["run:runs-1"]
        assert [word for word, _ in offer(["env", "capture", "--mlflow-run", ""])] == ["runs-1"]
        assert next(word for word, _ in offer(["diff", ""])) == "datasets-1"

    def test_without_a_daemon(self, known: str) -> None:
        """From the registry, with twelve digits."""
        assert known[:12] in [word for word, _ in offer(["env", "show", ""])]


def test_no_heavy_module_is_loaded(elsewhere: Path) -> None:
    """To capture, list and show, neither MLflow nor a numeric library is imported."""
    code = (
        "import sys; from reprod.__main__ import main; codes = [main(['env', 'capture']), main(['env', 'list'])]; "
        "found = {'mlflow', 'numpy', 'torch', 'rich', 'pandas'} & set(sys.modules); print(codes, found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60)
    assert done.stdout.splitlines()[-1] == "[0, 0] set()", done.stderr
