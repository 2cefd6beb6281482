"""The control socket against people who mean harm: who may do what, by the kernel's word, and what no line can break.

Every daemon here is a real process. Other users are child processes that gave up their rights; the group ``reprod`` is
one of a mount namespace, so that nothing of this machine is changed. Times are seconds, sizes bytes.
"""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import eventually

from reprod.capture.process.identity import boot_id, start_ticks
from reprod.client import Client
from reprod.core.protocol import MAX_HANDOVER, MAX_LINE
from reprod.daemon.control import KEPT_CLIENTS, MAX_CLIENTS
from reprod.daemon.methods import METHODS
from reprod.errors import DaemonUnavailableError, UsageError

NOBODY, GROUP = 65534, 54321
READ = [name for name, (needs, _) in METHODS.items() if needs == "read"]
CHANGE = [name for name, (needs, _) in METHODS.items() if needs == "change"]

#: The product's own daemon with shorter patience, so that a test can wait for it.
IMPATIENT = (
    "from reprod.daemon import control; control.SEND_S = control.IDLE_S = 2.0; "
    "from reprod.__main__ import main; main(['daemon'])"
)

#: Becomes somebody else, then sends each line of its input over a connection of its own and prints the answers.
AS_SOMEBODY = """
import json, os, socket, sys
uid, gid, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
lines = sys.stdin.buffer.readlines()
os.setgroups([]); os.setgid(gid); os.setuid(uid)
for line in lines:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        try:
            s.connect(path)
        except PermissionError:
            print(json.dumps("no connection"))
            continue
        s.sendall(line)
        print(s.makefile().readline().strip())
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


@dataclass
class Served:
    """A daemon that listens at ``path``."""

    base: Path
    process: subprocess.Popen[bytes]

    @property
    def path(self) -> Path:
        return self.base / "run" / "control.sock"

    @property
    def state(self) -> Path:
        return self.base / "state"

    def connect(self, timeout_s: float = 30) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        connection.connect(str(self.path))
        return connection

    def send(self, data: bytes, *, end: bool = False) -> bytes:
        """Send bytes over a connection of their own; return all that comes until the daemon closes, or one line."""
        with self.connect() as connection:
            try:
                connection.sendall(data)
                if end:
                    connection.shutdown(socket.SHUT_WR)
                return (
                    connection.makefile("rb").readline()
                    if not end
                    else b"".join(iter(lambda: received(connection), b""))
                )
            except (BrokenPipeError, ConnectionResetError):
                return b""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.send(request(method, **params)))
        return answer

    def log(self) -> str:
        return (self.base / "log").read_text(errors="replace")

    def is_well(self) -> None:
        """Fail unless this very process answers somebody else, within the time-out of a connection."""
        assert self.process.poll() is None, self.log()[-3000:]
        assert self.call("hello")["result"]["pid"] == self.process.pid


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except ConnectionResetError:
        return b""


def request(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"


def code_of(answer: Any) -> int:
    return 0 if {"result", "method"} & set(answer) else int(answer["error"]["data"]["exit_code"])  # watch only notifies


def as_somebody(served: Served, uid: int, gid: int, *lines: bytes) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", AS_SOMEBODY, str(uid), str(gid), str(served.path)],
        input=b"".join(lines), capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def variables(base: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REPROD_", "MLFLOW_", "XDG_"))}
    places = {"REPROD_STATE_DIR": "state", "REPROD_CONFIG": "etc/reprod.toml", "REPROD_SOCKET": "run/control.sock"}
    return kept | {name: str(base / below) for name, below in places.items()} | more


@contextmanager
def place() -> Iterator[Path]:
    """Yield a folder that every user can reach (pytest's are its owner's only), with one small dataset."""
    base = Path(tempfile.mkdtemp(prefix="reprod-authority-"))
    try:
        base.chmod(0o755)
        (base / "etc" / "datasets.d").mkdir(parents=True)
        (base / "data").mkdir()
        (base / "data" / "a.csv").write_text("1\n")
        (base / "etc" / "reprod.toml").write_text("[scan]\nread_mb_per_second = 2\n")
        (base / "etc" / "datasets.d" / "tables.toml").write_text(f'path = "{base}/data"\n')
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def serving(base: Path, *command: str, umask: int = -1) -> Iterator[Served]:
    """Run the daemon, as ``command`` says, until the end of the block."""
    with (base / "log").open("ab") as log:
        process = subprocess.Popen(
            command or [sys.executable, "-m", "reprod", "daemon"],
            env=variables(base), cwd=base, stdout=log, stderr=log, stdin=subprocess.DEVNULL, umask=umask,
        )  # fmt: skip
    served = Served(base, process)
    try:

        def answers() -> bool:
            assert process.poll() is None, served.log()
            try:
                return "result" in served.call("hello")
            except OSError:
                return False

        eventually(answers, 30, "the daemon answers")
        yield served
    finally:
        process.kill()
        process.wait(10)


def as_user(uid: int, *command: str) -> list[str]:
    """Return a command that runs as ``uid``; it may read everything, since this Python may lie in root's home."""
    capability = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *capability, *command]


