"""The read-only HTTP of a real daemon, over its socket and over TCP: who gets what, and what nobody can do to it.

Acceptance 33 of the service. Times are seconds.
"""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from waiting import eventually

from reprod.config import DaemonConfig, checks
from reprod.daemon.http import DEGRADED, PATHS
from reprod.daemon.listen import MAX_CLIENTS, RATE, is_loopback, may_be_sent
from reprod.daemon.metrics import CONTENT_TYPE, FAMILIES
from reprod.daemon.requests import MAX_HEADERS

#: The daemon with shorter patience and more of its allowance, so that a test need not wait.
IMPATIENT = (
    "from reprod.daemon import listen; listen.HEAD_S = listen.SEND_S = 2.0; "
    "listen.FIRST_RETRY_S = listen.LONGEST_RETRY_S = 0.2; listen.RATE = int({rate}); "
    "from reprod.__main__ import main; main(['daemon'])"
)


@dataclass
class Served:
    """A daemon with one dataset, below ``base``."""

    base: Path
    process: "subprocess.Popen[bytes]"
    port: int

    def write(self, listen: str) -> None:
        (self.base / "etc" / "reprod.toml").write_text(f"[daemon]\nlisten = {json.dumps(listen)}\n")

    def talk(self, data: bytes, *, family: int = socket.AF_INET, port: int | None = None, end: bool = False) -> bytes:
        """Send bytes over TCP (or, with AF_UNIX, the socket) and return all that comes."""
        unix = family == socket.AF_UNIX
        where: Any = str(self.base / "sock") if unix else ("::1" if family == socket.AF_INET6 else "127.0.0.1")
        with socket.socket(family) as connection:
            connection.settimeout(30)
            connection.connect(where if unix else (where, port or self.port))
            try:
                connection.sendall(data)
                if end:
                    connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(1 << 16), b""))
            except (BrokenPipeError, ConnectionResetError):
                return b""

    def get(self, path: str, *headers: str, method: str = "GET", **how: Any) -> tuple[int, dict[str, str], bytes]:
        """Return code, headers and body of one request."""
        lines = (f"{method} {path} HTTP/1.1", *headers, "", "")
        head, _, body = self.talk("\r\n".join(lines).encode(), **how).partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in rest), body

    def call(self, method: str) -> dict[str, Any]:
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode() + b"\n"
        result: dict[str, Any] = json.loads(self.talk(line, family=socket.AF_UNIX, end=True))["result"]
        return result

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one sample."""
        text = self.get("/metrics", family=socket.AF_UNIX)[2].decode()
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return next(s.value for s in samples if s.name == name and s.labels == labels)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.base / "log").read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def listens(self) -> str:
        return str(self.call("status")["listen"]["state"])

    def is_well(self) -> None:
        assert self.process.poll() is None, (self.base / "log").read_text()[-3000:]
        assert self.get("/healthz")[0] == 200


def start(base: Path, listen: str, port: int, rate: int = 10**6) -> Served:
    (base / "etc" / "datasets.d").mkdir(parents=True)
    (base / "data").mkdir()
    for name in ("a", "b", "c"):
        (base / "data" / name).write_text(name * 10)
    (base / "etc" / "datasets.d" / "letters.toml").write_text(f"path = {json.dumps(str(base / 'data'))}\n")
    (base / "etc" / "reprod.toml").write_text(f"[daemon]\nlisten = {json.dumps(listen)}\n")
    return launch(base, port, rate)


def launch(base: Path, port: int, rate: int = 10**6, state: str = "current") -> Served:
    """Start a daemon where one was made or has been; return when its dataset is in that state."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "REPROD_", "XDG_"))}
    places = {"STATE_DIR": base / "state", "CONFIG": base / "etc" / "reprod.toml", "SOCKET": base / "sock"}
    environment = kept | {f"REPROD_{key}": str(path) for key, path in places.items()}
    code = IMPATIENT.format(rate=rate)
    with (base / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stderr=log, stdout=log, env=environment, cwd=base)
    served = Served(base, process, port)

    def up() -> bool:
        assert process.poll() is None, (base / "log").read_text()[-3000:]
        try:
            return bool(served.call("status")["datasets"][0]["state"] == state)
        except (FileNotFoundError, ConnectionRefusedError):  # not made yet, or not listened on
            return False

    try:
        eventually(up, 30, "the daemon is up")
    except BaseException:
        stop(served)
        raise
    return served


