"""What the daemon tells of itself: metrics over the life of runs, its log as the journal gets it, where it hangs."""

import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import QUICKER, Daemon, Place, Tracker, eventually, let_slack_pass, running_daemon
from mlflow_proxy import Proxy
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families

EVERY_S = 0.8  # between two looks at how late the loop is, not 2.5

#: A daemon whose event loop is held up for some seconds, once, by a function that a stack must name.
HELD_UP = """
import time
from pathlib import Path
from reprod.daemon import pulse

pulse.EVERY_S = {every_s}

def hold_the_loop_up(until=time.monotonic() + 3600):
    Path({marker!r}).touch()
    while Path({marker!r}).exists() and time.monotonic() < until:
        time.sleep(0.05)

run = pulse.Pulse.run

async def run_and_hang(self):
    import anyio
    async with anyio.create_task_group() as group:
        group.start_soon(run, self)
        while not Path({trigger!r}).exists():
            await anyio.sleep(0.05)
        hold_the_loop_up()

pulse.Pulse.run = run_and_hang
from reprod.__main__ import main
main(["daemon"])
"""

#: A daemon that waits for an answer of its loop for as long as it takes on a busy machine.
PATIENT = (
    f"import sys; {QUICKER}from reprod.daemon import dump; dump.ANSWER_S = 50.0; "
    "from reprod.__main__ import main; sys.exit(main(['daemon']))"
)

#: A daemon that takes its time to open the registry: until the file is gone.
SLOW_START = """
import time
from pathlib import Path
from reprod.store import files

quick = files.open_registry

def slow(state, until=time.monotonic() + 100):
    Path({marker!r}).touch()
    while Path({marker!r}).exists() and time.monotonic() < until:
        time.sleep(0.05)
    return quick(state)

files.open_registry = slow
from reprod.__main__ import main
main(["daemon"])
"""

#: A daemon whose journal is a socket of the test.
JOURNALLED = """
from reprod import journal
journal.SOCKET = {socket!r}
from reprod.__main__ import main
main(["daemon"])
"""


