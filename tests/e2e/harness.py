"""The real daemon as a process of its own, and what end-to-end tests need to see and do around it.

Every wait goes through ``eventually``, which has a bound and says what did not happen. Only processes that were started
here are ended, by pid: the daemon and its children. Times are seconds.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from waiting import eventually

from reprod.client import Client
from reprod.errors import DaemonUnavailableError
from reprod.fs.watch_inotify import BEAT_S

SLACK_S = 0.25  # the daemons' clock_slack_seconds here: without reprod.context nothing is proven within it
READY_S = 30.0  # importing everything on a busy machine takes seconds
CAPTURED_S = 30.0
#: It leaves after 1.8 s whatever hangs (``daemon.signals``); the rest is a slow machine's. What hangs in a test does so
#: for longer than this.
STOPPED_S = 30.0

#: The daemon as it is installed, and one that waits a quarter as long between two seals and after a first failure, for
#: tests in which neither is at stake. ``QUICKER`` begins programs of a test's own.
REAL = ("-m", "reprod", "daemon")
QUICKER = (
    "from reprod.daemon import schedule, watcher; schedule.SEAL_SPACING_S = schedule.FIRST_RETRY_S = 0.25; "
    "watcher.WatchService.__init__.__kwdefaults__['first_wait_s'] = 0.25; "
)
QUICK = ("-c", f"import sys; {QUICKER}from reprod.__main__ import main; sys.exit(main(['daemon']))")


def is_running(pid: int) -> bool:
    """Return whether ``pid`` is a live process; a zombie is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Place:
    """Configuration and state of one daemon, in folders of their own below ``base``."""

    base: Path
    tracking_uri: str = ""
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_config()

    @property
    def config(self) -> Path:
        return self.base / "etc" / "reprod.toml"

    @property
    def folder(self) -> Path:
        return self.base / "etc" / "datasets.d"

    @property
    def state(self) -> Path:
        return self.base / "state"

    @property
    def socket(self) -> Path:
        return self.state / "control.sock"

    def write_config(self) -> None:
        """Write reprod.toml: polls every 0.5 s and a slack of ``SLACK_S`` unless ``settings`` says otherwise."""
        mlflow = {
            "tracking_uri": self.tracking_uri,
            "poll_seconds": 0.5,
            "clock_slack_seconds": SLACK_S,
            **self.settings.get("mlflow", {}),
        }
        sections = {**self.settings, "mlflow": mlflow}
        lines = [
            f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in t.items()) for name, t in sections.items()
        ]
        self.config.write_text("\n".join(lines))

    def register(self, name: str, path: Path, **keys: object) -> None:
        """Write the dataset's file; a running daemon reads it at its next reload."""
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {"path": str(path), **keys}.items())
        (self.folder / f"{name}.toml").write_text(text)

    def variables(self) -> dict[str, str]:
        """Return the environment of the daemon, and of users' scripts that shall find it."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "REPROD_", "XDG_"))}
        return kept | {"REPROD_STATE_DIR": str(self.state), "REPROD_CONFIG": str(self.config)} | dict(self.environ)

    def cli(self, *argv: str, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run one command of the command line to its end."""
        return subprocess.run(
            [sys.executable, "-m", "reprod", *argv],
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


class Daemon:
    """One daemon at a ``Place``; started, ended and started again by the test."""

    def __init__(self, place: Place, program: tuple[str, ...] = REAL) -> None:
        self.place = place
        self.program = program
        self.log_path = place.base / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._children: set[int] = set()

    def launch(self) -> None:
        """Start the process and do not wait for anything."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.place.variables(),
                cwd=self.place.base,
            )

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.launch()
        eventually(self.answers, READY_S, lambda: f"the daemon answers; its log: {self.tail()}")

    def answers(self) -> bool:
        """Return whether this very process answers on the socket; fail if it has ended."""
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"the daemon ended with {code}: {self.tail()}"
        try:
            return bool(self.call("hello")["pid"] == self.process.pid)
        except DaemonUnavailableError:
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def call(self, method: str, timeout_s: float = 30, **params: Any) -> dict[str, Any]:
        """Return what the daemon answers on its control socket."""
        with Client(self.place.socket, timeout_s=timeout_s) as client:
            return client.call(method, params)

    def status(self) -> dict[str, Any]:
        """Return the status document."""
        return self.call("status")

    def dataset(self, name: str) -> dict[str, Any]:
        """Return one dataset's part of the status."""
        return next(d for d in self.status()["datasets"] if d["name"] == name)

    def sealed(self, name: str, version: int, timeout_s: float = 15) -> dict[str, Any]:
        """Wait until the dataset is current at ``version`` or a later one; return its status."""

        def current() -> dict[str, Any] | None:
            shown = self.dataset(name)
            return shown if shown["state"] == "current" and (shown["version"] or 0) >= version else None

        found = eventually(current, timeout_s, lambda: f"{name} is current at version {version}; {self.tail()}")
        assert found is not None
        return found

    def wait_event(self, name: str, timeout_s: float = 15, **values: object) -> dict[str, Any]:
        """Wait for a log event with these values, since the last start of a daemon here or before."""

        def seen() -> list[dict[str, Any]]:
            return [e for e in self.events(name) if all(e.get(key) == value for key, value in values.items())]

        return eventually(seen, timeout_s, lambda: f"event {name} {values}; {self.tail()}")[-1]

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log lines as objects, of one event or all."""
        lines = self.log_path.read_bytes().splitlines() if self.log_path.exists() else []
        parsed = [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
        return [event for event in parsed if name is None or event.get("event") == name]

    def tail(self) -> str:
        """Return the end of the log, for the message of a failure; long enough for the stacks of a crash."""
        return self.log_path.read_text(errors="replace")[-9000:] if self.log_path.exists() else "(no log)"

    def children(self) -> set[int]:
        """Return the pids of all processes below the daemon now; remembered, so that none outlives the test."""
        if self.process is not None and self.process.poll() is None:
            try:
                self._children |= {child.pid for child in psutil.Process(self.pid).children(recursive=True)}
            except psutil.NoSuchProcess:
                pass
        return {pid for pid in self._children if is_running(pid)}

    def kill(self) -> None:
        """SIGKILL the daemon alone; its children have to notice by themselves."""
        if self.process is not None:
            self.children()
            self.process.kill()
            self.process.wait(30)

    def terminate(self, within_s: float = 60) -> tuple[int, float]:
        """SIGTERM the daemon; return its exit code and how long it took."""
        assert self.process is not None
        self.children()
        began = time.monotonic()
        self.process.terminate()
        code = self.process.wait(within_s)
        return code, time.monotonic() - began

    def restart(self) -> None:
        """SIGKILL and start again."""
        self.kill()
        self.start()

    def end(self) -> None:
        """End everything that was started here, whatever state it is in."""
        self.kill()
        for pid in self.children():
            try:
                psutil.Process(pid).kill()
            except psutil.NoSuchProcess:
                continue


@contextmanager
def running_daemon(
    base: Path,
    tracking_uri: str = "",
    datasets: Mapping[str, Path] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    program: tuple[str, ...] = QUICK,
    **settings: Mapping[str, object],
) -> Iterator[Daemon]:
    """Yield a daemon that answers, with its own state and configuration below ``base``; end it and its children."""
    place = Place(base, tracking_uri, settings, environ or {})
    for name, path in (datasets or {}).items():
        place.register(name, path)
    daemon = Daemon(place, program)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.end()


class Tracker:
    """The tracking server as a user's scripts see it, in an experiment of this test's own."""

    def __init__(self, client: Any, uri: str, experiment: str) -> None:
        self.client, self.uri, self.experiment = client, uri, experiment

    def start_run(self, dataset: str | None = None, *, context: str | None = None, **tags: str) -> str:
        """Start a run by the API alone (no context provider); return its id."""
        given = {"reprod.dataset": dataset, "reprod.context": context, **tags}
        run = self.client.create_run(self.experiment, tags={k: v for k, v in given.items() if v is not None})
        return str(run.info.run_id)

    def finished_run(self, dataset: str | None = None, **more: Any) -> str:
        """Start a run and finish it."""
        run_id = self.start_run(dataset, **more)
        self.client.set_terminated(run_id)
        return run_id

    def tag(self, run_id: str, dataset: str) -> None:
        self.client.set_tag(run_id, "reprod.dataset", dataset)

    def ours(self, run_id: str) -> dict[str, str]:
        """Return the run's ``reprod.*`` tags."""
        tags = self.client.get_run(run_id).data.tags
        return {key: value for key, value in tags.items() if key.startswith("reprod.")}

    def wait_state(self, run_id: str, state: str = "captured", timeout_s: float = CAPTURED_S) -> dict[str, str]:
        """Wait until the run has this ``reprod.state``; return its ``reprod.*`` tags."""
        found: dict[str, str] = {}

        def there() -> bool:
            found.clear()
            found.update(self.ours(run_id))
            return found.get("reprod.state") == state

        eventually(there, timeout_s, lambda: f"run {run_id} is {state}; it has {found}")
        return dict(found)

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self.client.get_run(run_id).data.params)

    def wait_params(self, run_id: str, *keys: str) -> dict[str, str]:
        """Wait until the run has all of these params; return all it has."""
        eventually(lambda: set(keys) <= set(self.params(run_id)), CAPTURED_S, f"run {run_id} has params {keys}")
        return self.params(run_id)

    def artifacts(self, run_id: str, folder: str = "") -> list[str]:
        """Return the paths of all files of the run, sorted."""
        found: list[str] = []
        for info in self.client.list_artifacts(run_id, folder or None):
            found += self.artifacts(run_id, info.path) if info.is_dir else [info.path]
        return sorted(found)

    def read(self, run_id: str, path: str, into: Path) -> bytes:
        """Return the content of one artifact, downloaded through the server into ``into``."""
        into.mkdir(parents=True, exist_ok=True)
        return Path(self.client.download_artifacts(run_id, path, str(into))).read_bytes()

    def history(self, run_id: str, key: str) -> list[float]:
        """Return every point that was ever logged for a metric."""
        return [point.value for point in self.client.get_metric_history(run_id, key)]