def stop(served: Served) -> None:
    served.process.terminate()
    try:
        served.process.wait(10)
    except subprocess.TimeoutExpired:
        served.process.kill()
        served.process.wait(10)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = free_port()
    daemon = start(tmp_path_factory.mktemp("http"), f"127.0.0.1:{port}", port)
    try:
        eventually(lambda: daemon.listens() == "listening", 10, "it listens")
        yield daemon
    finally:
        stop(daemon)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Yield a function that starts a daemon of the test's own."""
    with ExitStack() as stack:

        def begin(listen: str, port: int, **more: Any) -> Served:
            daemon = start(tmp_path / "own", listen, port, **more)
            stack.callback(stop, daemon)
            return daemon

        yield begin


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
class TestBothDoors:
    def test_the_three_pages(self, served: Served, family: int) -> None:
        """Health, status and metrics are there, with their types; HEAD gives the same head and no body."""
        for path, kind in zip(PATHS, ("application/json", CONTENT_TYPE, "application/json"), strict=True):
            code, headers, body = served.get(path, "Host: localhost", family=family)
            assert (code, headers["Content-Type"]) == (200, kind)
            assert int(headers["Content-Length"]) == len(body) > 0
            again, head, nothing = served.get(path, "Host: localhost", method="HEAD", family=family)
            assert (again, nothing, head.keys()) == (200, b"", headers.keys())
        status = json.loads(served.get("/v1/status", family=family)[2])
        assert status["schema"] == "reprod.status/1"
        assert status["datasets"][0]["files"] == 3
        health = json.loads(served.get("/healthz", family=family)[2])
        assert (health["ok"], health["degraded"]) == (True, [])

    @pytest.mark.parametrize(
        ("line", "headers", "code"),
        [
            ("GET /metrics", ["Host: evil.example"], 403),
            ("GET /metrics", ["Host: localhost.evil.example"], 403),
            ("GET /metrics", ["Host: 127.0.0.1.evil.example"], 403),
            ("GET /v1/status", ["Host: localhost", "Origin: http://localhost"], 403),
            ("GET /healthz", ["Host: localhost", "ORIGIN: null"], 403),
            ("POST /metrics", ["Host: localhost"], 405),
            ("DELETE /v1/status", ["Host: localhost"], 405),
            ("OPTIONS *", ["Origin: http://evil.example"], 405),
            ("GET /", ["Host: localhost"], 404),
            ("GET /metrics/../v1/status", ["Host: localhost"], 404),
            ("GET http://evil.example/metrics", ["Host: localhost"], 404),
            ("GET /metrics?name=x", ["Host: localhost:1"], 200),
            ("HEAD /nothing", ["Host: localhost"], 404),
        ],
    )
    def test_what_is_refused(self, served: Served, family: int, line: str, headers: list[str], code: int) -> None:
        """33: a foreign Host or any Origin is 403, anything but GET and HEAD 405 with what is allowed, the rest 404."""
        method, path = line.split(" ")
        found, head, body = served.get(path, *headers, method=method, family=family)
        assert found == code
        assert ("Allow" in head) is (code == 405)
        assert (body == b"") is (method == "HEAD")

    def test_the_metrics_parse_and_are_complete(self, served: Served, family: int) -> None:
        """33: Prometheus' own parser takes the page; each family has help and type, each name is a known one, and what
        there is without a tracking server and without a refresh under way is there."""
        text = served.get("/metrics", family=family)[2].decode()
        families = list(text_string_to_metric_families(text))
        shown = {sample.name for each in families for sample in each.samples}
        assert {each.type for each in families} == {"gauge", "counter"}
        assert all(each.documentation for each in families)
        assert shown <= FAMILIES.keys()
        missing = FAMILIES.keys() - shown
        assert missing <= {
            "reprod_tracking_up", "reprod_last_poll_seconds", "reprod_dataset_progress_ratio",
            "reprod_dataset_versions", "reprod_dataset_database_bytes",
        }  # fmt: skip
        states = {s.labels["state"]: s.value for each in families for s in each.samples if "state" in s.labels}
        assert (states["current"], sum(states.values())) == (1, 1)


