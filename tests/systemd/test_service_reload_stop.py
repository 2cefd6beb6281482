"""Reloading, stopping and killing reprod.service in real systemd."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bed import Bed, eventually, systemd_version
from service_place import STATE, UNIT, Service, dt1

from reprod.ops.batches import BATCH_S

pytestmark = pytest.mark.systemd

#: How often the daemon is killed; ``REPROD_KILLS=50`` is the long form.
KILLS = int(os.environ.get("REPROD_KILLS", "3"))
SEED = int(os.environ.get("REPROD_SEED", "11"))

STOPPED_S = 30.0  # the daemon leaves after 1.8 s whatever hangs; the rest is a slow machine's

#: Large enough that it is read by a thread, chunk by chunk, and for half a minute at this speed.
SLOW = "[scan]\nread_mb_per_second = 0.2\n"
LARGE_BYTES = 6_000_000


def test_a_reload_is_done_when_it_returns_and_fails_where_it_was_refused(service: Service, bed: Bed) -> None:
    """7: `systemctl reload` returns with 0 when the new dataset is in the status; for a wrong file it fails, the old
    configuration stays and the unit active. SIGHUP does the same without an answer."""
    first, second = service.make_data("/srv/first"), service.make_data("/srv/second")
    service.configure("", first="/srv/first")
    service.start()
    service.configure("", second="/srv/second")
    bed.systemctl("reload", UNIT)
    assert [shown["name"] for shown in service.call("status")["datasets"]] == ["first", "second"]
    for name, data in (("first", first), ("second", second)):
        service.becomes(name, dt1(data))
    pid = service.pid

    service.configure("[mlflow]\npoll_secnods = 1\n", third="/srv/first")
    assert bed.try_systemctl("reload", UNIT).returncode != 0
    assert service.get("ActiveState") == "active"
    assert [shown["name"] for shown in service.call("status")["datasets"]] == ["first", "second"]
    assert "poll_secnods" in service.said()

    service.configure("")
    bed.systemctl("kill", "--kill-whom=main", "--signal=HUP", UNIT)
    eventually(lambda: service.dataset("third"), 10, service.said)
    assert (service.get("ActiveState"), service.pid) == ("active", pid)


def test_a_reload_under_notify_reload_is_synchronous(service: Service, bed: Bed) -> None:
    """9: where systemd knows Type=notify-reload (253), `systemctl reload` by SIGHUP alone returns when it is done."""
    if systemd_version() < 253:
        pytest.skip(f"systemd {systemd_version()} has no Type=notify-reload")
    data = service.make_data("/srv/notified")
    service.configure("")
    service.drop_in("Type=notify-reload\nExecReload=")
    service.start()
    service.configure("", notified="/srv/notified")
    bed.systemctl("reload", UNIT)
    assert [shown["name"] for shown in service.call("status")["datasets"]] == ["notified"]
    service.becomes("notified", dt1(data))


def test_a_stop_during_a_hash_takes_under_two_seconds_and_leaves_nothing(service: Service) -> None:
    """10: a stop while a file is read takes under 2 s and is a success; no process, socket or write-ahead log is left;
    the next start reads that file alone, not those that were read already."""
    data = service.make_data("/srv/stopped", **{f"small{i}": str(i) for i in range(50)})
    (data / "large").write_text("x" * LARGE_BYTES)
    service.configure(SLOW, stopped="/srv/stopped")
    service.start()
    service.says("scanning stopped 50 files", 20)
    let_pass(BATCH_S)  # what was read until now is written down
    assert service.stop() < STOPPED_S
    assert service.show("ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert service.processes() == []
    assert list(service.bed.path("/run/reprod").iterdir()) == []
    state = service.bed.path(STATE)
    assert [path.name for path in state.rglob("*") if path.name.endswith(("-wal", "-shm"))] == []

    service.configure("")
    service.start()
    service.becomes("stopped", dt1(data))
    (refreshed,) = eventually(lambda: service.events("dataset.refreshed"), 10, service.said)
    assert refreshed["REPROD_HASHED_FILES"] == "1"


def test_a_stop_with_busy_workers_leaves_none(service: Service) -> None:
    """47: a stop while worker processes hash small files leaves no process in the unit's control group."""
    data = service.make_data("/srv/busy", a="1")
    for folder in range(40):
        (data / f"d{folder}").mkdir()
        for i in range(250):
            (data / f"d{folder}" / f"f{i}").write_bytes(b"%d" % i)
    service.configure("[scan]\nworkers = 8\n", busy="/srv/busy")
    service.start()
    eventually(lambda: len(service.processes()) > 1, 10, "workers are started")
    assert service.stop() < STOPPED_S
    assert service.get("Result") == "success"
    assert service.processes() == []


def let_pass(seconds: float) -> None:
    """Wait for a time to be over."""
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > until, seconds + 5, "time passes")


@contextmanager
def changing(data: Path, rng: random.Random) -> Iterator[None]:
    """Replace, add and remove files about 100 times a second for the time of the block."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.01):
            path = data / f"d{rng.randrange(5)}" / f"f{rng.randrange(60)}"
            if path.exists() and rng.random() < 0.2:
                path.unlink()
            else:
                fresh = data.with_name("fresh")
                fresh.write_bytes(rng.randbytes(rng.randrange(3000)))
                fresh.replace(path)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


@pytest.mark.timeout(120 + 10 * KILLS)
def test_killed_again_and_again_while_files_change(service: Service, bed: Bed) -> None:
    """11: kill -9 at random moments while files change: systemd starts the daemon again each time, and in the end its
    digest is that of an independent reading of the files."""
    rng = random.Random(SEED)
    data = service.make_data("/srv/killed", a="1")
    for folder in range(5):
        (data / f"d{folder}").mkdir()
    service.configure("", killed="/srv/killed")
    service.drop_in("RestartSec=100ms")
    service.drop_in("StartLimitIntervalSec=0", "51-test.conf", "Unit")
    service.start()
    slowest = 0.0
    with changing(data, random.Random(SEED + 1)):
        for number in range(1, KILLS + 1):
            let_pass(rng.uniform(0.0, 1.5))
            bed.systemctl("kill", "--kill-whom=main", "--signal=KILL", UNIT)
            began = time.monotonic()
            back = {"NRestarts": str(number), "ActiveState": "active"}
            eventually(lambda back=back: service.show(*back) == back, 10, bed.tail)
            slowest = max(slowest, time.monotonic() - began)
    service.becomes("killed", dt1(data))
    assert not list(bed.path(f"{STATE}/datasets").glob("*.damaged-*"))
    print(f"\nfigures: {KILLS} kills, seed {SEED}: active again after {slowest:.1f} s at most", end="")
