"""Owns what an environment is: values, digest, JSON form, and the files and parameters that a run gets from it.

What is not known is None or absent, with its reason in ``unknown`` (section -> reason): never guessed, never taken
from another process. Strings were redacted and made fit for UTF-8 where they were captured. Times are nanoseconds
since the epoch, sizes are bytes. Nothing here reads a file.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

from reprod.core.process import ProcessContext
from reprod.errors import DamagedError

__all__ = [
    "Environment",
    "Git",
    "Gpu",
    "Package",
    "ProcessContext",
    "Python",
    "Subject",
    "System",
    "artifacts",
    "convert",
    "decode",
    "encode",
    "parameters",
    "requirements_text",
    "system_info",
]

SubjectKind = Literal["process", "interpreter", "host"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose environment this is, and ``how`` that was found out (``in-process``, ``handover``, ``files of ...``)."""

    kind: SubjectKind
    host: str
    boot_id: str
    how: str
    pid: int | None = None
    start_ticks: int | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """One installed distribution. ``location`` is its site directory, ``direct_url`` its source if not an index."""

    name: str
    version: str
    location: str
    direct_url: str | None = None
    commit: str | None = None
    editable: bool = False


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter. ``version`` has three parts; ``executable`` is None when only files were read."""

    version: str
    prefix: str
    base_prefix: str
    implementation: str | None = None
    executable: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """A machine. ``cpu_usable`` is how many logical CPUs the subject may run on; None where it was not readable."""

    system: str
    release: str
    kernel: str
    machine: str
    os: str | None
    libc: str | None
    cpu_model: str | None
    cpu_logical: int | None
    cpu_physical: int | None
    cpu_usable: int | None
    memory_bytes: int
    swap_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that a driver reports; fields that the driver does not tell are None."""

    index: int
    name: str
    driver: str | None
    uuid: str | None
    bus: str | None


@dataclass(frozen=True, slots=True)
class Git:
    """The repository of the user's code. ``branch`` is None on a detached head; untracked files count as dirty."""

    commit: str
    branch: str | None
    dirty: bool
    root: str
    remote: str | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """What a process, an interpreter or a host was like at ``taken_ns``.

    ``problems`` are items that could not be read within a section that is known: a broken package, for example.
    """

    subject: Subject
    taken_ns: int
    python: Python | None = None
    packages: tuple[Package, ...] | None = None
    system: System | None = None
    gpus: tuple[Gpu, ...] | None = None
    git: Git | None = None
    variables: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    unknown: dict[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """Return sha256 (hex) of what describes the environment: equal for two processes that ran in the same one.

        When and by which process it was seen is left out: time, pid, start ticks, boot and the way of finding out.
        """
        import msgspec

        value = msgspec.to_builtins(self)
        del value["taken_ns"]
        for key in ("pid", "start_ticks", "boot_id", "how"):
            del value["subject"][key]
        return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def encode(env: Environment) -> bytes:
    """Return the environment as one JSON object."""
    import msgspec

    return msgspec.json.encode(env)


def decode(data: bytes) -> Environment:
    """Return the environment that ``encode`` wrote; raise DamagedError if it is not one."""
    import msgspec

    try:
        return msgspec.json.decode(data, type=Environment)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(error) from error


def convert(value: object) -> Environment:
    """Return the environment in a decoded JSON object, as a handover brings it; raise DamagedError if it is not one."""
    import msgspec

    try:
        return msgspec.convert(value, Environment)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _damaged(error) from error


def requirements_text(env: Environment) -> str:
    """Return ``requirements.txt``: header lines, then ``name==version`` in order; only where packages are known."""
    if env.packages is None:
        raise ValueError("the packages of this environment are unknown")
    python = f"{env.python.implementation or 'Python'} {env.python.version}" if env.python else "unknown"
    lines = [
        f"# Captured by reprod at {_timestamp(env.taken_ns)}",
        f"# Python: {python}",
        f"# Environment: {env.subject.kind} {env.subject.prefix or ''} on {env.subject.host} ({env.subject.how})",
    ]
    lines += [
        f"# {package.name}: {'editable, ' if package.editable else ''}from {package.direct_url}"
        for package in env.packages
        if package.direct_url is not None
    ]
    lines += [f"# not readable: {problem}" for problem in env.problems]
    # A line break inside a value must not become a requirement.
    lines = [re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", line) for line in lines]
    lines += [f"{package.name}=={package.version}" for package in sorted(env.packages, key=_by_name)]
    return "\n".join(lines) + "\n"


def system_info(env: Environment) -> dict[str, Any]:
    """Return ``system_info.json``: the seed's keys (null where unknown), and beside them what else is known."""
    import msgspec

    system = env.system
    known = cast("dict[str, Any]", msgspec.to_builtins(env))
    git = known["git"]
    return {
        "schema": "reprod.system_info/1",
        "timestamp": _timestamp(env.taken_ns),
        "platform": system
        and {
            "system": system.system,
            "release": system.release,
            "version": system.kernel,
            "machine": system.machine,
            "os": system.os,
            "libc": system.libc,
        },
        "python": known["python"],
        "cpu": system
        and {
            "model": system.cpu_model,
            "count": _cpu_count(system),
            "logical_cores": system.cpu_logical,
            "physical_cores": system.cpu_physical,
            "usable_cores": system.cpu_usable,
        },
        "memory": system and {"total_bytes": system.memory_bytes, "swap_bytes": system.swap_bytes},
        "gpu": known["gpus"],
        "git": git and {**{key: git[key] for key in git if key != "dirty"}, "uncommitted_changes": git["dirty"]},
        "environment_variables": dict(sorted(env.variables.items())),
        "packages_count": None if env.packages is None else len(env.packages),
        "subject": known["subject"],
        "digest": env.digest(),
        "problems": known["problems"],
        "unknown": dict(sorted(env.unknown.items())),
    }


def parameters(env: Environment) -> dict[str, str]:
    """Return the MLflow parameters that the environment gives; what is unknown is absent."""
    git, system = env.git, env.system
    values: dict[str, str | int | None] = {
        "python_version": env.python.version if env.python else None,
        "platform_system": system.system if system else None,
        "cpu_count": _cpu_count(system) if system else None,
        "gpu_count": None if env.gpus is None else len(env.gpus),
        "git_commit": git.commit if git else None,
        "git_branch": git.branch if git else None,
        "git_uncommitted_changes": None if git is None else "true" if git.dirty else "false",
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def artifacts(env: Environment) -> dict[str, bytes]:
    """Return the files of ``environment/`` by name; those about packages only where packages are known."""
    import msgspec

    files = {"system_info.json": _pretty(system_info(env))}
    if env.packages is not None:
        packages = msgspec.to_builtins(tuple(sorted(env.packages, key=_by_name)))
        files["requirements.txt"] = requirements_text(env).encode()
        files["packages.json"] = _pretty(
            {
                "schema": "reprod.packages/1",
                "timestamp": _timestamp(env.taken_ns),
                "packages": packages,
                "problems": env.problems,
            }
        )
    return dict(sorted(files.items()))


def _cpu_count(system: System) -> int | None:
    return system.cpu_usable if system.cpu_usable is not None else system.cpu_logical


def _by_name(package: Package) -> tuple[str, str]:
    return (re.sub(r"[-_.]+", "-", package.name).lower(), package.version)


def _pretty(value: object) -> bytes:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _timestamp(taken_ns: int) -> str:
    return datetime.fromtimestamp(taken_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _damaged(error: Exception) -> DamagedError:
    return DamagedError(
        f"this is not an environment record: {error}", hint="it was written by another version of reprod, or damaged"
    )
