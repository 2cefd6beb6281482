"""``reprod doctor`` against a scripted daemon: findings with their lines, exit codes, --json, the screen, bounds."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_daemon import Done, ScriptedDaemon, dataset_row, status_answer

import reprod as package
from reprod.ops import doctor_access, doctor_limits, doctor_probe, doctor_service

Run = Callable[..., Done]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def doctor(home: Path, daemon: ScriptedDaemon, reprod_process: Run, tmp_path: Path) -> Callable[..., Done]:
    """Run the doctor as a process of its own (it forks) on a daemon that says ``rows``, its server ``uri``."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_text("a")

    def run(*rows: dict[str, Any], argv: tuple[str, ...] = ("--json",), **changes: Any) -> Done:
        rows = rows or (dataset_row("imagenet", path=str(data), watch="inotify"),)
        answer = status_answer(*rows, **{"version": package.__version__, **changes})
        answer["config"] = str(home / "etc" / "reprod.toml")
        answer["tracking"] = {**answer["tracking"], "uri": f"sqlite:///{home}/mlflow.db", **changes.get("tracking", {})}
        daemon.says("status", **answer)
        return reprod_process("doctor", *argv, MLFLOW_TRACKING_URI=answer["tracking"]["uri"] or "")

    return run


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may go to, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="reprod-public-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def findings(done: Done, check: str, level: str | None = None) -> list[dict[str, Any]]:
    """Return the findings of one check."""
    return [
        each for each in done.json["findings"] if each["check"] == check and (level is None or each["level"] == level)
    ]


def only(done: Done, check: str, level: str) -> dict[str, Any]:
    """Return the one finding of a check and level."""
    found = findings(done, check, level)
    assert len(found) == 1, (done.out, done.err)
    return found[0]


def needed(done: Done) -> list[str]:
    return [each["what"] for each in done.json["findings"] if each["level"] in {"bad", "warn"}]


def test_nothing_to_do_is_0(doctor: Callable[..., Done]) -> None:
    """Everything is as it should be: exit 0, each check says so, and nothing is to be mended."""
    done = doctor()

    assert (done.code, done.err, needed(done)) == (0, "", [])
    assert done.json["schema"] == "reprod.doctor/1"
    assert {"daemon", "tracking", "shell", "permissions", "watch", "inotify", "state", "disk"} <= {
        each["check"] for each in done.json["findings"]
    }
    assert done.json["summary"]["ok"] == len(done.json["findings"])


def test_without_a_daemon_the_rest_is_looked_at(home: Path, reprod_process: Run) -> None:
    """No daemon: exit 3 if nothing else is wrong, the checks that need none are made, and how to start it is said."""
    (home / "etc" / "reprod.toml").write_text(f'[mlflow]\ntracking_uri = "sqlite:///{home}/mlflow.db"\n')
    (home / "data").mkdir()
    (home / "etc" / "datasets.d" / "x.toml").write_text(f'path = "{home}/data"\n')
    uri = f"sqlite:///{home}/mlflow.db"
    done = reprod_process("doctor", "--json", MLFLOW_TRACKING_URI=uri)

    assert done.code == 3, done.out
    assert done.json["live"] is False
    assert "reprod daemon" in only(done, "daemon", "unknown")["mend"]
    assert only(done, "watch", "unknown")["needs_daemon"] is True
    assert findings(done, "permissions", "ok")
    (home / "data").rmdir()
    assert reprod_process("doctor", "--json", MLFLOW_TRACKING_URI=uri).code == 1  # what is to be mended goes first


def test_another_version_is_to_be_restarted(doctor: Callable[..., Done]) -> None:
    """A daemon of another version than the command: both versions, and the line that starts it again."""
    done = doctor(version="0.0.9")

    found = only(done, "daemon", "warn")
    assert done.code == 1
    assert f"this command is reprod {package.__version__}" in found["what"]
    assert "is 0.0.9" in found["what"]
    assert found["mend"]