def ask(daemon: Daemon, path: str) -> bytes:
    """Return a page of the daemon's HTTP, over its socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(daemon.place.socket))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(1 << 16), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return body


def metrics(daemon: Daemon) -> dict[str, float]:
    """Return the values of all samples without labels."""
    page = text_string_to_metric_families(ask(daemon, "/metrics").decode())
    return {s.name: s.value for family in page for s in family.samples if not s.labels}


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    proxy = Proxy(mlflow_server)
    yield proxy
    proxy.flow()
    proxy.go_away()


@pytest.mark.mlflow
def test_metrics_tell_the_life_of_runs(tmp_path: Path, proxy: Proxy, tracker: Tracker, data: Path, name: str) -> None:
    """A captured run counts; while the server is away it is down, its last answer ages, runs wait and are put off, and
    health is degraded but no failure; when it is back all is as it was, and the counters have grown."""
    impatient = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
    with running_daemon(tmp_path / "d", proxy.url, {name: data}, environ=impatient) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        run_id = tracker.finished_run(name)
        tracker.wait_state(run_id)
        eventually(lambda: metrics(daemon)["reprod_runs_captured_total"] == 1, 10, "the run is counted")
        daemon.wait_event("run.finished", run_id=run_id)  # nothing more is written to it
        first = metrics(daemon)
        assert (first["reprod_tracking_up"], first["reprod_deliveries_total"]) == (1, 1)
        assert (first["reprod_runs_waiting"], first["reprod_oldest_waiting_run_seconds"]) == (0, 0)
        assert first["reprod_last_poll_seconds"] < 60
        assert json.loads(ask(daemon, "/healthz"))["degraded"] == []

        proxy.cut_at(0, "before", proxy.hang)
        late = tracker.finished_run(name)
        eventually(lambda: metrics(daemon)["reprod_delivery_postponements_total"] > 0, 30, "the run is put off")
        eventually(lambda: metrics(daemon)["reprod_tracking_up"] == 0, 30, "the outage shows")
        eventually(lambda: metrics(daemon)["reprod_oldest_waiting_run_seconds"] > 2, 30, "the run's waiting shows")
        away = metrics(daemon)
        assert away["reprod_runs_waiting"] == 1
        assert away["reprod_last_poll_seconds"] > 1
        assert json.loads(ask(daemon, "/healthz")) == {
            "ok": True, "version": daemon.status()["version"], "degraded": ["tracking"],
        }  # fmt: skip

        proxy.flow()
        tracker.wait_state(late)
        eventually(lambda: metrics(daemon)["reprod_runs_captured_total"] == 2, 10, "the run is counted")
        eventually(lambda: metrics(daemon)["reprod_tracking_up"] == 1, 10, "it is there again")
        back = metrics(daemon)
        assert back["reprod_runs_waiting"] == 0
        assert back["reprod_delivery_postponements_total"] >= away["reprod_delivery_postponements_total"]
        assert back["reprod_deliveries_total"] == 2


def test_what_is_read_counts_while_it_is_read(tmp_path: Path) -> None:
    """Each file counts when it is read, while the refresh is under way: a scraper sees that something moves."""
    root = tmp_path / "data"
    root.mkdir()
    for number in range(6):
        (root / f"{number}").write_bytes(os.urandom(1_200_000))
    with running_daemon(tmp_path / "d", scan={"read_mb_per_second": 3}) as daemon:
        daemon.place.register("slow", root)
        daemon.call("reload")

        def hashed() -> float:
            page = text_string_to_metric_families(ask(daemon, "/metrics").decode())
            samples = [s for family in page for s in family.samples if s.name == "reprod_dataset_hashed_bytes_total"]
            return sum(s.value for s in samples)

        assert 0 < eventually(hashed, 20, "bytes are counted") < 7_200_000
        daemon.sealed("slow", 1, 30)
        assert hashed() == 7_200_000


def test_a_dump_names_all_tasks_and_threads(tmp_path: Path, data: Path, name: str) -> None:
    """SIGUSR2 puts one record into the log, with each task by name, where it waits, and each thread's stack; again and
    again, also when many signals come at once, and the daemon goes on."""
    with running_daemon(tmp_path / "d", "", {name: data}, program=("-c", PATIENT)) as daemon:
        daemon.sealed(name, 1)
        for count in (1, 2, 3):
            os.kill(daemon.pid, signal.SIGUSR2)
            eventually(lambda count=count: len(daemon.events("daemon.dump")) == count, 10, f"dump {count}")
        dump = daemon.events("daemon.dump")[-1]
        assert dump["loop_answers"] is True
        assert dump["threads"] >= 2
        lines = dump["dump"].splitlines()
        heads = [line for line in lines if line.startswith(("task ", "thread "))]
        assert {"task courier", "task trigger", "task control", f"task dataset {name}", f"task watch {name}"} <= {
            *heads
        }
        assert dump["tasks"] + dump["threads"] == len(heads)
        assert heads[0].startswith("thread MainThread")
        waits = lines[lines.index("task courier") + 1 :]
        assert any("courier.py" in line and "Courier.run" in line for line in waits[:6])
        for _ in range(200):
            os.kill(daemon.pid, signal.SIGUSR2)
        eventually(lambda: len(daemon.events("daemon.dump")) > 3, 10, "another dump")
        assert daemon.call("hello")["pid"] == daemon.pid
        assert daemon.terminate()[0] == 0


def test_a_stuck_loop_tells_where(tmp_path: Path, data: Path, name: str) -> None:
    """While the event loop is held up nothing answers, but SIGUSR2 does: its record says so, and names the function in
    which the main thread is. When the loop goes on, so does the daemon, and the metrics have seen it."""
    marker, trigger = tmp_path / "held", tmp_path / "hang"
    code = HELD_UP.format(marker=str(marker), trigger=str(trigger), every_s=EVERY_S)
    with running_daemon(tmp_path / "d", "", {name: data}, program=("-c", code)) as daemon:
        daemon.sealed(name, 1)
        trigger.touch()
        eventually(marker.exists, 10, "the loop is held up")
        for count in (1, 2):
            os.kill(daemon.pid, signal.SIGUSR2)
            eventually(lambda count=count: len(daemon.events("daemon.dump")) == count, 10, f"dump {count}")
        dump = daemon.events("daemon.dump")[-1]
        assert dump["loop_answers"] is False
        main = dump["dump"].split("\nthread ")[0]
        assert main.startswith("thread MainThread")
        assert "hold_the_loop_up" in main
        assert f"task dataset {name}" in dump["dump"], "the tasks are told all the same"
        held_s = marker.stat().st_mtime + 2 * EVERY_S
        eventually(lambda: time.time() > held_s, 10, "it is held up for longer than between two looks")
        marker.unlink()
        assert daemon.call("hello", timeout_s=10)["pid"] == daemon.pid
        eventually(lambda: metrics(daemon)["reprod_loop_lag_seconds"] > 0.5, 15, "the lag shows")


def test_a_signal_before_the_start_is_over_does_not_kill(tmp_path: Path, data: Path, name: str) -> None:
    """SIGUSR2 ends no daemon that is still starting, once it has begun to log; it is answered then too."""
    place = Place(tmp_path / "d")
    place.register(name, data)
    daemon = Daemon(place, ("-c", SLOW_START.format(marker=str(tmp_path / "begun"))))
    try:
        daemon.launch()
        eventually((tmp_path / "begun").exists, 30, "it has begun")
        os.kill(daemon.pid, signal.SIGUSR2)
        assert daemon.wait_event("daemon.dump")["loop_answers"] is False
        (tmp_path / "begun").unlink()
        eventually(daemon.answers, 30, "it has started")
    finally:
        daemon.end()


def test_under_systemd_the_log_goes_to_the_journal(tmp_path: Path, data: Path, name: str) -> None:
    """A daemon whose standard error is the journal's stream sends fields to the journal's socket and nothing to its
    standard error; a journal that restarts is found again, and one that does not read holds nobody up."""
    path, log = tmp_path / "journal", tmp_path / "d" / "daemon.log"
    log.parent.mkdir()
    log.touch()
    seen = log.stat()
    stream = {"JOURNAL_STREAM": f"{seen.st_dev}:{seen.st_ino}"}
    received: list[bytes] = []

    def listen() -> socket.socket:
        journald = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        journald.bind(str(path))
        journald.setblocking(False)
        return journald

    def drain(journald: socket.socket) -> list[bytes]:
        try:
            while True:
                received.append(journald.recv(1 << 20))
        except BlockingIOError:
            return received

    journald = listen()
    code = JOURNALLED.format(socket=str(path))
    with running_daemon(tmp_path / "d", "", {name: data}, environ=stream, program=("-c", code)) as daemon:
        daemon.sealed(name, 1)

        def refreshed() -> list[bytes]:
            return [r for r in drain(journald) if b"REPROD_EVENT=dataset.refreshed\n" in r]

        ours = eventually(refreshed, 10, "it is logged")
        assert len(ours) == 1
        assert f"\nREPROD_DATASET={name}\n".encode() in ours[0]
        assert b"\nPRIORITY=6\n" in ours[0]
        assert b"\nSYSLOG_IDENTIFIER=reprod\n" in ours[0]
        assert log.read_bytes() == b""

        journald.close()
        path.unlink()
        journald = listen()
        received.clear()
        os.kill(daemon.pid, signal.SIGUSR2)
        eventually(lambda: any(b"REPROD_EVENT=daemon.dump\n" in r for r in drain(journald)), 10, "it logs again")

        for _ in range(600):  # more than the queue holds, and nobody reads
            daemon.call("reload")
        received.clear()
        drain(journald)
        eventually(
            lambda: daemon.call("reload") and any(b"REPROD_LINES_LOST=" in r for r in drain(journald)), 10, "said"
        )
        journald.close()


def test_listen_serves_prometheus(tmp_path: Path, data: Path, name: str) -> None:
    """With `[daemon] listen` a scraper over TCP gets the metrics of the datasets."""
    port = free_port()
    listen = {"listen": f"127.0.0.1:{port}"}
    with running_daemon(tmp_path / "d", "", {name: data}, daemon=listen) as daemon:
        daemon.sealed(name, 1)
        daemon.wait_event("listen.started")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        assert f'reprod_dataset_state{{dataset="{name}",state="current"}} 1\n' in page
