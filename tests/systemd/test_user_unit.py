"""reprod as the service of one user, with a real user manager, a real login daemon and lingering."""

import json
import stat
from collections.abc import Iterator
from typing import Any

import pytest
from bed import UNITS, USERS, Bed, eventually
from service_place import PYTHON, dt1

pytestmark = pytest.mark.systemd

UNIT = "reprod-user.service"
HOME = "/home/alice"
RUNTIME = f"/run/user/{USERS['alice']}"
STATE = f"{HOME}/.local/state/reprod"


@pytest.fixture(scope="module")
def lingering(bed: Bed) -> Iterator[Bed]:
    """Yield a bed in which alice's user manager runs without her being logged in."""
    done = bed.run("loginctl", "enable-linger", "alice")
    assert done.returncode == 0, done.stderr
    eventually(lambda: bed.show(f"user@{USERS['alice']}", "ActiveState")["ActiveState"] == "active", 10, bed.tail)
    eventually(lambda: bed.path(f"{RUNTIME}/systemd/private").exists(), 10, bed.tail)
    yield bed
    bed.run("loginctl", "disable-linger", "alice")


def install(bed: Bed, name: str, text: str) -> None:
    """Put a unit file where a user has them."""
    folder = f"{HOME}/.config/systemd/user"
    bed.write(f"{folder}/{name}", text)
    bed.run("chown", "-R", "alice:alice", f"{HOME}/.config")
    bed.systemctl("daemon-reload", user="alice")


def status(bed: Bed) -> dict[str, Any]:
    """Return what `reprod status` says to alice in a shell; empty where no daemon answers."""
    done = bed.run("reprod", "status", "--json", user="alice", env={"XDG_RUNTIME_DIR": RUNTIME})
    return json.loads(done.stdout) if done.returncode == 0 else {}


def test_a_user_unit_with_linger_works(lingering: Bed) -> None:
    """18: with lingering the user's daemon runs while nobody is logged in, keeps its state in ~/.local/state on every
    version of systemd, listens on a socket that is the user's alone, and takes a dataset as its user says."""
    bed = lingering
    data = bed.path(f"{HOME}/data")
    data.mkdir()
    (data / "a").write_text("one")
    bed.run("chown", "-R", "alice:alice", f"{HOME}/data")
    install(bed, "reprod.service", (UNITS / UNIT).read_text())
    bed.systemctl("enable", "--now", "reprod", user="alice")
    sessions = bed.run("loginctl", "list-sessions", "--no-legend").stdout.splitlines()
    assert [line for line in sessions if "manager" not in line] == []  # newer ones count the user manager's own

    shown = status(bed)
    assert (shown["state"], shown["socket"]) == (STATE, f"{RUNTIME}/reprod/control.sock")
    assert bed.path(f"{STATE}/registry.sqlite").exists()
    assert stat.S_IMODE(bed.path(shown["socket"]).stat().st_mode) == 0o600
    done = bed.run("reprod", "dataset", "add", "mine", f"{HOME}/data", user="alice", env={"XDG_RUNTIME_DIR": RUNTIME})
    assert done.returncode == 0, done.stderr
    eventually(lambda: [d["digest"] for d in status(bed)["datasets"]] == [dt1(data)], 15, bed.tail)
    bed.systemctl("reload", "reprod", user="alice")
    eventually(lambda: "1 file" in bed.show("reprod", "StatusText", user="alice")["StatusText"], 10, bed.tail)
    assert {path.name for path in bed.path(f"{HOME}/.config/reprod").iterdir()} <= {"reprod.toml", "datasets.d"}

    bed.systemctl("stop", "reprod", user="alice")
    assert bed.show("reprod", "Result", user="alice")["Result"] == "success"
    assert not bed.path(shown["socket"]).exists()


def test_what_the_user_unit_claims_has_effect(lingering: Bed) -> None:
    """19: each restriction of the user unit works without a user namespace, none that would need one is claimed, and
    the user's own training processes can be examined."""
    bed = lingering
    text = (UNITS / UNIT).read_text()
    keys = {line.partition("=")[0] for line in text.splitlines() if "=" in line and not line.startswith("#")}
    assert [key for key in keys if key.startswith(("Private", "Protect", "ReadOnly", "Inaccessible", "State"))] == []

    bed.systemctl("start", "reprod", user="alice")  # anything of alice's that runs outside of the probe's unit
    watched = bed.show("reprod", "MainPID", user="alice")["MainPID"]
    command = f"{PYTHON} /opt/reprod/src/tests/systemd/probe.py {watched} {HOME}"
    probing = text.replace("Type=notify\n", "Type=oneshot\n").replace("WatchdogSec=60s\n", "")
    install(bed, "probe.service", probing.replace("/usr/bin/env reprod daemon", command))
    bed.systemctl("start", "probe", user="alice")
    said = [str(entry["MESSAGE"]) for entry in bed.journal("_SYSTEMD_USER_UNIT=probe.service")]
    found = json.loads(next(line for line in said if line.startswith("{")))
    assert found["status"]["NoNewPrivs"] == "1"
    assert found["status"]["Seccomp"] == "2"
    refused = {key: found[key] for key in ("writable_code", "user_namespace", "personality", "setuid")}
    assert set(refused.values()) <= {"EPERM", "EACCES"}, refused  # the latter for code, from the kernel itself
    assert found["packet_socket"] != "ok"
    assert [found[key] for key in ("callback", "internet_socket", "environ_of_another")] == ["ok"] * 3
    assert found["write"] == {HOME: "ok"}
    assert (found["nice"], found["idle_io"], found["core"]) == (10, True, 0)
    bed.systemctl("stop", "reprod", user="alice")
