"""Real Slurm: one node, its controller and daemon started here, jobs by ``srun`` and ``sbatch``.

Not in the suite: it needs root, and Slurm and Munge as a system's packages install them (slurmctld, slurmd,
slurm-client, munge); no service of the system is used or touched. ``REPROD_HEAVY=1 pytest tests/heavy/test_slurm.py``
runs it, in a minute.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from heavy_place import IS_WANTED, Here, run_ids
from ports import free_port
from training_place import REPROD_RUN
from waiting import eventually

PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "sbatch", "scontrol", "scancel")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.defpath}:/usr/sbin:/usr/local/sbin") is None]

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.root,
    pytest.mark.skipif(not IS_WANTED, reason="starts a cluster: REPROD_HEAVY=1"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd needs root"),
    pytest.mark.timeout(600),
]

#: Nothing of the system's control groups is used, so that it runs in containers too: processes are found by their
#: parents, and the plugin that is named is never asked.
CONFIG = """ClusterName=heavy
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.sock
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmdSpoolDir={base}/spool
StateSaveLocation={base}/saved
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=trainings Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
TRAIN = """
import mlflow, os, sys, time
with mlflow.start_run(experiment_id=sys.argv[1]) as run:
    print(run.info.run_id, flush=True)
    time.sleep(float(sys.argv[2]))
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One node; ``variables`` are what Slurm's commands need to find it."""

    variables: dict[str, str]

    def ask(self, here: Here, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of a user to its end, in the folder of the test."""
        environ = here.variables(GIT_PYTHON_REFRESH="quiet", **self.variables)
        done = subprocess.run(command, cwd=here.base, env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield a cluster whose one node is idle; end its three daemons."""
    base = tmp_path_factory.mktemp("slurm")
    for name in ("spool", "saved"):
        (base / name).mkdir()
    (base / "munge.key").write_bytes(secrets.token_bytes(256))
    (base / "munge.key").chmod(0o400)
    host = socket.gethostname().split(".")[0]
    names = {"base": base, "host": host, "cpus": os.cpu_count(), "controller": free_port(), "node": free_port()}
    (base / "slurm.conf").write_text(CONFIG.format(**names))
    (base / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    variables = {"SLURM_CONF": str(base / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    munged = ["munged", "--foreground", "--force", f"--key-file={base}/munge.key", f"--socket={base}/munge.sock"]
    munged += [f"--{each}-file={base}/munge.{each}" for each in ("pid", "log", "seed")]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(base, variables, *munged))
        eventually((base / "munge.sock").exists, 60, (base / "munged.out").read_text)
        for name in ("slurmctld", "slurmd"):
            stack.enter_context(_running(base, variables, name, "-D"))
        eventually(lambda: _states(variables) == {"idle"}, 120, lambda: (base / "slurmd.out").read_text()[-2000:])
        yield Cluster(variables)


@contextlib.contextmanager
def _running(base: Path, variables: dict[str, str], *command: str) -> Iterator[None]:
    with (base / f"{command[0]}.out").open("ab") as log:
        environ = dict(os.environ) | variables
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=base, env=environ)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _states(variables: dict[str, str]) -> set[str]:
    command = ["sinfo", "--noheader", "--format=%t"]
    done = subprocess.run(command, env=dict(os.environ) | variables, capture_output=True, text=True, timeout=60)
    return set(done.stdout.split())


def train(here: Here, seconds: float) -> list[str]:
    """Return the command of a training that lasts so long."""
    (here.base / "train.py").write_text(TRAIN)
    return [sys.executable, "train.py", here.tracker.experiment, str(seconds)]


def slurm_of(here: Here, run_id: str) -> dict[str, Any]:
    """Return what the run's record says of its job, without what is not known."""
    (found,) = here.record(run_id)["execution"]["schedulers"]
    return {name: value for name, value in found.items() if value is not None}


def test_each_task_of_a_step_is_bound_and_says_which_it_is(cluster: Cluster, here: Here) -> None:
    """``srun -n 2 reprod run``: two runs with the job, the step, the node and a rank of their own."""
    done = cluster.ask(here, "srun", "-n", "2", *REPROD_RUN, "--dataset", here.name, "--", *train(here, 1))
    found = [slurm_of(here, run_id) for run_id in run_ids(done.stdout)]
    assert sorted((each["rank"], each["local_rank"]) for each in found) == [(0, 0), (1, 1)]
    assert len({each["job_id"] for each in found}) == 1
    for each in found:
        assert (each["kind"], each["cluster"], each["queue"]) == ("slurm", "heavy", "trainings")
        assert (each["step_id"], each["nodes"], each["tasks"], each["node"]) == ("0", 1, 2, each["node_list"])
    for run_id in run_ids(done.stdout):
        assert here.tracker.ours(run_id)["reprod.bound"] == "start"
        called = here.record(run_id)["execution"]["invocation"]
        assert called["entry"] == {"kind": "script", "name": "train.py"}
        launcher = called["launchers"][0]
        assert (launcher["name"], len(launcher["arguments"])) == ("srun", 1), "what is behind a title is no argument"


def test_in_front_of_srun_it_names_no_process_and_says_so(cluster: Cluster, here: Here) -> None:
    """The tasks still name themselves where reprod is installed beside MLflow, and their data is bound."""
    done = cluster.ask(here, *REPROD_RUN, "--dataset", here.name, "--", "srun", "-n", "2", *train(here, 1))
    assert "put reprod run behind it: srun" in done.stderr
    found = [here.record(run_id) for run_id in run_ids(done.stdout)]
    assert sorted(each["execution"]["schedulers"][0]["rank"] for each in found) == [0, 1]
    assert len({each["execution"]["subject"]["pid"] for each in found}) == 2


def test_a_job_that_is_requeued_is_recorded_twice_and_cancelled_once(cluster: Cluster, here: Here) -> None:
    """Each time it starts it is a run with the same job and another process; a process that was killed is noticed."""
    command = [*REPROD_RUN, "--dataset", here.name, "--", *train(here, 300)]
    (here.base / "job.sh").write_text(
        f"#!/bin/sh\n#SBATCH --job-name=two-times\n#SBATCH --requeue\n{' '.join(command)}\n"
    )
    output = here.base / "job.out"
    job = cluster.ask(here, "sbatch", "--parsable", f"--output={output}", "-c", "2", "job.sh").stdout.strip()
    (first,) = eventually(lambda: _printed(output, set()), 120, "the job starts")
    said = slurm_of(here, first)
    assert (said["job_id"], said["job_name"], said["cpus_per_task"]) == (job, "two-times", 2)
    assert "step_id" not in said
    cluster.ask(here, "scontrol", "requeue", job)
    eventually(lambda: here.tracker.ours(first).get("reprod.drift"), 120, "the end of its process is noticed")
    # A job that was put back may start two minutes later only.
    cluster.ask(here, "scontrol", "update", f"jobid={job}", "starttime=now")
    (second,) = eventually(lambda: _printed(output, {first}), 180, "the job starts again")
    assert slurm_of(here, second) == said
    assert here.record(second)["execution"]["subject"] != here.record(first)["execution"]["subject"]
    cluster.ask(here, "scancel", job)
    eventually(lambda: here.tracker.ours(second).get("reprod.drift"), 120, "the end of its process is noticed")
    assert here.tracker.ours(second)["reprod.drift"] == "none"


def _printed(output: Path, known: set[str]) -> list[str]:
    """Return the runs that a job has printed, less those that are known; one that is requeued starts a new file."""
    return [each for each in run_ids(output.read_text() if output.exists() else "") if each not in known]