def test_a_dataset_in_trouble_has_its_cause_and_its_cure(doctor: Callable[..., Done], tmp_path: Path) -> None:
    """Misconfigured, another file system, missing, incomplete: each is named, with the line for just that dataset."""
    data = str(tmp_path / "data")
    done = doctor(
        dataset_row("bad", "misconfigured", path=None, reason="/x/bad.toml:3: unfit", hint="a number"),
        dataset_row("worse", "misconfigured", path=None, reason="/x y/worse.toml: there is no path", hint="add it"),
        dataset_row("cut", "misconfigured", path=None, reason="/etc/cut.toml is not TOML: end (at line 7, column 3)"),
        dataset_row(
            "moved", "unavailable", path=data, reason="is on ext4 now", hint="if right: reprod scan NAME --accept-root"
        ),
        dataset_row("away", "unavailable", path=f"{data}/nowhere", reason="does not exist", hint="is it mounted?"),
        dataset_row(
            "torn", "incomplete", path=data, problem_count=2, problems=[{"path": "a\nb", "problem": "unreadable"}]
        ),
    )

    mends = {each["dataset"]: each["mend"] for each in findings(done, "datasets", "bad")}
    assert mends["bad"] == ["${EDITOR:-vi} +3 /x/bad.toml && reprod reload    # a number"]
    assert mends["worse"] == ["${EDITOR:-vi} +1 '/x y/worse.toml' && reprod reload    # add it"]
    assert "${EDITOR:-vi} +7 /etc/cut.toml && " in mends["cut"][0]
    assert mends["moved"] == ["reprod scan moved --accept-root"]
    assert mends["away"][-1] == "reprod dataset remove away"
    assert mends["torn"] == ["reprod status torn"]
    assert done.code == 1


def test_how_each_dataset_is_watched(doctor: Callable[..., Done], tmp_path: Path) -> None:
    """Polled by a limit is to be mended with the daemon's own line; polled because of NFS or as configured is fine."""
    row = {"path": str(tmp_path / "data"), "watch": "poll"}
    limit = "inotify limit reached (fs.inotify.max_user_watches = 8192): sysctl -w fs.inotify.max_user_watches=1048576"
    done = doctor(
        dataset_row("large", **row, watch_reason=limit),
        dataset_row("far", **row, watch_reason="nfs4: changes made by other hosts make no events here"),
        dataset_row("asked", **row, watch_reason="configured: watch.backend = poll"),
        dataset_row("odd", path=str(tmp_path / "data"), watch="none", watch_reason="cannot watch: odd"),
    )

    warned = {each["dataset"]: each for each in findings(done, "watch", "warn")}
    assert set(warned) == {"large", "odd"}
    assert warned["large"]["mend"][0].endswith("sysctl -w fs.inotify.max_user_watches=1048576")
    assert {each["dataset"] for each in findings(done, "watch", "ok")} == {"far", "asked"}


def test_lost_events_lead_to_the_queues_limit(doctor: Callable[..., Done], tmp_path: Path) -> None:
    """A queue that overflowed: how often, and the setting that makes it longer."""
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queue >= doctor_limits.USUAL_QUEUE:
        pytest.skip(f"the queue holds {queue} events here already")
    done = doctor(dataset_row("x", path=str(tmp_path / "data"), watch="inotify", watch_overflows=3))

    found = only(done, "inotify", "warn")
    assert "x 3 times" in found["what"]
    assert "fs.inotify.max_queued_events = 131072" in found["mend"][0]


def test_no_tracking_server_is_mended_by_its_line(doctor: Callable[..., Done], home: Path) -> None:
    """The line that is given names a server in reprod.toml and leaves it TOML, whatever was in it."""
    from reprod.config import load

    config = home / "etc" / "reprod.toml"
    for text in ("", "[scan]\nworkers = 2\n", "[mlflow]\npoll_seconds = 3\n", '[mlflow]\ntracking_uri = ""\n'):
        config.write_text(text)
        found = only(doctor(tracking={"uri": None, "state": "none"}), "tracking", "bad")
        write = found["mend"][0].partition(" && ")[0].partition("; ")[0]
        subprocess.run(["sh", "-c", write], check=True, timeout=10, stdout=subprocess.DEVNULL)

        assert load(str(config)).mlflow.tracking_uri == "local", (text, write)


def test_a_wrong_configuration_is_not_one_without_a_server(home: Path, reprod_process: Run) -> None:
    """A reprod.toml that cannot be used: the line that opens it where it is wrong, and nothing of what it might say."""
    (home / "etc" / "reprod.toml").write_text('[mlflow]\npoll_seconds = "x"\n')
    done = reprod_process("doctor", "--json")

    found = only(done, "datasets", "bad")
    assert found["what"].startswith(f"{home}/etc/reprod.toml:2: [mlflow] poll_seconds = ")
    assert found["mend"][0].startswith(f"${{EDITOR:-vi}} +2 {home}/etc/reprod.toml && reprod daemon    # ")
    assert [each["level"] for each in findings(done, "tracking")] == ["unknown"]


def test_another_server_than_the_shells_is_said(daemon: ScriptedDaemon, home: Path, reprod_process: Run) -> None:
    """MLFLOW_TRACKING_URI of this shell against the daemon's server; a password in either is not shown."""
    theirs = {"uri": "http://u:hunter2secret@127.0.0.1:9/", "state": "reachable"}
    daemon.says("status", **status_answer(version=package.__version__, tracking=theirs))
    done = reprod_process("doctor", "--json", MLFLOW_TRACKING_URI="http://elsewhere:5000")

    assert "http://elsewhere:5000" in only(done, "shell", "bad")["what"]
    assert only(done, "shell", "bad")["mend"][0].startswith("export MLFLOW_TRACKING_URI=")
    assert "hunter2secret" not in done.out
    assert findings(reprod_process("doctor", "--json", MLFLOW_TRACKING_URI="http://localhost:9"), "shell", "ok")


