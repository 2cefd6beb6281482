"""Batch systems: what a job's variables say, and that no other variable is ever looked at."""

import msgspec
import pytest

from reprod.capture.hosting.scheduler import read_schedulers
from reprod.core.hosting import Scheduler

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_ARRAY_JOB_ID": "4700",
    "SLURM_ARRAY_TASK_ID": "11",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_CLUSTER_NAME": "alpha",
    "SLURMD_NODENAME": "n3",
    "SLURM_JOB_NODELIST": "n[3-4]",
    "SLURM_JOB_GPUS": "0,1",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_CPUS_PER_TASK": "8",
    "SLURM_GPUS_ON_NODE": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
JOBS = [
    (
        SLURM,
        Scheduler(
            kind="slurm",
            job_id="4711",
            job_name="train",
            array_job_id="4700",
            array_task_id="11",
            step_id="0",
            queue="gpu",
            cluster="alpha",
            node="n3",
            node_list="n[3-4]",
            gpus="0,1",
            nodes=2,
            tasks=4,
            cpus_per_task=8,
            gpus_on_node=2,
            rank=3,
            local_rank=1,
        ),
    ),
    (
        {"PBS_JOBID": "12[3].head", "PBS_JOBNAME": "t", "PBS_ARRAY_INDEX": "3", "PBS_QUEUE": "q", "PBS_NUM_NODES": "2"},
        Scheduler("pbs", job_id="12[3].head", job_name="t", array_task_id="3", queue="q", nodes=2),
    ),
    (
        {"LSB_JOBID": "77", "LSB_JOBINDEX": "0", "LSB_QUEUE": "normal", "LSB_HOSTS": "h1 h1 h2"},
        Scheduler("lsf", job_id="77", queue="normal", node_list="h1 h1 h2", nodes=2, tasks=3),
    ),
    (
        {"JOB_ID": "9", "SGE_TASK_ID": "5", "QUEUE": "all.q", "NSLOTS": "4", "NHOSTS": "1", "JOB_NAME": "x"},
        Scheduler("grid-engine", job_id="9", job_name="x", array_task_id="5", queue="all.q", tasks=4, nodes=1),
    ),
    (
        {
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            "POD_NAME": "train-0",
            "POD_NAMESPACE": "ml",
            "JOB_COMPLETION_INDEX": "0",
        },
        Scheduler("kubernetes", job_name="train-0", namespace="ml", array_task_id="0"),
    ),
    ({"RAY_JOB_ID": "01000000"}, Scheduler("ray", job_id="01000000")),
]


@pytest.mark.parametrize(("environ", "job"), JOBS, ids=[job.kind for _, job in JOBS])
def test_kinds(environ, job) -> None:
    """Each batch system's job is told by its own variables; what it does not say is None."""
    assert read_schedulers(environ) == (job,)


def test_none() -> None:
    """A login shell on a cluster is in no job: settings, a root directory and a stray number are none."""
    idle = {"SLURM_CONF": "/etc/slurm.conf", "SGE_ROOT": "/opt/sge", "JOB_ID": "1", "PBS_EXEC": "/opt/pbs"}
    assert read_schedulers(idle) == ()
    assert read_schedulers({}) == ()


def test_nested() -> None:
    """A Ray job inside of a Slurm job on Kubernetes is in all three, the outermost first."""
    environ = {"RAY_JOB_ID": "02000000", **SLURM, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert [job.kind for job in read_schedulers(environ)] == ["kubernetes", "slurm", "ray"]


def test_an_array_that_is_none() -> None:
    """Grid Engine's "undefined" and LSF's 0 say that the job is no array."""
    assert read_schedulers({"JOB_ID": "9", "SGE_TASK_ID": "undefined"}) == (Scheduler("grid-engine", job_id="9"),)
    assert read_schedulers({"LSB_JOBID": "7", "LSB_JOBINDEX": "0"})[0].array_task_id is None


def test_numbers_that_are_none() -> None:
    """A count that is no plain number is None: Slurm writes "2(x3)" in some variables, anybody can write anything."""
    odd = {"SLURM_NTASKS": "2(x3)", "SLURM_NNODES": "-1", "SLURM_PROCID": "1" * 50, "SLURM_LOCALID": "１"}
    job = read_schedulers({"SLURM_JOB_ID": "1", **odd})[0]
    assert (job.tasks, job.nodes, job.rank, job.local_rank) == (None,) * 4


def test_long_and_strange_values() -> None:
    """A value of any length or encoding can be stored, and one that is cut says so."""
    job = read_schedulers({"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "n\udce9", "SLURM_JOB_NODELIST": "n," * 9000})[0]
    assert job.job_name == "n\\xe9"
    assert job.node_list is not None
    assert job.node_list.endswith("(18000 characters)")
    assert msgspec.json.decode(msgspec.json.encode(job), type=Scheduler) == job


def test_only_listed_names_are_looked_at() -> None:
    """No variable beside those of the list is asked for, so ``SLURM_JWT`` cannot get in (research, test 3)."""
    asked = set()

    class Watched(dict[str, str]):
        def get(self, name, default=None):
            asked.add(name)
            return super().get(name, default)

        def __getitem__(self, name):
            asked.add(name)
            return super().__getitem__(name)

        def __iter__(self):
            raise AssertionError("the names must not be listed")

        items = keys = values = __iter__

    environ = Watched(
        {**SLURM, "SLURM_JWT": "canary", "SLURM_JOB_ACCOUNT": "canary", "SGE_TASK_ID": "1", "JOB_ID": "1"}
    )
    found = read_schedulers(environ)
    assert len(found) == 2
    assert "canary" not in repr(found)
    assert not {name for name in asked if "JWT" in name or "TOKEN" in name or "ACCOUNT" in name}


def test_a_secret_in_a_name() -> None:
    """A job that was named after a token does not carry it along."""
    token = "ghp_" + "a1B2c3D4e5" * 4
    job = read_schedulers({"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": f"train {token}"})[0]
    assert token not in repr(job)
