"""The verbs of environments: what the state knows of them, what a reference means, and reading one back from a run."""

import json
import os
import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reprod.config import Config, load
from reprod.core.environment import PREFIX, Environment, Record, encode
from reprod.core.environment_diff import compare
from reprod.core.environment_files import artifacts
from reprod.core.execution import Execution, Subject
from reprod.core.machine import Cpu, Limits, System
from reprod.core.packages import Package, PackageSet, Python
from reprod.core.process import ProcessContext
from reprod.core.run import PendingRun
from reprod.core.snapshot import Snapshot
from reprod.errors import DamagedError, IncompleteError, NotFoundError, StateError, TrackingError, UsageError
from reprod.ops import capture_here
from reprod.ops.environment_ref import Named, fetch_from_server, resolve
from reprod.ops.environments import list_environments
from reprod.ops.fetch_environment import fetch_environment
from reprod.ops.upload import Server
from reprod.ops.upload_environment import ensure_environment_stored
from reprod.ops.write_environment import write_artifacts
from reprod.sinks.child import MlflowChild
from reprod.store import files, outbox, snapshots

SECOND = 1_000_000_000
BEGIN = 1_795_000_000 * SECOND
BOOT = "39aa8962-07c0-47cc-bbed-ea6469f36a84"

ENVIRONMENT = Environment(
    python=Python("3.11.7", "/venv", "/usr", "CPython"),
    packages=PackageSet((Package("numpy", "2.1.3", "/venv/s"), Package("torch", "2.5.1+cu124", "/venv/s"))),
    system=System("Linux", "6.1", "#1", "x86_64"),
    cpu=Cpu("Xeon", threads=8, cores=4),
    limits=Limits(affinity_count=2),
)
OTHER = replace(ENVIRONMENT, packages=PackageSet((Package("numpy", "2.2.0", "/venv/s"),)))
MACHINE = Environment(system=ENVIRONMENT.system, cpu=ENVIRONMENT.cpu)


def execution(pid: int, at_s: int) -> Execution:
    return Execution(Subject("process", "trainer", BOOT, "handover", pid, 7, "/venv"), BEGIN + at_s * SECOND)


@pytest.fixture
def state(tmp_path: Path) -> Iterator["State"]:
    """STATE with nothing in it yet."""
    found = State(tmp_path / "state")
    yield found
    found.db.close()


