"""An upgrade of a service in real systemd: it may take long, a released state goes on, clients learn how to restart."""

import shutil

import pytest
from bed import eventually
from released_state import CONTENT, FIXTURES, RELEASES
from service_place import STATE, UNIT, Service

pytestmark = pytest.mark.systemd

#: Formats 2 and 3 on top of the present ones, as in ``released_state``, and a copy that takes 9 s.
LATER = """
import sys, time
sys.path.insert(0, {tests!r})
from released_state import later
from reprod.store import copies, migrate
migrate.scripts = later
whole = copies.make
copies.make = lambda path, number, report: (report(1, 4), time.sleep(9 if "registry" in path.name else 0),
    whole(path, number, report))[2]
"""


def test_a_released_state_is_upgraded_while_systemd_waits(service: Service) -> None:
    """The start may take longer than TimeoutStartSec, the unit's status line says what is done, nothing of it is
    killed; then the daemon goes on where the release had ended."""
    state = service.bed.path(STATE)
    shutil.copytree(FIXTURES / f"state-{RELEASES[-1]}", state)
    state.chmod(0o750)
    assert service.bed.run("chown", "-R", "reprod:reprod", STATE).returncode == 0
    folder = service.bed.path("/data")
    shutil.rmtree(folder, ignore_errors=True)
    service.make_data("/data/tables", **{name: text for name, text in CONTENT[3].items() if "/" not in name})
    service.configure("", tables="/data/tables")
    shutil.copytree(
        FIXTURES.parent, service.bed.path("/opt/reprod-tests"), ignore=shutil.ignore_patterns("__pycache__")
    )
    service.drop_in("TimeoutStartSec=6")  # a busy machine needs seconds until the daemon asks for more
    service.run_instead(LATER.format(tests="/opt/reprod-tests"))
    service.bed.systemctl("start", "--no-block", UNIT)
    assert service.says("bringing") == "bringing registry.sqlite from format 1 to 3: copying it first 25 %"
    assert service.get("ActiveState") == "activating"
    eventually(lambda: service.get("ActiveState") == "active", 20, service.bed.tail)
    assert service.get("NRestarts") == "0"
    (copied,) = [e for e in service.events("state.copied") if "registry" in e["REPROD_PATH"]]
    assert service.bed.path(copied["REPROD_COPY"]).exists()
    eventually(lambda: service.dataset("tables").get("state") in {"unavailable", "current"}, 15, service.bed.tail)
    service.call("scan", 30, name="tables", accept_root=True)  # another machine than the one of the state
    assert service.dataset("tables")["version"] > 3
    done = service.bed.run("reprod", "log", "tables")
    assert "not up to date" not in done.stderr


def test_a_service_says_how_it_is_restarted(service: Service) -> None:
    """A client of another version is told the command of this very unit; it is one that works."""
    service.configure("")
    service.start()
    first = service.pid
    command = service.call("hello")["restart"]
    assert command == "systemctl restart reprod"
    assert service.bed.run(*command.split()).returncode == 0
    assert service.pid != first
