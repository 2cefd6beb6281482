"""Owns where a process runs beside its machine: container, cloud, batch system. Values only.

`Container` and `Cloud` are equal for two processes of the same image and the same kind of instance, and belong to the
environment. `ContainerInstance` and `Scheduler` name this one container and this one job: they belong to the execution.
What cannot be proven is None, and ``evidence`` says what the rest was concluded from.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Container:
    """Whether a process runs in a container, and of which image.

    ``present`` is None where there are only weak signs. ``runtime`` is ``docker``, ``podman``, ``containerd``,
    ``cri-o``, ``apptainer``, ``singularity``, ``lxc``, ``systemd-nspawn`` or another that names itself. ``image_id``
    is the digest of the image's configuration, which is not the ``image_digest`` that a registry pulls by.
    """

    present: bool | None = None
    runtime: str | None = None
    image: str | None = None
    image_id: str | None = None
    image_digest: str | None = None
    evidence: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerInstance:
    """One running container; ``evidence`` is where its id was found. ``pod_uid`` is that of its Kubernetes pod."""

    id: str | None = None
    name: str | None = None
    pod_uid: str | None = None
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class Cloud:
    """The provider's machine; ``provider`` is None on a machine whose firmware names none that is known.

    ``spot`` is whether the provider may take it back. No account, subscription, project, address or instance id.
    """

    provider: str | None = None
    instance_type: str | None = None
    region: str | None = None
    zone: str | None = None
    image: str | None = None
    spot: bool | None = None
    evidence: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scheduler:
    """One batch system's name for the job that a process belongs to, as the process's variables give it.

    ``kind`` is ``kubernetes``, ``slurm``, ``pbs``, ``lsf``, ``grid-engine`` or ``ray``. ``job_name`` is a pod's name on
    Kubernetes. ``gpus`` is the list that the job was given, ``gpus_on_node`` a count; ``nodes`` and ``tasks`` are
    counts; ``rank`` and ``local_rank`` number the task in the job and on its node.
    """

    kind: str
    job_id: str | None = None
    job_name: str | None = None
    array_job_id: str | None = None
    array_task_id: str | None = None
    step_id: str | None = None
    queue: str | None = None
    cluster: str | None = None
    namespace: str | None = None
    node: str | None = None
    node_list: str | None = None
    nodes: int | None = None
    tasks: int | None = None
    cpus_per_task: int | None = None
    gpus: str | None = None
    gpus_on_node: int | None = None
    rank: int | None = None
    local_rank: int | None = None
