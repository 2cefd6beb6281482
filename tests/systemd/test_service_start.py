"""Starting reprod.service in real systemd: when it counts as started, what it says, what is not tried again."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from bed import Bed, eventually
from service_place import PYTHON, UNIT, Service, dt1

pytestmark = pytest.mark.systemd

#: At this speed the file takes longer than three watchdogs, and than a start may take.
SLOW = "[scan]\nread_mb_per_second = 0.5\n"
WATCHDOG_S = 3
LARGE_BYTES = 5_000_000


def test_a_start_returns_when_the_socket_answers_and_the_line_says_what_is_done(service: Service) -> None:
    """1, 3: `systemctl start` returns when `reprod status` is answered; the unit's status line tells how
    much is watched, what is scanned and how far, and what is away."""
    data = service.make_data("/srv/started", **{f"f{i}": "x" * 1_500_000 for i in range(2)})
    service.configure("", started="/srv/started")
    service.start()
    done = service.bed.run("reprod", "status", "--json")
    assert done.returncode == 0, done.stderr
    service.becomes("started", dt1(data))
    service.says("watching 1 dataset, 2 files")
    assert service.managed().count("Started ") == 1

    service.configure("[scan]\nread_mb_per_second = 0.8\n")
    service.call("reload")
    service.becomes("started", dt1(data))
    with ThreadPoolExecutor(1) as pool:
        scan = pool.submit(service.call, "scan", 60, name="started", full=True)
        line = service.says("scanning")
        assert line.startswith("scanning started ")
        assert line.endswith(" %")
        assert scan.result(90)["datasets"]
    service.says("watching 1 dataset, 2 files")
    data.rename(data.with_name("away"))
    service.says("started unavailable")


def test_a_start_asks_for_time_and_waits_for_no_walk_and_no_watchdog_minds_that(service: Service) -> None:
    """2, 5: with less time to start than its work takes the start succeeds: while a database is opened for long, the
    daemon asks for more and says what it does; the first walk comes after it, and that one file is read for more than
    three times the watchdog's time ends nothing."""
    data = service.make_data("/srv/slow", large="x" * LARGE_BYTES)
    service.configure(SLOW, slow="/srv/slow")
    # A busy machine needs seconds until the daemon asks for more time.
    service.drop_in(f"TimeoutStartSec=6\nWatchdogSec={WATCHDOG_S}s")
    service.run_instead(
        "import time, reprod.store.files as files\n"
        "quick = files.open_registry\n"
        "files.open_registry = lambda state: (time.sleep(9), quick(state))[1]"
    )
    service.bed.systemctl("start", "--no-block", UNIT)
    assert service.says("registry") == "opening the registry"
    assert service.get("ActiveState") == "activating"
    eventually(lambda: service.get("ActiveState") == "active", 15, service.bed.tail)
    pid = service.pid
    assert service.says("scanning slow")
    service.becomes("slow", dt1(data), 30)
    refreshed = eventually(lambda: service.events("dataset.refreshed"), 10, service.said)
    assert float(refreshed[0]["REPROD_TOOK_MS"]) > 3 * WATCHDOG_S * 1000
    assert service.show("NRestarts", "MainPID") == {"NRestarts": "0", "MainPID": str(pid)}
    service.says("watching 1 dataset, 1 file")


def test_what_another_try_cannot_mend_is_not_tried_again(service: Service, bed: Bed) -> None:
    """6: a wrong configuration ends the unit as failed with 78, at once and for good, and the journal names file and
    key; so does a second daemon with 75, and the first keeps its socket."""
    service.configure("[mlflow]\npoll_secnods = 1\n")
    assert bed.try_systemctl("start", UNIT).returncode != 0
    shown = service.show("ActiveState", "Result", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78", "NRestarts": "0"}
    for part in ("/etc/reprod/reprod.toml", "poll_secnods", "poll_seconds"):
        assert part in service.said()

    service.configure("")
    bed.run("install", "-d", "-o", "reprod", "/run/reprod")  # as an earlier run of the unit leaves it
    by_hand = ("--unit=first", "--property=User=reprod", "--property=UMask=0027", PYTHON, "-m", "reprod", "daemon")
    assert bed.run("systemd-run", *by_hand).returncode == 0
    try:
        eventually(lambda: bed.run("reprod", "status").returncode == 0, 10, bed.tail)
        assert bed.try_systemctl("start", UNIT).returncode != 0
        shown = service.show("ActiveState", "ExecMainStatus", "NRestarts")
        assert shown == {"ActiveState": "failed", "ExecMainStatus": "75", "NRestarts": "0"}
        assert f"pid {bed.show('first.service', 'MainPID')['MainPID']}" in service.said()
        assert bed.run("reprod", "status").returncode == 0
    finally:
        bed.systemctl("stop", "first.service")


def test_the_watchdog_ends_a_blocked_loop_and_leaves_its_stack(service: Service) -> None:
    """4: an event loop that is blocked is ended by the watchdog, the journal has the Python stack with the
    function that blocks, the unit starts again by itself, and the digest is right."""
    data = service.make_data("/srv/blocked")
    service.configure("", blocked="/srv/blocked")
    service.drop_in("WatchdogSec=2s\nRestartSec=100ms")
    service.run_instead(
        "import signal, time\n"
        "def block_the_loop(*_):\n"
        "    time.sleep(600)\n"
        "signal.signal(signal.SIGUSR1, block_the_loop)"
    )
    service.start()
    service.becomes("blocked", dt1(data))
    before = service.pid
    service.bed.systemctl("kill", "--kill-whom=main", "--signal=USR1", UNIT)
    eventually(lambda: service.get("NRestarts") == "1", 15, service.bed.tail)
    assert "Watchdog timeout" in service.managed()
    assert "Failed with result 'watchdog'" in service.managed()
    assert "block_the_loop" in service.said()
    assert "Fatal Python error: Aborted" in service.said()
    (data / "a").write_text("changed")
    service.becomes("blocked", dt1(data))
    assert service.pid != before