def test_a_client_library_reads_it(served: Served) -> None:
    """A scraper's ordinary client, which names the address as its Host, is answered; so is one that asks by name."""
    for host in (f"127.0.0.1:{served.port}", f"localhost:{served.port}"):
        with urllib.request.urlopen(f"http://{host}/metrics", timeout=10) as answer:
            assert b"reprod_build_info" in answer.read()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reads_it_over_the_socket(served: Served) -> None:
    """33: `curl --unix-socket` gets the metrics."""
    command = ["curl", "-sS", "--fail", "--unix-socket", str(served.base / "sock"), "http://localhost/metrics"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert list(text_string_to_metric_families(done.stdout))


def test_tcp_speaks_nothing_but_http(served: Served) -> None:
    """Calls of the control socket, noise, endless lines, half requests get no answer over TCP and change nothing."""
    reload = b'{"jsonrpc": "2.0", "id": 1, "method": "reload"}\n'
    reloads = len(served.events("config.reloaded"))
    many = b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1)
    for data in (reload, b"\x16\x03\x01\x02\x00\n", b"x" * 100_000, b"GET /healthz HTTP/1.1\r\n", many, b"\n", b""):
        assert served.talk(data, end=True) == b""
    body = b"POST /v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 48\r\n\r\n" + reload
    assert served.talk(body) in {b""} or served.talk(body).startswith(b"HTTP/1.1 405")
    served.is_well()
    assert len(served.events("config.reloaded")) == reloads


def test_connections_over_tcp_are_few_and_short(served: Served) -> None:
    """So many silent connections as there may be keep others out for two seconds, here; those are told so."""
    silent: list[socket.socket] = []
    with ExitStack() as stack:

        def answer_to_one_more() -> bytes:
            """Open all anew: a busy machine may take so long that the first are closed when the last is opened."""
            stack.close()
            address = ("127.0.0.1", served.port)
            silent[:] = [stack.enter_context(socket.create_connection(address)) for _ in range(MAX_CLIENTS)]
            return served.talk(b"")

        assert eventually(answer_to_one_more, 30, "one more is refused").startswith(b"HTTP/1.1 503")
        assert served.get("/healthz", family=socket.AF_UNIX)[0] == 200, "the socket has places of its own"
        silent[0].settimeout(30)
        assert silent[0].recv(10) == b"", "closed after two seconds in this daemon"
    eventually(lambda: served.talk(b"GET /healthz\r\n").startswith(b"HTTP/1.1 200"), 5, "there is room again")


def test_a_reader_that_takes_nothing_holds_nobody_up(served: Served) -> None:
    """Who asks and never reads costs a connection for a moment; the others are answered meanwhile."""
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        greedy.connect(("127.0.0.1", served.port))
        greedy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        served.is_well()


def test_too_many_questions_over_tcp_are_put_off(own: Callable[..., Served]) -> None:
    """Over so many pages in ten seconds the answer is 503; health and the socket are not counted."""
    port = free_port()
    daemon = own(f"127.0.0.1:{port}", port, rate=5)
    eventually(lambda: daemon.listens() == "listening", 10, "it listens")
    assert [daemon.get("/metrics")[0] for _ in range(7)] == [200] * 5 + [503] * 2
    assert daemon.get("/healthz")[0] == 200
    assert daemon.get("/metrics", family=socket.AF_UNIX)[0] == 200
    assert RATE >= 20, "two scrapers a second are fine"