@pytest.fixture(scope="module")
def users_daemon() -> Iterator[Served]:
    """A daemon of an ordinary user's, started with the worst umask there is."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to start a daemon as somebody else")
    with place() as base:
        for path in [base, *base.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        with serving(base, *as_user(NOBODY, sys.executable, "-m", "reprod", "daemon"), umask=0) as served:
            yield served


@pytest.fixture(scope="module")
def system_daemon() -> Iterator[Served]:
    """A daemon of root's, on a machine where a group ``reprod`` exists with the user of uid 1 among its members."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare for a group of its own")
    with place() as base:
        import pwd

        lines = Path("/etc/group").read_text().splitlines()
        others = [line for line in lines if not line.startswith("reprod:")]
        (base / "group").write_text("\n".join([*others, f"reprod:x:{GROUP}:{pwd.getpwuid(1).pw_name}", ""]))
        (base / "run").mkdir(mode=0o755)
        shell = f"mount --bind {base}/group /etc/group && exec {sys.executable} -m reprod daemon"
        with serving(base, "unshare", "--mount", "sh", "-c", shell) as served:
            yield served


# --- who may do what -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "gid", "reads"),
    [(NOBODY, NOBODY, False), (NOBODY, GROUP, True), (1, 1, True)],
    ids=["stranger", "group", "listed member"],
)
def test_the_systems_daemon_answers_by_the_kernels_word(system_daemon: Served, uid: int, gid: int, reads: bool) -> None:
    """Acceptance 20: members of the group read, nobody but root and the daemon's user changes, anybody may announce."""
    answers = as_somebody(
        system_daemon,
        uid,
        gid,
        *(request(each, name="tables") for each in [*READ, *CHANGE]),
        request("announce", dataset="x"),
    )
    assert [code_of(a) for a in answers[: len(READ)]] == [0 if reads else 77] * len(READ)
    assert [code_of(a) for a in answers[len(READ) : -1]] == [77] * len(CHANGE)
    refusals = (f"this daemon does not answer uid {uid} (", f"this daemon lets uid {uid} change nothing (")
    assert all(a["error"]["message"].startswith(refusals) for a in answers if "error" in a)
    assert code_of(answers[-1]) == 0
    assert code_of(system_daemon.call("reload")) == 0, "root changes"
    refused = re.findall(r'"control.refused".*"uid": (\d+)', system_daemon.log())
    assert str(uid) in refused


def test_http_asks_who_it_is_too(system_daemon: Served) -> None:
    """The status over HTTP is for those who may read; that the daemon is well is for everybody."""
    with system_daemon.connect() as connection:
        connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200")
    code = AS_SOMEBODY.replace("lines = sys.stdin.buffer.readlines()", "lines = [sys.stdin.buffer.read()]").replace(
        "print(s.makefile().readline().strip())", "print(json.dumps(s.makefile().readline().split()[1]))"
    )
    for path, status in (("/v1/status", "403"), ("/healthz", "200")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(NOBODY), str(NOBODY), str(system_daemon.path)],
            input=f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), capture_output=True, timeout=30,
        )  # fmt: skip
        assert json.loads(done.stdout) == status, done.stderr