class State:
    """The registry, as a daemon writes it. Times are seconds after ``BEGIN``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = files.open_registry(path).db

    def keep(self, env: Environment, at_s: int, **contents: bytes) -> str:
        digest = env.digest()
        now = BEGIN + at_s * SECOND
        self.db.write(lambda c: snapshots.keep_environment(c, digest, encode(env), now, contents))
        return digest

    def sample(self, env: Environment, subject: str, *at_s: int) -> str:
        digest = self.keep(env, at_s[0])
        for each in at_s:
            now = BEGIN + each * SECOND
            self.db.write(lambda c, now=now: snapshots.keep_sample(c, subject, digest, now))  # type: ignore[misc]
        return digest

    def hand_over(self, env: Environment, pid: int, at_s: int) -> str:
        digest, seen = self.keep(env, at_s), execution(pid, at_s)
        key = ProcessContext(1, "trainer", BOOT, pid, 7, "/venv").key
        data = msgspec.json.encode(seen)
        self.db.write(lambda c: snapshots.hand_over(c, key, 0, digest, seen.taken_ns, data))
        return digest

    def run(
        self,
        run_id: str,
        env: Environment | None,
        at_s: int = 0,
        *,
        unknown: str | None = None,
        name: str = "owl",
        context: str | None = None,
        published: bool = True,
    ) -> None:
        run = PendingRun(run_id, "1", name, "RUNNING", 0, None, "data", context)
        seen = execution(4242, at_s) if env else None
        digest = self.keep(env, at_s) if env else None
        snapshot = msgspec.json.encode(Snapshot(BEGIN + at_s * SECOND, "h", (), digest, seen, unknown))

        def write(c: Any) -> None:
            outbox.notice(c, "http://t", run_id, "data", msgspec.json.encode(run), BEGIN)
            if published:
                outbox.published(c, outbox.find(c, run_id)[0].id, snapshot)

        self.db.write(write)

    def resolve(self, text: str, config: Callable[[], Config] = load) -> Named:
        return resolve(self.path, text, config)


class TestList:
    def test_what_was_seen_of_one_environment_is_one_row(self, state: State) -> None:
        """Samples, processes and runs that had it: its first and last time, whose it was, how many runs."""
        digest = state.sample(ENVIRONMENT, "/venv", 50, 90)
        state.hand_over(ENVIRONMENT, 1, 10)
        state.hand_over(ENVIRONMENT, 2, 20)
        state.run("a" * 32, ENVIRONMENT, 30)
        state.run("b" * 32, ENVIRONMENT, 40)
        (row,) = list_environments(state.path)
        assert row["digest"] == PREFIX + digest
        assert (row["python"], row["packages"], row["runs"]) == ("3.11.7", 2, 2)
        assert (row["first_seen_at"][:19], row["last_seen_at"][:19]) == ("2026-11-18T11:06:50", "2026-11-18T11:08:10")
        told = {(each["kind"], each["host"], each["prefix"]): each["processes"] for each in row["subjects"]}
        assert told == {("interpreter", os.uname().nodename, "/venv"): 0, ("process", "trainer", "/venv"): 3}

    def test_the_last_seen_comes_first(self, state: State) -> None:
        """Whenever it was first seen; a machine has neither Python nor packages."""
        old, new = state.sample(ENVIRONMENT, "/venv", 0, 500), state.sample(MACHINE, "host", 100, 200)
        rows = list_environments(state.path)
        assert [row["digest"] for row in rows] == [PREFIX + old, PREFIX + new]
        assert (rows[1]["python"], rows[1]["packages"]) == (None, None)
        assert rows[1]["subjects"][0]["kind"] == "host"

    def test_where_no_daemon_ever_ran(self, tmp_path: Path) -> None:
        """Nothing is known, which is no error, and asking makes no state."""
        assert list_environments(tmp_path / "none") == []
        assert not (tmp_path / "none").exists()

    def test_what_another_version_wrote_is_listed(self, state: State) -> None:
        """An execution that cannot be read costs only what it said."""
        digest = state.keep(ENVIRONMENT, 5)
        state.db.write(lambda c: snapshots.hand_over(c, "k", 0, digest, BEGIN + 9 * SECOND, b'{"subject": 1}'))
        (row,) = list_environments(state.path)
        assert (row["digest"], row["subjects"]) == (PREFIX + digest, [])
        assert row["last_seen_at"].startswith("2026-11-18T11:06:49")


class TestReferences:
    def test_a_digest(self, state: State) -> None:
        """By its first characters, with and without its prefix; it names no process, so nothing is said of one."""
        digest = state.hand_over(ENVIRONMENT, 1, 10)
        state.keep(ENVIRONMENT, 0, git_diff=b"+1")
        for text in (digest, digest[:4], PREFIX + digest[:12]):
            found = state.resolve(text)
            assert (found.source, found.digest) == ("digest", digest)
            assert found.record.environment == ENVIRONMENT
            assert found.record.execution.subject.host == "trainer"
            assert set(found.record.execution.unknown) == {"invocation", "numerics", "random_state", "imports"}
        assert compare(state.resolve(digest).record, state.resolve(digest).record).verdict == "identical"

    def test_the_beginning_of_several_digests(self, state: State) -> None:
        """Says which, and is a wrong command."""
        for digit in "01":
            state.db.write(lambda c, d=digit: snapshots.keep_environment(c, "f" * 63 + d, b"{}", 1))  # type: ignore[misc]
        with pytest.raises(UsageError, match="'ffff' is several environments"):
            state.resolve("ffff")

    def test_what_is_nothing(self, state: State, tmp_path: Path) -> None:
        """A name, a digest that is not there, a folder without Python: 4, with what can be written."""
        for text in ("nothing", "abcdef", str(tmp_path), str(tmp_path / "none"), "host", "", "imagenet@3"):
            with pytest.raises(NotFoundError) as caught:
                state.resolve(text)
            assert caught.value.hint

    def test_host_and_prefix_are_the_last_samples(self, state: State, tmp_path: Path) -> None:
        """The newest environment of each, with how long it is known to have held."""
        state.sample(ENVIRONMENT, "/venv", 0)
        last = state.sample(OTHER, "/venv", 10, 20)
        machine = state.sample(MACHINE, "host", 5)
        found = state.resolve("/venv")
        assert (found.source, found.digest, found.record.environment) == ("sample", last, OTHER)
        assert "2026-11-18T11:06:50" in found.record.execution.subject.how
        assert state.resolve("host").digest == machine
        (tmp_path / "link").symlink_to("/venv")  # resolved as the daemon's configuration would be
        assert state.resolve(str(tmp_path / "link")).digest == last

    def test_a_prefix_that_nobody_samples(self, state: State) -> None:
        """Is read now, by its files."""
        found = state.resolve(sys.prefix)
        assert found.source == "prefix"
        assert found.record.environment.python is not None
        assert found.record.environment.python.version == ".".join(map(str, sys.version_info[:3]))

    def test_a_run_of_this_state(self, state: State) -> None:
        """By its id, the first characters of it, or its name, without any tracking server."""
        state.run("a" * 32, ENVIRONMENT, 30, name="calm-owl")
        for text in ("run:" + "a" * 32, "run:aaaa", "run:calm-owl"):
            found = state.resolve(text, pytest.fail)
            assert (found.source, found.run_id) == ("run", "a" * 32)
            assert found.record == Record(execution(4242, 30), ENVIRONMENT)

    def test_runs_without_an_environment(self, state: State) -> None:
        """5 with the reason that the daemon had; a prefix of two runs is a wrong command."""
        state.run("a1" * 16, None, unknown="the process was gone")
        state.run("a2" * 16, ENVIRONMENT, published=False)
        with pytest.raises(IncompleteError, match="the process was gone"):
            state.resolve("run:" + "a1" * 16)
        with pytest.raises(IncompleteError, match="not recorded yet"):
            state.resolve("run:" + "a2" * 16)
        with pytest.raises(UsageError, match="several runs"):
            state.resolve("run:owl")

    @pytest.mark.parametrize("text", ["run:nope", "run:"])
    def test_a_run_that_nobody_knows(self, state: State, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        """4, also where no tracking server could be asked, and where there is no state."""
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("REPROD_CONFIG", str(state.path / "none.toml"))
        for path in (state.path, state.path / "none"):
            with pytest.raises(NotFoundError):
                resolve(path, text, load)


class TestCapturedFiles:
    @pytest.fixture
    def captured(self, tmp_path: Path) -> Path:
        write_artifacts(Record(execution(1, 0), ENVIRONMENT), tmp_path / "captured")
        return tmp_path / "captured"

    def test_folder_and_file(self, state: State, captured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What env capture wrote is read back, by its folder or its file, relative too."""
        monkeypatch.chdir(captured.parent)
        for text in (str(captured), str(captured / "environment.json"), "captured", "./captured/"):
            found = state.resolve(text)
            assert found.source == "file"
            assert found.record == Record(execution(1, 0), ENVIRONMENT)

    def test_files_that_were_changed(self, state: State, captured: Path) -> None:
        """A package edited by hand, or the packages of another capture: 65."""
        packages = captured / "packages.json"
        packages.write_text(packages.read_text().replace("2.1.3", "2.1.4"))
        with pytest.raises(DamagedError, match="were changed"):
            state.resolve(str(captured))

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"environment": 1}', "[" * 100_000, "\xff"])
    def test_files_that_are_none(self, state: State, captured: Path, text: str) -> None:
        """65 and not a bug."""
        (captured / "environment.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(DamagedError):
            state.resolve(str(captured))

    def test_without_the_packages(self, state: State, captured: Path) -> None:
        """They are unknown then, which no comparison takes for equal."""
        whole = state.resolve(str(captured)).record
        (captured / "packages.json").unlink()
        found = state.resolve(str(captured)).record
        assert found.environment.packages is None
        assert compare(found, whole).verdict == "unknown"

    def test_a_pipe_in_its_place(self, state: State, captured: Path) -> None:
        """Nothing hangs."""
        (captured / "packages.json").unlink()
        os.mkfifo(captured / "packages.json")
        with pytest.raises(StateError, match="not a regular file"):
            state.resolve(str(captured))


class TestCaptureHere:
    def test_nothing_of_reprods_own_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What reprod imported, its seeds and its threads are not passed off for a training's; the prefix is said."""
        monkeypatch.chdir(tmp_path)
        record = capture_here.capture()
        seen = record.execution
        assert (seen.imports, seen.numerics, seen.random_state) == (None, None, None)
        assert seen.unknown["imports"] == capture_here.NOT_A_TRAINING
        assert (seen.subject.kind, seen.subject.pid, seen.subject.prefix) == ("process", os.getpid(), sys.prefix)
        assert record.environment.packages is not None
        assert "msgspec" in {package.name for package in record.environment.packages.packages}

    def test_the_repository_is_that_of_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not that of reprod's own code, which may be a repository too."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert capture_here.capture().environment.git is None
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "init", "-q", "."], check=True)
        subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
        git = capture_here.capture().environment.git
        assert git is not None
        assert git.root == str(tmp_path.resolve())

    def test_deep_names_the_edited_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every installed file is read, and how far that is gets told."""
        site = tmp_path / "site"
        (site / "thing-1.0.dist-info").mkdir(parents=True)
        told = urlsafe_b64encode(sha256(b"as installed").digest()).rstrip(b"=").decode()
        (site / "thing-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        record = f"thing.py,sha256={told},12\nfine.py,sha256={told},12\nthing-1.0.dist-info/RECORD,,\n"
        (site / "thing-1.0.dist-info" / "RECORD").write_text(record)
        (site / "fine.py").write_text("as installed")
        (site / "thing.py").write_text("edited since")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [str(site)])
        reports: list[dict[str, Any]] = []
        packages = capture_here.capture(deep=True, report=reports.append).environment.packages
        assert packages is not None
        assert [(package.name, package.edited) for package in packages.packages] == [("thing", ("thing.py",))]
        assert [report["files"] for report in reports] == [1, 2]

    def test_no_benchmark_during_a_run(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refused while a process lives here whose run is not at its end, and inside a run; not for one that died."""
        measured: list[Any] = []
        monkeypatch.setattr(capture_here, "run_benchmark", lambda _, *, running: measured.append(sorted(running)))
        monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
        here = capture_here.current_context()
        state.run("a" * 32, ENVIRONMENT, context=here.to_json())
        state.run("b" * 32, ENVIRONMENT, context=replace(here, start_ticks=here.start_ticks + 1).to_json())
        state.run("c" * 32, ENVIRONMENT)
        capture_here.measure(state.path, state.path / "not" / "there")
        monkeypatch.setenv("MLFLOW_RUN_ID", "mine")
        capture_here.measure(state.path.parent / "none", state.path)
        assert measured == [["a" * 32], ["mine"]]

    def test_a_refused_benchmark_says_why(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        """5, with the run."""
        monkeypatch.setenv("MLFLOW_RUN_ID", "mine")
        with pytest.raises(IncompleteError, match="while a run is in progress: mine"):
            capture_here.measure(state.path, state.path)


@pytest.fixture(scope="module")
def child(mlflow_server: str) -> Iterator[MlflowChild]:
    """One process that talks to the server: to start one takes seconds."""
    child = MlflowChild(mlflow_server)
    yield child
    child.close()


@pytest.mark.mlflow
class TestTrackingServer:
    """A run on a real server; nothing of the host that recorded it is at hand."""

    @pytest.fixture
    def config(self, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        monkeypatch.setenv("REPROD_CONFIG", str(tmp_path / "none.toml"))
        monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "elsewhere"))
        return load()

    @pytest.fixture
    def client(self, mlflow_server: str) -> Any:
        mlflow = pytest.importorskip("mlflow")
        return mlflow.MlflowClient(mlflow_server)

    @pytest.fixture
    def run_id(self, client: Any) -> str:
        return str(client.create_run("0").info.run_id)

    @pytest.fixture
    def record(self) -> Record:
        """An environment that no other test uses, since all share one server."""
        return Record(execution(1, 0), replace(ENVIRONMENT, variables={"OMP_NUM_THREADS": uuid.uuid4().hex}))

    def put(self, client: Any, run_id: str, folder: Path, contents: dict[str, bytes], at: str = "environment") -> None:
        folder.mkdir()
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        client.log_artifacts(run_id, str(folder), at)

    def test_a_run_alone(self, client: Any, config: Config, run_id: str, record: Record, tmp_path: Path) -> None:
        """What is on the run is the whole record, with no state of reprod's here."""
        self.put(client, run_id, tmp_path / "a", artifacts(record))
        found = resolve(tmp_path / "none", f"run:{run_id}", lambda: config)
        assert (found.source, found.run_id, found.record) == ("run", run_id, record)
        assert compare(found.record, record).verdict == "identical"

    def test_the_users_own_files_are_in_the_way(
        self, child: MlflowChild, client: Any, run_id: str, record: Record, tmp_path: Path
    ) -> None:
        """Then ours are under reprod/."""
        self.put(client, run_id, tmp_path / "a", {"environment.json": b'{"mine": 1}', "packages.json": b"[]"})
        self.put(client, run_id, tmp_path / "b", artifacts(record), "reprod/environment")
        assert fetch_environment(child, run_id) == record

    def test_packages_that_are_stored_once(
        self,
        state: State,
        child: MlflowChild,
        client: Any,
        run_id: str,
        record: Record,
        tmp_path: Path,
    ) -> None:
        """They come from the store run that is referred to, else from another with the digest; without any: 65.

        A run that an older daemon wrote again without its reference is read too.
        """
        digest = record.environment.digest()
        large = {"packages.json": artifacts(record)["packages.json"]}
        stored = ensure_environment_stored(Server(state.db, child, "http://t", tmp_path), digest, large)
        reference = {"digest": PREFIX + digest, "experiment": "x", "run_id": stored, "files": ["packages.json"]}
        small = {name: data for name, data in artifacts(record, reference).items() if name != "packages.json"}
        self.put(client, run_id, tmp_path / "a", small)
        assert fetch_environment(child, run_id) == record

        other_run = str(client.create_run("0").info.run_id)
        for folder, elsewhere in (("b", {**reference, "run_id": "0" * 32}), ("c", None)):
            lost = artifacts(record, elsewhere)
            self.put(client, other_run, tmp_path / folder, {name: lost[name] for name in small})
            assert fetch_environment(child, other_run) == record

        client.delete_run(stored)
        with pytest.raises(DamagedError, match="not on the tracking server any more"):
            fetch_environment(child, other_run)

    def test_packages_that_are_unknown(self, child: MlflowChild, client: Any, run_id: str, tmp_path: Path) -> None:
        """Are nowhere, and nothing is missing."""
        env = replace(ENVIRONMENT, packages=None, unknown={"packages": "timeout"})
        self.put(client, run_id, tmp_path / "a", artifacts(Record(execution(1, 0), env)))
        assert fetch_environment(child, run_id).environment == env

    def test_packages_of_another_environment(
        self, child: MlflowChild, client: Any, run_id: str, record: Record, tmp_path: Path
    ) -> None:
        """Nothing from the server is believed: 65."""
        others = artifacts(Record(record.execution, OTHER))
        self.put(client, run_id, tmp_path / "a", {**artifacts(record), "packages.json": others["packages.json"]})
        with pytest.raises(DamagedError):
            fetch_environment(child, run_id)

    def test_nothing_is_recorded(self, child: MlflowChild, client: Any, run_id: str, tmp_path: Path) -> None:
        """5 with the reason that the daemon left there; 4 for a run that is not there."""
        with pytest.raises(IncompleteError, match=r"no environment\.json"):
            fetch_environment(child, run_id)
        reason = json.dumps({"environment": None, "reason": "the process was gone"}).encode()
        self.put(client, run_id, tmp_path / "a", {"environment_unknown.json": reason}, "reprod")
        with pytest.raises(IncompleteError, match="the process was gone"):
            fetch_environment(child, run_id)
        with pytest.raises(NotFoundError):
            fetch_environment(child, "0" * 32)

    def test_what_the_state_knows_says_more(self, state: State, config: Config, run_id: str) -> None:
        """A run whose environment is unknown here and not on the server either."""
        state.run(run_id, None, unknown="permission")
        with pytest.raises(IncompleteError, match="permission"):
            state.resolve(f"run:{run_id}", lambda: config)

    def test_a_run_by_its_name_and_by_the_beginning_of_its_id(
        self, state: State, client: Any, config: Config, record: Record, tmp_path: Path
    ) -> None:
        """Found on the server as `reprod show` finds it, where the state does not know the run."""
        name = f"named-{tmp_path.name}-{os.getpid()}"
        run_id = str(client.create_run("0", run_name=name).info.run_id)
        self.put(client, run_id, tmp_path / "a", artifacts(record))
        for wanted in (name, run_id[:12], run_id):
            found = state.resolve(f"run:{wanted}", lambda: config)
            assert (found.run_id, found.record) == (run_id, record)
        with pytest.raises(NotFoundError, match="there is no run 'nobody'"):
            state.resolve("run:nobody", lambda: config)

    def test_no_server_answers(self, config: Config) -> None:
        """69."""
        gone = replace(config, mlflow=replace(config.mlflow, tracking_uri="http://127.0.0.1:9"))
        with pytest.raises(TrackingError):
            fetch_from_server(gone, "0" * 32)


def test_artifacts_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A file in the way of the folder is one clear error."""
    (tmp_path / "x").touch()
    with pytest.raises(StateError, match="cannot be written"):
        write_artifacts(Record(execution(1, 0), ENVIRONMENT), tmp_path / "x")