def test_a_port_in_use_is_said_and_tried_again(own: Callable[..., Served]) -> None:
    """The daemon lives, says in status, health and, once, the log that it cannot listen; when it can it does."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = int(holder.getsockname()[1])
        daemon = own(f"127.0.0.1:{port}", port)
        eventually(lambda: daemon.listens() == "failed", 10, "it says so")
        shown = daemon.call("status")
        assert f"127.0.0.1:{port}" in shown["listen"]["error"]
        assert "in use" in shown["listen"]["error"]
        assert [need["what"] for need in shown["attention"] if "listen" in need["hint"]] == [shown["listen"]["error"]]
        health = json.loads(daemon.get("/healthz", family=socket.AF_UNIX)[2])
        assert (health["ok"], health["degraded"]) == (True, ["listen"])
        later = time.monotonic() + 0.7
        eventually(lambda: time.monotonic() > later, 5, "some more attempts")
        assert len(daemon.events("listen.failed")) == 1
    eventually(lambda: daemon.listens() == "listening", 10, "it listens")
    daemon.is_well()
    assert daemon.call("status")["attention"] == [need for need in shown["attention"] if "listen" not in need["hint"]]


def answering(daemon: Served, *ports: int) -> set[int]:
    """Return those of the ports at which the daemon answers; the others refuse."""
    found = set()
    for port in ports:
        try:
            found |= {port} if daemon.talk(b"GET /healthz\r\n", port=port).startswith(b"HTTP/1.1 200") else set()
        except ConnectionRefusedError:
            continue
    return found


def test_a_reload_moves_it(own: Callable[..., Served]) -> None:
    """A reload takes listen up, moves it and ends it, without a restart; a reload that changes nothing keeps it."""
    port, other = free_port(), free_port()
    daemon = own("", port)
    assert daemon.call("status")["listen"] == {"address": None, "state": "off", "error": None}
    for listen, state, reachable in (
        (f"127.0.0.1:{port}", "listening", port),
        (f"127.0.0.1:{port}", "listening", port),
        (f"localhost:{other}", "listening", other),
        ("", "off", None),
    ):
        daemon.write(listen)
        daemon.call("reload")
        eventually(lambda: answering(daemon, port, other) == {reachable} - {None}, 10, f"{listen} {state}")  # noqa: B023 - called at once
        assert daemon.listens() == state
    assert [event["address"] for event in daemon.events("listen.started")] == [
        f"127.0.0.1:{port}",
        f"localhost:{other}",
    ]
    assert daemon.events("listen.open") == []


def test_an_open_address_is_warned_of_and_looks_at_no_host(own: Callable[..., Served]) -> None:
    """0.0.0.0 is reachable under names that nobody knows here, so any Host is answered; an Origin never, and the log
    has a warning."""
    port = free_port()
    daemon = own(f"0.0.0.0:{port}", port)
    eventually(lambda: daemon.listens() == "listening", 10, "it listens")
    assert daemon.get("/metrics", "Host: gpu7.example.org:9464")[0] == 200
    assert daemon.get("/metrics", "Host: gpu7.example.org:9464", "Origin: http://gpu7.example.org:9464")[0] == 403
    assert daemon.get("/metrics", "Host: gpu7.example.org", family=socket.AF_UNIX)[0] == 403, "the socket knows its own"
    assert [event["level"] for event in daemon.events("listen.open")] == ["warning"]


def test_ipv6(own: Callable[..., Served]) -> None:
    """An IPv6 address is written in brackets, and asked for so."""
    try:
        port = free_port("::1")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    daemon = own(f"[::1]:{port}", port)
    eventually(lambda: daemon.listens() == "listening", 10, "it listens")
    assert daemon.get("/metrics", f"Host: [::1]:{port}", family=socket.AF_INET6)[0] == 200
    assert daemon.get("/metrics", f"Host: evil.example:{port}", family=socket.AF_INET6)[0] == 403


def clients(daemon: Served) -> int:
    """Return how many are connected to the daemon, by either door."""
    shown = psutil.Process(daemon.process.pid).net_connections("all")
    at_the_socket = sum(each.laddr == str(daemon.base / "sock") for each in shown)  # the listener is one of them
    return at_the_socket - 1 + sum(bool(each.raddr) for each in shown)


def test_without_descriptors_it_waits(own: Callable[..., Served]) -> None:
    """A daemon that may open no more files takes no connections over TCP, lives, and goes on when it may."""
    port = free_port()
    daemon = own(f"127.0.0.1:{port}", port)
    eventually(lambda: daemon.listens() == "listening", 10, "it listens")
    daemon.is_well()
    process = psutil.Process(daemon.process.pid)
    before = process.rlimit(resource.RLIMIT_NOFILE)
    eventually(lambda: clients(daemon) == 0, 10, "nobody is connected")
    used = {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
    lowest = next(number for number in range(len(used) + 1) if number not in used)
    process.rlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))  # a limit of numbers: none at or above it is given out
    with ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)]
        for connection in waiting:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        waiting[-1].settimeout(0.5)
        with pytest.raises(TimeoutError):
            waiting[-1].recv(10)
        process.rlimit(resource.RLIMIT_NOFILE, before)
        waiting[-1].settimeout(30)
        assert waiting[-1].recv(12) == b"HTTP/1.1 200"
    daemon.is_well()


def test_numbers_only_grow_across_a_reload(own: Callable[..., Served]) -> None:
    """33: a reload that makes a dataset's work anew takes back none of its counters, nor does its way out and in."""
    daemon = own("", 0)
    file = daemon.base / "etc" / "datasets.d" / "letters.toml"
    text = file.read_text()

    def counters() -> dict[tuple[str, ...], float]:
        page = daemon.get("/metrics", family=socket.AF_UNIX)[2].decode()
        found = [f for f in text_string_to_metric_families(page) if f.type == "counter"]
        return {(s.name, *s.labels.values()): s.value for f in found for s in f.samples}

    first = counters()
    assert first["reprod_dataset_hashed_bytes_total", "letters"] == 30
    assert first["reprod_dataset_refreshes_total", "letters", "full"] >= 1
    assert first["reprod_dataset_refresh_seconds_total", "letters", "full"] > 0
    earlier = first
    for change in (text + 'exclude = ["c"]\n', None, text):
        file.write_text(change) if change is not None else file.unlink()
        daemon.call("reload")
        if change is None:
            continue
        refreshes = ("reprod_dataset_refreshes_total", "letters", "full")
        eventually(lambda: counters()[refreshes] > earlier[refreshes], 10, "it is looked at again")  # noqa: B023 - called at once
        eventually(lambda: daemon.call("status")["datasets"][0]["state"] == "current", 10, "it is current again")
        now = counters()
        assert now.keys() == earlier.keys()
        assert [key for key in now if now[key] < earlier[key]] == []
        earlier = now
    assert earlier["reprod_dataset_sealed_versions_total", "letters"] >= 2