def dt1(root: Path) -> str:
    """Return the digest as the contract defines it, computed independently of reprod (files, folders, symlinks)."""
    node = _node(os.fsencode(root))
    return "dt1:" + (node or hashlib.sha256(b"").hexdigest())


def _node(folder: bytes) -> str | None:
    lines = []
    for entry in os.scandir(folder):
        escaped = entry.name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        flag = b"\\" if escaped != entry.name else b""
        if entry.is_symlink():
            target = hashlib.sha256(os.readlink(entry.path)).hexdigest().encode()
            lines.append((entry.name, b"#L " + flag + target + b"  " + escaped + b"\n"))
        elif entry.is_dir():
            below = _node(entry.path)
            if below is not None:
                lines.append((entry.name + b"/", flag + below.encode() + b"  " + escaped + b"/\n"))
        elif entry.is_file():
            content = hashlib.sha256(Path(os.fsdecode(entry.path)).read_bytes()).hexdigest().encode()
            lines.append((entry.name, flag + content + b"  " + escaped + b"\n"))
    return hashlib.sha256(b"".join(line for _, line in sorted(lines))).hexdigest() if lines else None


def let_slack_pass() -> None:
    """Wait until what happened until now is older than the slack, so that a run that starts now is provable."""
    _let_pass(SLACK_S + 0.05)


def let_events_tell_apart() -> None:
    """Wait until a change that comes now is provably later than what happened until now, by events alone."""
    _let_pass(SLACK_S + 3 * BEAT_S)


def _let_pass(seconds: float) -> None:
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > until, seconds + 5, "time passes")


def make_data(root: Path, count: int = 4) -> Path:
    """Make a small real dataset: files at the top and in a folder, an empty file, a symlink, an odd name."""
    (root / "sub").mkdir(parents=True)
    for i in range(count):
        (root / ("sub" if i % 2 else ".") / f"part-{i}.csv").write_text(f"id,value\n{i},{i * i}\n")
    (root / "empty.txt").touch()
    (root / "latest").symlink_to("sub/part-1.csv")
    (root / "odd\nname.txt").write_text("odd")
    return root