def test_nobody_speaks_for_anothers_process(system_daemon: Served) -> None:
    """An environment for a live process of another user is refused; one's own process's is taken."""
    sub = {"kind": "process", "host": "h", "boot_id": boot_id(), "how": "handover"}
    record = {"execution": {"subject": sub, "taken_ns": 1}, "environment": {}}

    def handover(pid: int) -> bytes:
        ticks = start_ticks(pid)
        context = {"v": 1, "host": "h", "boot_id": boot_id(), "pid": pid, "start_ticks": ticks, "prefix": "/x"}
        return request("handover", context=context, record=record)

    code = "import os, sys; os.setuid(65534); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as theirs:
        assert theirs.stdout is not None
        theirs.stdout.readline()
        lines = [handover(os.getpid()), handover(theirs.pid)]
        stranger, own = as_somebody(system_daemon, NOBODY, NOBODY, *lines)
        assert (code_of(stranger), code_of(own)) == (2, 0)
        assert code_of(as_somebody(system_daemon, 1, 1, lines[1])[0]) == 2
        theirs.communicate(timeout=10)


def test_a_users_daemon_is_that_users_alone(users_daemon: Served) -> None:
    """Its user and root may do everything, everybody else cannot even connect; a umask of 0 opens nothing."""
    assert stat.S_IMODE(users_daemon.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(users_daemon.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(users_daemon.state.stat().st_mode) == 0o700
    users_daemon.base.joinpath("run").chmod(0o755)  # even where the folder would let them through
    assert as_somebody(users_daemon, 1, 1, request("hello")) == ["no connection"]
    for uid in (NOBODY, 0):
        answers = as_somebody(users_daemon, uid, uid, request("status"), request("reload"))
        assert [code_of(answer) for answer in answers] == [0, 0]


def test_the_state_is_closed_to_others(users_daemon: Served) -> None:
    """Nothing below the state directory can be opened by another user, whatever umask the daemon was started with."""
    code = (
        "import os, sys\nos.setgroups([]); os.setgid(1); os.setuid(1)\n"
        "for name in sys.argv[1:]:\n"
        "    for flags in (os.O_RDONLY, os.O_WRONLY):\n"
        "        try:\n            os.open(name, flags | os.O_NONBLOCK); print(name)\n"
        "        except (PermissionError, IsADirectoryError):\n            pass\n"
    )
    inside = [str(path) for path in [users_daemon.state, *users_daemon.state.rglob("*")]]
    assert any(name.endswith("registry.sqlite") for name in inside)
    done = subprocess.run([sys.executable, "-c", code, *inside], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == ""


def test_the_socket_is_never_connectable_while_more_open(users_daemon: Served) -> None:
    """Acceptance 21: with a umask of 0, bind, then the mode, then listen: before listen nobody can connect."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    with place() as base:
        for path in [base, *base.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        trace = ["strace", "-D", "-f", "-o", str(base / "trace"), "-e", "trace=bind,chmod,fchmodat,listen"]
        try:
            with serving(base, *as_user(NOBODY, *trace, sys.executable, "-m", "reprod", "daemon"), umask=0) as served:
                seen = (base / "trace").read_text()
                name = re.escape(str(served.path))
        except AssertionError:
            pytest.skip("strace cannot trace here")
    order = [line for line in seen.splitlines() if re.search(rf"bind\(.*{name}|chmod.*{name}|listen\(", line)]
    steps = [re.sub(r"^\d+ +|\(.*", "", line) for line in order]
    assert steps[0] == "bind", order
    assert "chmod" in steps[1], order
    assert "0600" in order[1], order
    assert steps[2:] == ["listen"], order


# --- what lies where the socket should be ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_daemon() -> Iterator[Served]:
    """A daemon of this test's user, which loses patience after two seconds."""
    with place() as base, serving(base, sys.executable, "-c", IMPATIENT) as served:
        eventually(lambda: served.call("status")["result"]["datasets"][0]["state"] == "current", 20, "it is current")
        yield served


def test_a_living_daemons_socket_is_left_alone(own_daemon: Served) -> None:
    """Acceptance 22 and 23: a second daemon with another state but the same socket is 75, and the first answers on."""
    with place() as base:
        env = variables(base, REPROD_SOCKET=str(own_daemon.path))
        done = subprocess.run([sys.executable, "-m", "reprod", "daemon"], env=env, capture_output=True, timeout=60)
    assert done.returncode == 75, done.stderr
    assert b"another daemon listens" in done.stderr
    own_daemon.is_well()


def test_what_is_no_socket_is_never_removed() -> None:
    """REPROD_SOCKET by mistake names a file: the daemon says so and the file is still there."""
    with place() as base:
        (base / "run").mkdir()
        (base / "run" / "control.sock").write_text("my thesis")
        done = subprocess.run(
            [sys.executable, "-m", "reprod", "daemon"], env=variables(base), capture_output=True, timeout=60
        )
        assert (base / "run" / "control.sock").read_text() == "my thesis"
    assert done.returncode == 77, done.stderr
    assert b"is no socket" in done.stderr


def test_a_dead_daemons_socket_is_replaced() -> None:
    """Acceptance 23: what kill -9 left is no obstacle, and a clean stop leaves nothing."""
    with place() as base:
        with serving(base) as first:
            pass
        assert first.path.exists()
        with serving(base) as second:
            second.is_well()
            second.process.terminate()
            second.process.wait(10)
            assert not second.path.exists()


# --- what no line can break ------------------------------------------------------------------------------------------


def hello(served: Served) -> int:
    return int(served.call("hello")["result"]["pid"])


NESTED = b"[" * 950 + b"]" * 950
SUBJECT = {"kind": "process", "host": "h", "boot_id": boot_id(), "how": "x"}
RECORD = {"execution": {"subject": SUBJECT, "taken_ns": 1}, "environment": {}}
CONTEXT = {"v": 1, "host": "h", "boot_id": boot_id(), "pid": 3_999_999, "start_ticks": 1, "prefix": "/x"}


def taken(at_ns: int) -> dict[str, Any]:
    return {**RECORD, "execution": {"subject": SUBJECT, "taken_ns": at_ns}}


HOSTILE_LINES = {
    "empty": b"\n",
    "binary": bytes(range(256)).replace(b"\n", b"") + b"\n",
    "bad json": b'{"method": "hello", \n',
    "deep": b"[" * 200_000 + b"\n",
    "deep object": b'{"a":' * 100_000 + b"\n",
    "deep id": b'{"method":"hello","id":' + NESTED + b"}\n",
    "deep method": b'{"method":' + NESTED + b"}\n",
    "deep context": b'{"method":"announce","params":{"context":{"a":' + NESTED + b"}}}\n",
    "deep environment": b'{"method":"handover","params":{"context":1,"record":' + NESTED + b"}}\n",
    "odd id": b'{"method":"hello","id":NaN}\n',
    "no object": b"[1, 2, 3]\n",
    "list params": b'{"method":"status","params":[1]}\n',
    "a number of 5000 digits": b'{"method":"hello","id":' + b"9" * 5000 + b"}\n",
    "a time of 400 digits": request("handover", context=CONTEXT, record=taken(10**400)),
    "a time beyond 64 bits": request("handover", context=CONTEXT, record=taken(2**64)),
    "a time before all": request("handover", context=CONTEXT, record=taken(-(2**63))),
    "lone surrogate": request("handover", context=CONTEXT, record={**RECORD, "unknown": {"\udcff": "\ud800"}}),
    "a name of surrogates": request("purge", name="\udcff"),
    "a name of 900 KB": request("status", name="a" * 900_000),
    "many commas": request("announce", dataset="a," * 400_000),
    "wide": b'{"method":"hello","params":{"x":[' + b"[]," * 340_000 + b"[]]}}\n",
    "wide and too long": b'{"method":"hello","params":{"x":[' + b"[]," * 2_500_000 + b"[]]}}\n",
    "a wide handover": b'{"method":"handover","params":{"x":[' + b"[]," * 2_500_000 + b'[]],"context":1}}\n',
    "one byte too long": request("hello", x="a" * (MAX_LINE + 1 - len(request("hello", x="")) + 1)),
    "utf-16": '{"method":"hello"}\n'.encode("utf-16"),
    "a FIFO's worth of zeros": bytes(300_000) + b"\n",
}  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE_LINES.values(), ids=HOSTILE_LINES.keys())
def test_a_hostile_line_costs_its_own_connection_only(own_daemon: Served, line: bytes) -> None:
    """Acceptance 32: an error or the end of the connection, and the daemon answers others at once."""
    answer = own_daemon.send(line)
    if answer:
        said = json.loads(answer)
        assert ("result" in said) != ("error" in said)
        assert len(answer) < 4096, "nobody gets eight megabytes of their own back"
    own_daemon.is_well()


def test_the_longest_lines(own_daemon: Served) -> None:
    """64 KiB are a request, one byte more is refused by its length; a handover may have 8 MiB, beyond it nothing is.
    The client's limits are these, to the byte."""
    filler = MAX_LINE - len(request("hello", x="")) + 1
    assert "result" in json.loads(own_daemon.send(request("hello", x="a" * filler)))
    assert f"over {MAX_LINE} bytes" in own_daemon.send(request("hello", x="a" * (filler + 1))).decode()
    longest = handover_of(MAX_HANDOVER)
    for pieces in ([longest], [longest[:-1], longest[-1:]]):
        with own_daemon.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            assert "result" in json.loads(connection.makefile("rb").readline())
    assert own_daemon.send(handover_of(MAX_HANDOVER + 1), end=True) == b""
    own_daemon.is_well()

    with Client(own_daemon.path, timeout_s=10) as client:
        assert client.call("hello", {"x": "a" * filler})
        with pytest.raises(UsageError, match=f"{MAX_LINE + 1} bytes"):
            client.call("hello", {"x": "a" * (filler + 1)})
        for size, taken in ((MAX_HANDOVER, True), (MAX_HANDOVER + 1, False)):
            params = json.loads(handover_of(size))["params"]
            if taken:
                assert client.call("handover", params)["digest"]
                client.close()
            else:
                with pytest.raises(UsageError, match=f"{size} bytes"):
                    client.call("handover", params)


def handover_of(size: int) -> bytes:
    """Return a handover of so many bytes, without the end of its line."""

    def of(note: int) -> bytes:
        return request("handover", context=CONTEXT, record={**RECORD, "more": "n" * note})

    return of(size + 1 - len(of(0)))


def test_half_a_line_and_away(own_daemon: Served) -> None:
    """Half a request is none, however its sender leaves; one that never ends is closed by the daemon."""
    for half in (b"", b"{", request("purge", name="tables")[:-1], b"GET /v1/sta"):
        assert own_daemon.send(half, end=True) == b""
    with own_daemon.connect() as idle:
        idle.sendall(b'{"method": "hel')
        assert received(idle) == b"", "closed after two seconds in this daemon"
    own_daemon.is_well()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nhOsT: LOCALHOST:9464\r\n", 200),
        (b"GET /v1/status HTTP/1.0\r\n", 200),
        (b"GET /v1/status HTTP/1.1\r\nHost: evil.example\r\n", 403),
        (b"GET /v1/status HTTP/1.1\r\nHost: localhost.evil.example\r\n", 403),
        (b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n", 403),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\norigin: null\r\n", 403),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n", 404),
        (b"GET  HTTP/1.1\r\nHost: localhost\r\n", 404),
        (b"POST /v1/status HTTP/1.1\r\nHost: localhost\r\n", 405),
        (b"DELETE / HTTP/1.1\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nOrigin: http://evil.example\r\n", 405),
    ],
)
def test_http_is_for_this_machine_and_for_reading(own_daemon: Served, head: bytes, status: int) -> None:
    """Acceptance 33: a foreign Host or any Origin is 403, anything but GET 405, and a body is never taken for calls."""
    reloads = own_daemon.log().count("config.reloaded")
    answer = own_daemon.send(head + b"\r\n" + request("reload"), end=True)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    head_, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head_ + b"\r\n"
    assert json.loads(body)
    own_daemon.is_well()
    assert own_daemon.log().count("config.reloaded") == reloads


