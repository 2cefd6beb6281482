"""What reprod.service may do and what not, and who may talk to it, in real systemd."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bed import UNITS, USERS, Bed, eventually
from service_place import PYTHON, STATE, UNIT, Service, dt1

pytestmark = pytest.mark.systemd

CAP_DAC_READ_SEARCH = 1 << 2
EVERYWHERE = ("/", "/etc", "/etc/reprod", "/usr/local", "/home/alice", "/srv", "/var/log", "/opt", "/root")


def probe(bed: Bed, *drop_ins: str) -> dict[str, Any]:
    """Run the probe in a unit that is reprod.service but for its program; return what it found."""
    text = (UNITS / UNIT).read_text().replace("Type=notify\n", "Type=oneshot\n").replace("WatchdogSec=60s\n", "")
    text = text.replace("Restart=on-failure\n", "")
    watched = bed.show("training.service", "MainPID")["MainPID"]
    command = f"{PYTHON} /opt/reprod/src/tests/systemd/probe.py {watched} {STATE} /run/reprod {' '.join(EVERYWHERE)}"
    bed.write("/etc/systemd/system/probe.service", text.replace("/usr/bin/env reprod daemon", command))
    bed.run("rm", "-rf", "/etc/systemd/system/probe.service.d")
    for name in drop_ins:
        bed.write(f"/etc/systemd/system/probe.service.d/{name}", (UNITS / "drop-ins" / name).read_text())
    bed.systemctl("daemon-reload")
    bed.systemctl("start", "probe.service")
    said = [entry["MESSAGE"] for entry in bed.journal("_SYSTEMD_UNIT=probe.service", "--output-fields=MESSAGE")]
    found: dict[str, Any] = json.loads(next(line for line in reversed(said) if line.startswith("{")))
    return found


@contextmanager
def process_of_alice(bed: Bed) -> Iterator[None]:
    """Have alice run something for the time of the block, as a training script would be."""
    started = bed.run("systemd-run", "--unit=training", "--property=User=alice", "sleep", "600")
    assert started.returncode == 0, started.stderr
    try:
        yield
    finally:
        bed.systemctl("stop", "training.service")


def test_the_sandbox_holds(service: Service, bed: Bed) -> None:
    """12: from within the unit nothing can be written but state and socket, no code be made, no privilege gained, no
    namespace entered; what the daemon needs of other users' processes is seen, and nothing of their content."""
    service.configure()
    bed.write("/tmp/of-others", "x")
    with process_of_alice(bed):
        found = probe(bed)
    assert found["write"].pop(STATE) == "ok"
    assert found["write"].pop("/run/reprod") == "ok"
    assert set(found["write"]) == set(EVERYWHERE)
    assert set(found["write"].values()) <= {"EROFS", "EACCES"}
    assert found["write"]["/etc"] == "EROFS"
    assert found["status"] == {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": f"{0:016x}", "CapBnd": f"{0:016x}"}
    refused = {key: found[key] for key in ("writable_code", "user_namespace", "personality", "setuid", "shadow")}
    assert set(refused.values()) <= {"EPERM", "EACCES"}, refused
    assert found["packet_socket"] != "ok"
    assert found["environ_of_another"] == "EACCES"
    assert [found[key] for key in ("callback", "internet_socket", "home", "stat_of_another")] == ["ok"] * 4
    assert found["tmp"] == []
    assert (found["nice"], found["idle_io"], found["core"]) == (10, True, 0)


def test_the_drop_ins_do_what_they_say(service: Service, bed: Bed) -> None:
    """12, 14: with 10-read-all the only capability is to read, and it reads what is another user's alone, also a
    dataset, but not what is named as nobody's business; 40-token hands the secret to the unit alone. Without the
    drop-in the dataset has no digest and its status says why."""
    bed.write("/etc/reprod/mlflow.token", "secret", 0o600)
    with process_of_alice(bed):
        found = probe(bed, "10-read-all.conf", "40-token.conf")
    bits = f"{CAP_DAC_READ_SEARCH:016x}"
    assert (found["status"]["CapEff"], found["status"]["CapBnd"]) == (bits, bits)
    assert found["shadow"] == "nothing"  # another file lies over it, which is empty
    assert found["credentials"] == ["mlflow.token"]

    data = service.make_data("/home/alice/private", a="one")
    data.chmod(0o700)
    service.configure("", private="/home/alice/private")
    service.start()
    assert "/home/alice/private" in eventually(lambda: service.dataset("private").get("reason"), 10, service.said)
    service.drop_in((UNITS / "drop-ins" / "10-read-all.conf").read_text(), "10-read-all.conf")
    bed.systemctl("restart", UNIT)
    assert service.becomes("private", dt1(data))["watch"] == "inotify"
    (data / "a").write_text("changed")
    service.becomes("private", dt1(data))

    named = (UNITS / "drop-ins" / "30-home-tmpfs.conf").read_text().replace("/home/alice/data", "/home/alice/private")
    service.drop_in(named, "30-home-tmpfs.conf")
    bed.systemctl("restart", UNIT)
    eventually(lambda: service.dataset("private").get("state") == "unavailable", 10, service.said)
    service.call("scan", timeout_s=30, name="private", accept_root=True)  # as the file says: it is another mount
    service.becomes("private", dt1(data))
    inside = bed.run("nsenter", f"--target={service.pid}", "--mount", "ls", "/home", "/home/alice").stdout.split()
    assert inside == ["/home:", "alice", "/home/alice:", "private"]


def test_nothing_of_a_dataset_is_executed(service: Service, bed: Bed, tmp_path: Path) -> None:
    """16: a repository in a dataset that names a program of its own for git has it never run, and the daemon starts no
    process but its own interpreter's."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    data = service.make_data("/srv/repository", **{"train.py": "print()"})
    git = data / ".git"
    git.mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "config").write_text("[core]\n\tfsmonitor = touch /tmp/PWNED /PWNED\n\trepositoryformatversion = 0\n")
    bed.run("chown", "-R", "alice:alice", "/srv/repository")
    service.configure()
    service.start()
    log = tmp_path / "strace.log"
    outside = service.processes()[0]
    command = ["strace", "--follow-forks", "--trace=execve", f"--output={log}", f"--attach={outside}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        service.configure("[scan]\nworkers = 2\n", repository="/srv/repository")
        service.call("reload", timeout_s=30)
        service.becomes("repository", dt1(data))
        (data / "train.py").write_text("changed")
        service.becomes("repository", dt1(data))
        service.call("scan", timeout_s=30, name="repository", full=True)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
    executed = {line.split('"')[1] for line in log.read_text().splitlines() if "execve(" in line}
    assert executed <= {PYTHON}
    assert not bed.path("/PWNED").exists()
    assert bed.run("ls", "/tmp/PWNED").returncode != 0


def test_who_may_read_and_who_may_change(service: Service, bed: Bed) -> None:
    """20: a user outside of the group is refused with 77 and one clear line; a member of it reads and may not add;
    root adds."""
    service.make_data("/srv/shared")
    service.configure()
    service.start()
    refused = bed.run("reprod", "status", user="alice")
    assert refused.returncode == 77
    assert refused.stdout == ""
    assert f"uid {USERS['alice']}" in refused.stderr.splitlines()[0]
    assert len(refused.stderr.splitlines()) <= 2  # what happened, and what to do
    assert bed.run("reprod", "status", user="bob").returncode == 0
    add = ("reprod", "dataset", "add", "shared", "/srv/shared")
    assert bed.run(*add, user="bob").returncode == 77
    assert service.dataset("shared") == {}
    done = bed.run(*add)
    assert done.returncode == 0, done.stderr
    eventually(lambda: service.dataset("shared").get("state") == "current", 10, service.said)


@pytest.mark.mlflow
def test_a_run_is_captured_by_what_runs_in_the_sandbox(service: Service, bed: Bed) -> None:
    """12: the embedded tracking server and the process that imports MLflow work inside the sandbox: a tagged run is
    captured with the dataset's digest."""
    pytest.importorskip("mlflow")
    data = service.make_data("/srv/trained")
    service.configure('[mlflow]\ntracking_uri = "local"\npoll_seconds = 0.5\n', trained="/srv/trained")
    service.start()
    digest = service.becomes("trained", dt1(data))["digest"]
    eventually(lambda: service.call("status")["tracking"]["state"] == "reachable", 60, service.said)
    uri = service.call("status")["tracking"]["uri"]
    run = json.loads(bed.run(PYTHON, "-c", START_RUN, uri).stdout)
    captured = f"import sys\n{ASK}\nsys.exit(ask('get?run_id={run}').get('reprod.digest') != {digest!r})"
    eventually(lambda: bed.run(PYTHON, "-c", captured, uri).returncode == 0, 60, service.said)


#: What talks to the server of the bed, whose network is its own: the tags of a run, by MLflow's REST interface.
ASK = """
import json, time, urllib.request

def post(path, body):
    url = sys.argv[1] + "/api/2.0/mlflow/" + path
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(asked, timeout=10))

def ask(path):
    run = json.load(urllib.request.urlopen(sys.argv[1] + "/api/2.0/mlflow/runs/" + path, timeout=10))["run"]
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
"""

START_RUN = f"""
import sys
{ASK}
tags = [{{"key": "reprod.dataset", "value": "trained"}}]
body = {{"experiment_id": "0", "start_time": time.time_ns() // 1_000_000, "tags": tags}}
print(json.dumps(post("runs/create", body)["run"]["info"]["run_id"]))
"""
