"""What the journal of a real systemd has of the service: fields to ask by, whole tracebacks; and when it restarts."""

import signal

import pytest
from bed import Bed, eventually
from service_place import UNIT, Service

pytestmark = pytest.mark.systemd

#: A daemon with a bug in one dataset's look at its files, which puts a traceback into the log.
BUG = """
from reprod.daemon import work
def break_down(*_, **__):
    raise RuntimeError("a bug of the test's\\nwith two lines")
work.refresh = break_down
"""

#: A daemon that logs what no datagram takes.
LONG = """
from reprod.daemon import app
def say(daemon):
    daemon.log.warning("config.dataset_disabled", dataset="long", error="word " * 120_000 + "end")
app.Daemon.say_disabled = say
"""


def test_the_journal_is_asked_by_fields(service: Service, bed: Bed) -> None:
    """34: `journalctl REPROD_DATASET=x PRIORITY=3` finds what went wrong with a dataset; people read a sentence, and
    nothing comes as lines of JSON."""
    service.make_data("/srv/whole")
    service.make_data("/srv/gone")
    service.configure("", whole="/srv/whole", gone="/srv/gone")
    service.start()
    eventually(lambda: service.dataset("gone").get("state") == "current", 20, service.said)
    bed.path("/srv/gone").rename(bed.path("/srv/away"))

    def wrong() -> list[dict[str, str]]:
        return bed.journal("REPROD_DATASET=gone", "PRIORITY=3", f"_SYSTEMD_UNIT={UNIT}")

    (entry,) = eventually(wrong, 20, service.said)
    assert entry["REPROD_EVENT"] == "dataset.failed"
    assert entry["SYSLOG_IDENTIFIER"] == "reprod"
    assert entry["_TRANSPORT"] == "journal"
    assert entry["MESSAGE"].startswith("dataset.failed gone: /srv/gone ")
    assert "(hint: " in entry["MESSAGE"]
    assert bed.journal("REPROD_DATASET=whole", "PRIORITY=3") == []
    walked = ("REPROD_EVENT=dataset.refreshed", "REPROD_DATASET=whole")
    (refreshed,) = eventually(lambda: bed.journal(*walked), 10, service.said)
    assert (refreshed["PRIORITY"], refreshed["REPROD_FILES"], refreshed["REPROD_SEALED"]) == ("6", "2", "true")
    assert [entry for entry in service.messages() if str(entry["MESSAGE"]).startswith("{")] == []


def test_a_traceback_is_one_record(service: Service, bed: Bed) -> None:
    """34: all lines of a traceback are one record, in the sentence and in a field of their own; so is a dump of all
    tasks and threads, which may be long."""
    service.make_data("/srv/buggy")
    service.configure("", buggy="/srv/buggy")
    service.run_instead(BUG)
    service.start()

    def failed() -> list[dict[str, str]]:
        return bed.journal("REPROD_DATASET=buggy", "PRIORITY=3", "REPROD_EVENT=dataset.failed")

    entry = eventually(failed, 20, service.said)[0]
    lines = entry["REPROD_TRACEBACK"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == ["RuntimeError: a bug of the test's", "with two lines"]
    assert "Traceback (most recent call last):" in entry["MESSAGE"].splitlines()
    bed.systemctl("kill", f"--signal={signal.SIGUSR2.name}", "--kill-whom=main", UNIT)
    (dump,) = eventually(lambda: bed.journal("REPROD_EVENT=daemon.dump"), 20, service.said)
    assert "task dataset buggy" in dump["REPROD_DUMP"].splitlines()
    assert len(dump["REPROD_DUMP"].splitlines()) > 50
    assert service.get("ActiveState") == "active"
    assert service.get("NRestarts") == "0"


def test_a_long_record_arrives_whole(service: Service, bed: Bed) -> None:
    """A record of a megabyte reaches the journal as one, from within the sandbox."""
    service.configure("")
    service.run_instead(LONG)
    service.start()
    (entry,) = eventually(lambda: bed.journal("REPROD_DATASET=long", "PRIORITY=4"), 20, service.said)
    assert entry["REPROD_ERROR"] == "word " * 120_000 + "end"
    assert entry["MESSAGE"].endswith(" end")


def test_a_journal_that_restarts_is_found_again(service: Service, bed: Bed) -> None:
    """34: while journald restarts the daemon lives, in the sandbox too, and logs again when it is there."""
    service.make_data("/srv/logged")
    service.configure("", logged="/srv/logged")
    service.start()
    eventually(lambda: service.dataset("logged").get("state") == "current", 20, service.said)
    pid = service.pid
    for _ in range(3):
        bed.systemctl("restart", "systemd-journald")
        assert service.call("reload")
    bed.systemctl("stop", "systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
    for _ in range(50):
        assert service.call("reload")
    bed.systemctl("start", "systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald.service")

    def logs_again() -> bool:
        before = len(bed.journal("REPROD_EVENT=config.reloaded"))
        service.call("reload")
        return len(bed.journal("REPROD_EVENT=config.reloaded")) > before

    eventually(logs_again, 20, service.said)
    assert service.pid == pid
    assert service.get("NRestarts") == "0"