def test_a_daemon_that_hangs_is_a_finding_all_the_same(daemon: ScriptedDaemon, reprod_process: Run, home: Path) -> None:
    """A daemon that takes the question and never answers is left behind: exit 1, said as bad."""

    over = threading.Event()

    def hang(_: dict[str, Any]) -> dict[str, Any]:
        over.wait(110)
        return {"result": {}}

    daemon.answers["hello"] = hang
    began = time.monotonic()
    done = reprod_process("doctor", "--json")
    took_s = time.monotonic() - began
    over.set()

    assert took_s < 60
    assert done.code == 1
    assert "does not answer" in only(done, "daemon", "bad")["what"]


def test_a_look_that_hangs_is_left_behind() -> None:
    """A look at a dead mount ends with its time: no answer, no process, and the others' answers are there."""
    code = (
        "import time, os\n"
        "from reprod.ops.doctor_probe import gather\n"
        "looks = {'dead': (lambda: time.sleep(90), None), 'fine': (lambda: [1], None), 'bug': (lambda: 1 / 0, None)}\n"
        "print(gather(looks, 2), flush=True)\n"
        "try:\n    print('killed', os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]))\n"
        "except ChildProcessError:\n    print('nobody is left')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=80)

    answers, left = done.stdout.splitlines()
    assert answers == "{'dead': None, 'fine': [1], 'bug': None}"
    assert left in {"nobody is left", "killed -9"}  # it was killed, and may have been dying still when that was asked


def test_only_root_looks_as_another_user(reprod: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--as of somebody else without root is 77 with the line that works; of nobody known 4."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    done = reprod("doctor", "--as", "nobody")

    assert done.code == 77
    assert "hint: sudo reprod doctor --as nobody" in done.err
    assert reprod("doctor", "--as", "no-such-user-here").code == 4


@needs_root
def test_permissions_are_tried_as_the_user_that_is_named(doctor: Callable[..., Done], public: Path) -> None:
    """--as: each closed place is found by opening, named with mode and owner, with the cures by group and ACL."""
    data = public / "data"
    row = dataset_row("imagenet", path=str(data), watch="inotify")
    for name in ("open", "closed", "grouped"):
        (data / name / "below").mkdir(parents=True)
    (data / "open" / "secret.csv").write_text("x")
    (data / "open" / "secret.csv").chmod(0o600)
    (data / "closed").chmod(0o700)
    os.chown(data / "grouped", 0, 1)
    (data / "grouped").chmod(0o750)

    done = doctor(row, argv=("--json", "--as", "nobody"))
    bad = {
        re.sub(r".*may not (\w+ ?\w*) (/\S+) .*", r"\1 \2", each["what"]): each["mend"]
        for each in findings(done, "permissions", "bad")
    }
    assert set(bad) == {f"read {data}/open/secret.csv", f"list {data}/closed", f"list {data}/grouped"}
    group = f"usermod -aG {doctor_access.grp.getgrgid(1).gr_name} nobody"
    assert bad[f"list {data}/grouped"][0] == group
    assert bad[f"list {data}/closed"][0].startswith(f"setfacl -R -m u:nobody:rX {data}")
    data.chmod(0o700)
    found = only(doctor(row, argv=("--json", "--as", "nobody")), "permissions", "bad")
    assert f"may not list {data} (mode 0700, root:root)" in found["what"]
    public.chmod(0o700)
    found = only(doctor(row, argv=("--json", "--as", "nobody")), "permissions", "bad")
    assert f"may not go through {public} (mode 0700, root:root)" in found["what"]
    assert found["mend"] == [f"setfacl -m u:nobody:x {public}"]


@needs_root
def test_a_capability_counts_and_a_link_is_followed(public: Path) -> None:
    """What a process with CAP_DAC_READ_SEARCH reads is open, as access(2) would deny; a closed target is named."""
    (public / "closed" / "below").mkdir(parents=True)
    (public / "closed").chmod(0o700)
    (public / "link").symlink_to(public / "closed" / "below")
    code = (
        "import dataclasses, json, sys\n"
        "from reprod.ops.doctor_access import closed_within\n"
        "from reprod.ops.doctor_probe import ask_as, person_named\n"
        "nobody = person_named('nobody')\n"
        "look = lambda: [each.document() for each in closed_within(sys.argv[1])[0]]\n"
        "able = dataclasses.replace(nobody, reads_all=True)\n"
        "print(json.dumps([ask_as(nobody, look, 5), ask_as(able, look, 5)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(public / "link")], capture_output=True, text=True, timeout=20
    )
    plain, able = json.loads(done.stdout)

    assert [(each["path"], each["needs"]) for each in plain] == [(str(public / "closed"), "x")]
    assert able == []


def test_the_state_directory_is_looked_at(doctor: Callable[..., Done], home: Path) -> None:
    """A mode that lets others write, and databases that were set aside, with the lines that end both."""
    (home / "state" / "datasets").mkdir()
    (home / "state" / "datasets" / "x.sqlite.damaged-20261123T000000Z").write_bytes(b"")
    (home / "state").chmod(0o770)
    done = doctor()
    (home / "state").chmod(0o700)

    found = findings(done, "state", "bad")
    assert found[0]["mend"][0].endswith(f"chmod go-w {home}/state")
    assert "x.sqlite.damaged-20261123T000000Z" in only(done, "state", "warn")["what"]


@pytest.mark.parametrize(
    ("properties", "path", "directives"),
    [
        ({"PrivateTmp": "yes"}, "/tmp/x", ["PrivateTmp=yes"]),
        ({"PrivateTmp": "yes"}, "/var/tmp/x/y", ["PrivateTmp=yes"]),
        ({"PrivateTmp": "no"}, "/tmp/x", []),
        ({"PrivateTmp": "yes"}, "/tmpx", []),
        ({"ProtectHome": "read-only"}, "/home/alice/d", []),
        ({"ProtectHome": "yes"}, "/home/alice/d", ["ProtectHome=yes"]),
        ({"ProtectHome": "tmpfs"}, "/root/d", ["ProtectHome=tmpfs"]),
        ({"ProtectHome": "tmpfs", "BindReadOnlyPaths": "-/home/alice/d:/home/alice/d:rbind"}, "/home/alice/d/x", []),
        ({"ProtectHome": "yes", "BindReadOnlyPaths": "/home/alice/d"}, "/home/alice/d", ["ProtectHome=yes"]),
        ({"InaccessiblePaths": "-/srv/a -/srv/b"}, "/srv/b/c", ["InaccessiblePaths=/srv/b"]),
        ({"TemporaryFileSystem": "/srv:ro"}, "/srv/b", ["TemporaryFileSystem=/srv"]),
        ({"RootDirectory": "/jail"}, "/srv/b", ["RootDirectory=/jail"]),
    ],
)
def test_the_directive_that_hides_a_path_is_named(properties: dict[str, str], path: str, directives: list[str]) -> None:
    """Each directive of a unit that hides places, and what shows them again."""
    assert list(doctor_service.hiding(properties, path)) == directives


def test_the_unit_of_a_process_is_read_from_its_cgroup() -> None:
    """The machine's unit, a user's, none; with both hierarchies of cgroups."""
    machine = "1:name=systemd:/system.slice/reprod.service\n0::/system.slice/reprod.service\n"
    own = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/reprod.service\n"

    assert doctor_service.unit_of(machine) == ("reprod.service", "system")
    assert doctor_service.unit_of(own) == ("reprod.service", "user")
    for nothing in ("0::/user.slice/user-1000.slice/session-2.scope\n", "0::/\n", ""):
        with pytest.raises(LookupError):
            doctor_service.unit_of(nothing)


def test_who_a_process_is_comes_from_the_kernel() -> None:
    """User, groups and the capability of a live process; None for one that is gone."""
    me = doctor_probe.person_of(os.getpid())

    assert me is not None
    assert (me.uid, me.gid, set(me.groups)) == (os.geteuid(), os.getegid(), set(os.getgroups()))
    assert doctor_probe.person_of(2**22 + 1) is None


def test_the_screen_is_grouped_and_commands_are_whole(doctor: Callable[..., Done], tmp_path: Path) -> None:
    """Worst first, one summary line last; no command is wrapped on a narrow terminal, and no name acts on it."""
    rows = (
        dataset_row("away", "unavailable", path=f"{tmp_path}/{'long' * 30}", reason="gone \x1b[2J", hint="?"),
        dataset_row("x", path=str(tmp_path / "data"), watch="none", watch_reason="odd"),
    )
    done = doctor(*rows, argv=())

    lines = done.out.splitlines()
    heads = [line for line in lines if re.match(r"\d+ (thing|warning)", line)]
    assert heads[:2] == ["1 thing is bad", "1 warning"]
    assert heads[-1].startswith("2 things to mend   (looked as ")
    assert "\x1b" not in done.out
    assert "gone \\x1b[2J" in done.out
    assert "      mend: reprod dataset move away NEWPATH    # it is elsewhere now" in lines
    assert "        or: reprod dataset remove away" in lines