def test_a_line_that_is_no_request_ends_the_connection(own_daemon: Served) -> None:
    """What a browser or a broken client sends after its first line is not looked at: it may be a request's body."""
    reloads = own_daemon.log().count("config.reloaded")
    answers = own_daemon.send(b"Host: localhost\r\n" + request("reload"), end=True)
    assert [set(json.loads(line)) for line in answers.splitlines()] == [{"jsonrpc", "id", "error"}]
    own_daemon.is_well()
    assert own_daemon.log().count("config.reloaded") == reloads


def test_endless_headers_are_cut(own_daemon: Served) -> None:
    """Headers have a number and a length, also the same one again and again."""
    for header in (b"X: y\r\n" * 500, b"X" * 20_000):
        assert own_daemon.send(b"GET /healthz HTTP/1.1\r\n" + header, end=True) == b""
    own_daemon.is_well()


def test_the_65th_client_is_told_to_wait(own_daemon: Served) -> None:
    """64 connections that say nothing keep others out for two seconds, here; one more hears it; then there is room."""
    silent: list[socket.socket] = []
    with ExitStack() as stack:

        def is_refused() -> bool:
            """Open all anew: a busy machine may take so long that the first are closed when the last is opened."""
            stack.close()
            silent[:] = [stack.enter_context(own_daemon.connect()) for _ in range(MAX_CLIENTS)]
            try:
                with Client(own_daemon.path, timeout_s=10) as client:
                    client.call("hello")
            except DaemonUnavailableError as error:
                return "too many connections" in error.message
            return False

        eventually(is_refused, 30, "one more is refused")
        # Refused, it may be reset before it has read why.
        eventually(lambda: b"result" in own_daemon.send(request("hello")), 10, "idle connections are closed")
        assert received(silent[0]) == b""


