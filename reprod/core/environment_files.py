"""What a captured environment becomes for people and for a run: files, the parameters of the seed, and back.

``requirements.txt`` and ``system_info.json`` are for people; ``packages.json`` and ``environment.json`` hold together
all that a record knows, so that a record can be read back from a run. Pure: the same record gives the same bytes. What
is not known is null or absent. Sizes are bytes.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from reprod.core import rebuild
from reprod.core.described import described
from reprod.core.environment import PREFIX, Environment, Record
from reprod.core.machine import Cpu, Limits
from reprod.core.packages import explicit_text
from reprod.core.rebuild import Rebuildable
from reprod.core.repository import is_file_name
from reprod.errors import DamagedError

#: Sections that have a file of their own.
_APART = ("packages", "conda")


def rebuildable(env: Environment) -> Rebuildable:
    """Return whether packages and code can be had again, and each reason against it."""
    git = env.git
    code = None if git is None else Rebuildable(git.restorable or "no", git.reasons)
    return rebuild.judge(env.packages, env.conda, python=env.python, code=code)


def requirements_text(record: Record) -> str:
    """Return ``requirements.txt``; only where packages are known."""
    env, subject = record.environment, record.execution.subject
    if env.packages is None:
        raise ValueError("the packages of this environment are unknown")
    python = f"{env.python.implementation or 'Python'} {env.python.version}" if env.python else "unknown"
    header = [
        f"Captured by reprod at {_timestamp(record.execution.taken_ns)}",
        f"Python: {python}",
        f"Environment: {subject.kind} {subject.prefix or ''} on {subject.host} ({subject.how})",
    ]
    return rebuild.requirements_text(env.packages, header=header)


def system_info(record: Record, reference: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return ``system_info.json``: the seed's keys (null where unknown), and beside them what else is known.

    ``reference`` says where files lie that are not beside it.
    """
    import msgspec

    env, execution = record.environment, record.execution
    known = cast("dict[str, Any]", msgspec.to_builtins(env))
    seen = cast("dict[str, Any]", msgspec.to_builtins(execution))
    git, verdict = known["git"], rebuildable(env)
    return {
        "schema": "reprod.system_info/1",
        "timestamp": _timestamp(execution.taken_ns),
        "platform": env.system and {**_renamed(known["system"], kernel="version"), "processor": env.system.machine},
        "python": known["python"],
        "cpu": env.cpu and {**_cores(env.cpu, env.limits), **known["cpu"]},
        "memory": known["memory"],
        "limits": known["limits"],
        "gpu": env.accelerators and known["accelerators"]["gpus"],
        "visible_gpus": seen["visible_gpus"],
        "cuda": known["cuda"],
        "rocm": known["rocm"],
        "git": git and _renamed(git, dirty="uncommitted_changes"),
        "environment_variables": dict(sorted({**env.variables, **execution.variables}.items())),
        "other_variables": known["other_variables"],
        "packages_count": None if env.packages is None else len(env.packages.packages),
        "rebuildable": verdict.verdict,
        "not_rebuildable": list(verdict.reasons),
        "container": known["container"],
        "cloud": seen["cloud"],
        "schedulers": seen["schedulers"],
        "process": seen["invocation"],
        "numerics": seen["numerics"],
        "random_state": seen["random_state"],
        "imports": seen["imports"],
        "named_imports": seen["named_imports"],
        "disks": seen["disks"],
        "benchmark": seen["benchmark"],
        "subject": seen["subject"],
        "digest": PREFIX + env.digest(),
        "reference": reference,
        "problems": _problems(known),
        "unknown": dict(sorted({**env.unknown, **execution.unknown}.items())),
    }


def parameters(env: Environment) -> dict[str, str]:
    """Return the MLflow parameters that the environment gives; what is unknown is absent."""
    git = env.git
    values: dict[str, str | int | None] = {
        "python_version": env.python.version if env.python else None,
        "platform_system": env.system.system if env.system else None,
        "cpu_count": _cpu_count(env.cpu, env.limits),
        "gpu_count": None if env.accelerators is None else len(env.accelerators.gpus),
        "git_commit": git.commit if git else None,
        "git_branch": git.branch if git else None,
        "git_uncommitted_changes": None if git is None or git.dirty is None else "true" if git.dirty else "false",
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def artifacts(record: Record, reference: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """Return the files of ``environment/`` by name; those about packages only where packages are known.

    ``reference`` says where those lie that are not put beside the others.
    """
    import msgspec

    env = record.environment
    about = {"timestamp": _timestamp(record.execution.taken_ns), "digest": PREFIX + env.digest()}
    value = cast("dict[str, Any]", msgspec.to_builtins(env))
    apart = {name: value.pop(name) for name in _APART}
    whole = {"schema": "reprod.environment/1", **about, "reference": reference, "environment": value}
    files = {
        **{name: content for name, content in record.files.items() if is_file_name(name)},
        "system_info.json": _pretty(system_info(record, reference)),
        "environment.json": _pretty({**whole, "execution": msgspec.to_builtins(record.execution)}),
    }
    if env.packages is not None:
        files["requirements.txt"] = requirements_text(record).encode()
        installed = {"schema": "reprod.packages/1", **about, **apart["packages"], "conda": apart["conda"]}
        files["packages.json"] = _pretty(installed)
    if env.conda is not None:
        header = (f"Captured by reprod at {about['timestamp']}",)
        files["conda_packages.txt"] = explicit_text(env.conda, header=header).encode()
    return dict(sorted(files.items()))


def read_back(environment: bytes, packages: bytes | None) -> Record:
    """Return the record that ``environment.json`` and ``packages.json`` hold; raises DamagedError if they do not.

    Without the second the packages are unknown, which the record then says.
    """
    import msgspec

    try:
        whole = msgspec.json.decode(environment)
        record = msgspec.convert(
            {"environment": whole["environment"], "execution": whole["execution"]}, described(Record)
        )
        if packages is not None:
            installed = msgspec.json.decode(packages)
            known = msgspec.convert({"packages": installed, "conda": installed["conda"]}, described(Environment))
            record = replace(
                record, environment=replace(record.environment, packages=known.packages, conda=known.conda)
            )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as error:
        raise DamagedError(f"this is no environment that reprod wrote: {error}") from error
    whole_record = packages is not None or "packages" in record.environment.unknown
    if whole_record and PREFIX + record.environment.digest() != whole.get("digest"):
        raise DamagedError("environment.json and packages.json are not of one capture, or were changed")
    return record


def _cores(cpu: Cpu, limits: Limits | None) -> dict[str, Any]:
    return {
        "count": _cpu_count(cpu, limits),
        "logical_cores": cpu.threads,
        "physical_cores": cpu.cores,
        "usable_cores": limits.affinity_count if limits else None,
    }


def _cpu_count(cpu: Cpu | None, limits: Limits | None) -> int | None:
    if limits is not None and limits.affinity_count is not None:
        return limits.affinity_count
    return cpu.threads if cpu is not None else None


def _renamed(section: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in section.items()}


def _problems(known: dict[str, Any]) -> list[str]:
    """Return what could not be read within sections that are known, each under its section's name."""
    sections = ((name, value) for name, value in known.items() if isinstance(value, dict))
    return [f"{name}: {problem}" for name, value in sections for problem in value.get("problems", ())]


def _pretty(value: object) -> bytes:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _timestamp(taken_ns: int) -> str:
    return datetime.fromtimestamp(taken_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