def test_what_is_degraded_is_said_and_the_answer_stays_200(own: Callable[..., Served]) -> None:
    """A dataset that is away makes health name it and the metrics show it; no restart would bring it back, so 200."""
    daemon = own("", 0)
    (daemon.base / "data").rename(daemon.base / "away")

    def degraded() -> list[str]:
        code, _, body = daemon.get("/healthz", family=socket.AF_UNIX)
        assert code == 200
        words: list[str] = json.loads(body)["degraded"]
        assert set(words) <= set(DEGRADED)
        return words

    assert eventually(degraded, 15, "it is noticed") == ["datasets"]
    assert daemon.metric("reprod_dataset_state", dataset="letters", state="unavailable") == 1
    assert daemon.metric("reprod_dataset_refresh_failures_total", dataset="letters") >= 1
    assert daemon.metric("reprod_dataset_files", dataset="letters") == 3, "what was known is still known"
    stop(daemon)
    daemon.process = launch(daemon.base, 0, state="unavailable").process
    assert daemon.metric("reprod_dataset_files", dataset="letters") == 3, "also to a daemon that never saw it"
    (daemon.base / "away").rename(daemon.base / "data")
    eventually(lambda: not degraded(), 30, "it is back")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("LOCALHOST", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False), ("localhost.x", False)],  # noqa: S104
)  # fmt: skip
def test_which_addresses_are_this_machines_alone(host: str, loopback: bool) -> None:
    """Loopback addresses and localhost are; a name that begins like one is not."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "sent", "taken"),
    [("127.0.0.1", b"127.0.0.1:9464", True), ("127.0.0.1", b"localhost", True), ("127.0.0.1", b"[::1]:9464", True),
     ("127.0.0.2", b"127.0.0.2", True), ("localhost", b"LocalHost:1", True), ("127.0.0.1", b"0.0.0.0", False),
     ("127.0.0.1", b"127.0.0.1.evil.example", False), ("127.0.0.1", b"x127.0.0.1", False), ("::1", b"[::1]", True),
     ("127.0.0.1", b"", False), ("127.0.0.1", b"127.0.0.1\xff", False), ("10.0.0.1", b"anything", True)],
)  # fmt: skip
def test_which_hosts_may_be_sent(host: str, sent: bytes, taken: bool) -> None:
    """To a loopback address only names of this machine may be sent; to an open one any."""
    assert may_be_sent(host, sent) is taken


@pytest.mark.parametrize(
    ("listen", "address"),
    [("", None), ("127.0.0.1:9464", ("127.0.0.1", 9464)), (" [::1]:80 ", ("::1", 80)),
     ("localhost:1", ("localhost", 1)),
     ("gpu-7.example.org:65535", ("gpu-7.example.org", 65535)), ("[fe80::1%eth0]:9464", ("fe80::1%eth0", 9464))],
)  # fmt: skip
def test_what_listen_may_be(listen: str, address: tuple[str, int] | None) -> None:
    """A host and a port, IPv6 addresses in brackets, or nothing."""
    assert DaemonConfig(str(checks.listen(listen))).address == address


@pytest.mark.parametrize(
    "listen",
    ["9464", ":9464", "*:9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1",
     "::1:9464", "http://127.0.0.1:9464", "/run/x.sock", "127.0.0.1:٣", "a b:1", "[::1]", "a\nb:1", 9464, True,
     None, ["127.0.0.1:1"]],
)  # fmt: skip
def test_what_listen_may_not_be(listen: object) -> None:
    """A port alone, a wildcard, a URL, a path and the like are refused, with what to write."""
    with pytest.raises(checks.UnfitError) as unfit:
        checks.listen(listen)
    assert "HOST:PORT" in unfit.value.expected