@needs_root
def test_another_user_cannot_take_all_connections(system_daemon: Served) -> None:
    """However many a stranger opens, root still gets through."""
    code = AS_SOMEBODY.replace(
        "for line in lines:",
        "held = [socket.socket(socket.AF_UNIX) for _ in range(100)]\n"
        "for s in held: s.settimeout(10); s.connect(path)\n"
        "held[-1].sendall(b'\\n'); print(held[-1].makefile().readline().strip(), flush=True); input()\nfor line in ():",
    ).replace("lines = sys.stdin.buffer.readlines()", "lines = []")
    command = [sys.executable, "-c", code, str(NOBODY), str(NOBODY), str(system_daemon.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        assert b"too many connections" in stranger.stdout.readline()
        daemon = psutil.Process(system_daemon.process.pid)

        def taken() -> int:
            return sum(1 for each in daemon.net_connections("unix") if each.laddr == str(system_daemon.path))

        eventually(lambda: taken() <= KEPT_CLIENTS + 1, 10, "half are left, and the listener")
        assert taken() >= KEPT_CLIENTS
        system_daemon.is_well()
        stranger.communicate(b"\n", timeout=10)


@needs_root
def test_another_users_calls_are_counted(system_daemon: Served) -> None:
    """Refused calls count too, so that nobody fills the log: after 300 in ten seconds there is one line to read."""
    lines_before = system_daemon.log().count("control.refused")
    answers = as_somebody(system_daemon, 2, 2, *[request("purge", name="x")] * 320)
    assert {code_of(answer) for answer in answers} == {77}
    assert "over 300 calls" in answers[-1]["error"]["message"]
    assert system_daemon.log().count("control.refused") - lines_before <= 300


def test_a_reader_that_never_reads(own_daemon: Served) -> None:
    """A client that asks and asks and takes no answer is closed, and nobody waits for it meanwhile."""
    with own_daemon.connect() as greedy:
        greedy.settimeout(0.2)
        try:
            while True:
                greedy.sendall(request("status") * 50)
        except TimeoutError:
            pass
        for _ in range(20):
            own_daemon.is_well()
        eventually(lambda: is_closed(greedy), 10, "the daemon gives it up")
    own_daemon.is_well()


def is_closed(connection: socket.socket) -> bool:
    try:
        connection.send(b" ")
    except (BrokenPipeError, ConnectionResetError):
        return True
    except TimeoutError:
        pass
    return False


def test_who_leaves_in_the_middle_of_a_scan_leaves_it_running(own_daemon: Served) -> None:
    """Ctrl-C in ``reprod scan``: the progress finds nobody, the walk ends all the same, and so does the daemon not."""
    big = own_daemon.base / "data" / "big.bin"
    big.write_bytes(os.urandom(3 << 20))  # 1.5 s at 2 MB a second
    with own_daemon.connect() as connection:
        connection.sendall(request("scan", name="tables", full=True))
        assert b'"progress"' in connection.makefile("rb").readline()
    eventually(lambda: own_daemon.call("status")["result"]["datasets"][0]["files"] == 2, 20, "the walk has ended")
    own_daemon.is_well()
    big.unlink()


def test_descriptors_run_out_and_come_back() -> None:
    """With 40 descriptors in all, clients that cannot be taken wait; when they are gone the daemon answers."""
    shell = f"ulimit -n 40; exec {sys.executable} -m reprod daemon"
    with place() as base, serving(base, "sh", "-c", shell) as served:
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(served.connect())
            eventually(lambda: len(os.listdir(f"/proc/{served.process.pid}/fd")) >= 39, 10, "they are used up")
        eventually(lambda: code_of(served.call("hello")) == 0, 10, "it answers again")


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PARAMS: dict[str, Any] = {
    "name": "tables", "full": False, "accept_root": False, "run_id": "r", "dataset": "tables", "dry_run": True,
    "moving_to": "/x", "renaming_to": "y", "context": CONTEXT, "record": RECORD, "execution": RECORD["execution"],
    "tracking_uri": "u", "which": "all", "limit": 5, "run": "run:x", "kind": "versions", "path": "/x",
}  # fmt: skip
TAKES = {
    "hello": (), "status": ("name",), "reload": (), "scan": ("name", "full", "accept_root"),
    "outlook": ("name",), "snapshot": ("name", "run_id"), "purge": ("name",), "prune": ("name", "dry_run"),
    "intend": ("name", "moving_to", "renaming_to"), "announce": ("context", "run_id", "dataset", "tracking_uri"),
    "handover": ("context", "record", "execution"), "watch": ("name",), "runs": ("which", "limit"), "retry": ("run",),
    "complete": ("kind", "name"), "look": ("path",),
}  # fmt: skip


def test_every_method_is_fuzzed() -> None:
    """A method that is added without its parameters here would go untested."""
    assert set(TAKES) == set(METHODS)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is right but for one thing: a parameter, a member of one, or the frame around it."""
    method = draw(st.sampled_from(sorted(TAKES)))
    params = {key: PARAMS[key] for key in TAKES[method]}
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    if not params or draw(st.integers(0, 9)) == 0:
        message[draw(st.sampled_from(sorted(message)))] = draw(values)
        return json.dumps(message).encode() + b"\n"
    key = draw(st.sampled_from(sorted(params)))
    if isinstance(params[key], dict) and draw(st.booleans()):
        inner = draw(st.sampled_from(sorted(params[key])))
        params[key] = {**params[key], inner: draw(values)}
    else:
        params[key] = draw(values)
    return json.dumps(message).encode() + b"\n"


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(line=requests())
def test_wrong_types_are_the_callers_error(own_daemon: Served, line: bytes) -> None:
    """Whatever is in a parameter, the answer is a result or a documented error, never a bug of the daemon's."""
    answer = json.loads(own_daemon.send(line).splitlines()[-1])
    assert code_of(answer) in {0, 2, 4, 5, 6, 65, 69, 77}, answer
    assert own_daemon.process.poll() is None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.lists(st.binary(max_size=60) | st.sampled_from([b"\n", b"{", b'"method"', b"GET /", b" HTTP/1.1\r\n"])))
def test_any_bytes_at_all(own_daemon: Served, data: list[bytes]) -> None:
    """Bytes in any order, cut anywhere: the daemon lives."""
    own_daemon.send(b"".join(data), end=True)
    assert own_daemon.process.poll() is None


def test_others_are_answered_while_it_is_attacked(own_daemon: Served) -> None:
    """Acceptance 32: with three attackers at work every call is answered; how soon is a figure."""
    stop = threading.Event()
    lines = [HOSTILE_LINES[name] for name in ("deep", "wide", "wide and too long", "binary", "a name of 900 KB")]

    def attack() -> None:
        while not stop.is_set():
            for line in lines:
                try:
                    own_daemon.send(line)
                except OSError:
                    pass

    attackers = [threading.Thread(target=attack) for _ in range(3)]
    for each in attackers:
        each.start()
    times = []
    try:
        for _ in range(100):
            began = time.perf_counter()
            own_daemon.call("hello")
            times.append(time.perf_counter() - began)
    finally:
        stop.set()
        for each in attackers:
            each.join(30)
    times.sort()
    middle, most = times[50] * 1000, times[-1] * 1000
    print(f"\nfigures: under attack, half of the calls take {middle:.0f} ms, none over {most:.0f} ms", end="")
    assert own_daemon.process.poll() is None


#: Becomes somebody else, and floods the socket for some seconds with lines of one kind; prints how many were sent, and
#: taken.
FLOOD = """
import json, os, socket, sys, time
uid, path, kind, context = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
context["pid"] = os.getpid()
context["start_ticks"] = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
lines = {
    "announce": {"method": "announce", "params": {"context": context, "dataset": "tables"}},
    "handover": {"method": "handover", "params": {"context": context, "record": json.loads(sys.argv[5])}},
    "wide": {"method": "handover", "params": {"record": [[]] * 340_000}},
}
lines["long"] = {**lines["announce"], "more": "n" * 7_000_000}
line = json.dumps({"id": 1, **lines[kind]}, separators=(",", ":")).encode() + b"\\n"
sent, taken, until = 0, 0, time.monotonic() + 2.5
print(flush=True)
while time.monotonic() < until:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        try:
            s.connect(path)
            sent += 1
            s.sendall(line)
            taken += "result" in s.makefile().readline()
        except OSError:
            pass
print(sent, taken)
"""


@needs_root
@pytest.mark.parametrize(("kind", "most"), [("announce", 300), ("handover", 300), ("wide", 0), ("long", 0)])
def test_a_flood_of_one_user_holds_nobody_up(system_daemon: Served, kind: str, most: int) -> None:
    """With two processes of one user at it others are answered; of the flood only so many are, and a line that is too
    much costs the daemon a part of what it would if it were read."""
    uid = str(5001 + ["announce", "handover", "wide", "long"].index(kind))
    arguments = [uid, str(system_daemon.path), kind, json.dumps(CONTEXT), json.dumps(RECORD)]
    attackers = [
        subprocess.Popen([sys.executable, "-c", FLOOD, *arguments], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    times, daemon = [], psutil.Process(system_daemon.process.pid)
    before = sum(daemon.cpu_times()[:2])
    with ExitStack() as stack:
        outputs = [stack.enter_context(each).stdout for each in attackers]
        for output in outputs:
            assert output is not None
            output.readline()
        while all(each.poll() is None for each in attackers):
            began = time.perf_counter()
            assert system_daemon.call("hello")["result"]["pid"]
            times.append(time.perf_counter() - began)
            time.sleep(0.005)  # of these seconds some hundreds of samples; the machine's other half is the attackers'
        told = [output.read().split() for output in outputs if output is not None]
    sent, taken = (sum(int(each[i]) for each in told) for i in range(2))
    spent_s = (sum(daemon.cpu_times()[:2]) - before) / (sent + len(times))
    times.sort()
    middle, late = times[len(times) // 2] * 1000, times[len(times) * 9 // 10] * 1000
    print(
        f"\nfigures: flood of {kind}: {sent:,} lines, {taken} taken, {spent_s * 1000:.2f} ms each of the daemon; "
        f"half of the others' calls take {middle:.0f} ms, nine of ten {late:.0f} ms",
        end="",
    )
    assert taken <= most
    assert kind != "wide" or spent_s < cost_of_reading_s([[]] * 340_000) / 2


def cost_of_reading_s(record: list[Any]) -> float:
    """Return what a line with this record costs who reads it, in seconds of a processor."""
    line = json.dumps({"id": 1, "method": "handover", "params": {"record": record}}, separators=(",", ":"))
    began = time.thread_time()
    json.loads(line)
    return time.thread_time() - began


def test_nothing_is_left_of_it_all(own_daemon: Served) -> None:
    """Acceptance 32: after all of it the same descriptors are open, memory is what it was, and no bug was logged."""
    process = psutil.Process(own_daemon.process.pid)

    def battery() -> None:
        for line in HOSTILE_LINES.values():
            own_daemon.send(line)

    eventually(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) < 60, 10, "connections are closed")
    battery()
    files, memory = len(os.listdir(f"/proc/{process.pid}/fd")), process.memory_info().rss
    for _ in range(3):
        battery()
    eventually(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) <= files, 10, "descriptors are given back")
    assert process.memory_info().rss - memory < 48 << 20  # three batteries are more than twice as much
    assert memory < 400 << 20
    assert "daemon.bug" not in own_daemon.log()
    assert hello(own_daemon) == process.pid
