"""What ``reprod run`` does before it becomes the command: tags for its runs, and who looks at its environment.

Stock MLflow reads ``MLFLOW_RUN_CONTEXT`` and tags every run with it that is started with ``mlflow.start_run``, so
nothing need be installed in the training environment. The process keeps its pid and start when it becomes the command,
so the context that is made here is the command's. Rule: nothing here prevents a run; what goes wrong is a warning,
unless the caller is strict. Times are seconds.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reprod.client import Client
from reprod.core.process import ProcessContext
from reprod.core.run import checked_names
from reprod.errors import DaemonUnavailableError, ReprodError, UsageError

VARIABLE = "MLFLOW_RUN_CONTEXT"

#: How long the daemon is waited for, at each step; the first is some starts of a Python.
ANSWER_S, STRICT_ANSWER_S = 0.1, 5.0

#: Where the command's interpreter is not known, or has no MLflow: a claim that no process backs.
NO_PREFIX = "/"

#: What these start runs, or may run, on another machine or in another container.
_REMOTE = """
    srun sbatch mpirun mpiexec orterun prterun prun horovodrun ray bsub qsub pbsdsh dask dask-ssh parallel-ssh pdsh ssh
    kubectl docker podman nerdctl
"""
_ELSEWHERE = frozenset(_REMOTE.split())
_CHILD = (
    "import json,sys;i=json.load(sys.stdin);sys.path+=i['sys_path'];"
    "from reprod.integrations.training_watch import watch;watch(i)"
)


@dataclass(frozen=True, slots=True)
class Launch:
    """The variables that the command gets, and what is worth a warning although it starts."""

    environ: dict[str, str]
    warnings: tuple[str, ...]


def prepare(datasets: Sequence[str], command: Sequence[str], *, strict: bool = False) -> Launch:
    """Tell the daemon of this process, which is about to become ``command``, and start the watch.

    :raises UsageError: a name that no dataset can have.
    :raises ReprodError: only with ``strict``, what otherwise is a warning.
    """
    names = checked_names(",".join(datasets))
    doubts: list[ReprodError] = []
    context = _own_context(command, doubts)
    tags = {"reprod.dataset": ",".join(names)} | ({"reprod.context": context.to_json()} if context else {})
    environ = own_variables()
    environ[VARIABLE] = _merged(environ.get(VARIABLE, ""), tags, doubts)
    path = _announce(context, names, environ, doubts, STRICT_ANSWER_S if strict else ANSWER_S)
    if doubts and strict:
        raise doubts[0]
    if context is not None:
        try:
            _start_watch(context, path)
        except OSError as error:
            doubts.append(ReprodError(f"nobody looks at the environment of the command: {error}"))
    return Launch(environ, tuple(f"{each.message}; {each.hint}" if each.hint else each.message for each in doubts))


def own_variables() -> dict[str, str]:
    """Return the variables that this process was started with, without what its own Python has added to them."""
    environ = dict(os.environ)
    try:
        with open("/proc/self/environ", "rb") as file:
            given = b"\0" + file.read()
    except OSError:
        return environ
    # In the C locale a Python sets this for its children; the command is to decide by itself.
    if b"\0LC_CTYPE=" not in given:
        environ.pop("LC_CTYPE", None)
    return environ


def _own_context(command: Sequence[str], doubts: list[ReprodError]) -> ProcessContext | None:
    """Return who the command will be; None where what it starts may be on another machine."""
    from reprod.capture.process.identity import current_context

    name = os.path.basename(command[0])
    if name in _ELSEWHERE:
        doubts.append(
            UsageError(
                f"{name} may start the run elsewhere: which process, machine and environment is not recorded",
                hint=f"put reprod run behind it: {name} ... reprod run ... -- python train.py",
            )
        )
        return None
    try:
        return replace(current_context(), prefix=claimed_prefix(command))
    except OSError:  # /proc is not mounted
        return None


def claimed_prefix(command: Sequence[str]) -> str:
    """Return the prefix of the Python that the command becomes, if that one starts runs; ``NO_PREFIX`` if not.

    It does not where it has no MLflow, or runs notebooks: their kernels may be of another environment.
    """
    from reprod.capture.process.named_interpreter import (
        has_mlflow,
        named_interpreter,
        prefix_of,
        starts_kernels,
        usual_sites,
    )

    if starts_kernels(command):
        return NO_PREFIX
    try:
        found = named_interpreter(command, os.environ.get("PATH", ""), os.getcwd())
    except OSError:  # the working directory is gone
        return NO_PREFIX
    prefix = prefix_of(found) if found is not None else NO_PREFIX
    return prefix if has_mlflow(usual_sites(prefix)) else NO_PREFIX


def _merged(given: str, tags: Mapping[str, str], doubts: list[ReprodError]) -> str:
    """Return the variable's value with ``tags`` in it: what else was there stays, in what MLflow understands."""
    kept: dict[str, Any] = {}
    if given:
        try:
            kept = dict(json.loads(given))  # as MLflow takes it: an object, or pairs
        except (ValueError, TypeError, RecursionError):
            doubts.append(
                UsageError(
                    f"{VARIABLE} was no JSON object, so MLflow would have set none of its tags: it was replaced",
                    hint='it is written as {"key": "value"}',
                )
            )
    return json.dumps(kept | dict(tags))


def _announce(
    context: ProcessContext | None,
    names: list[str],
    environ: Mapping[str, str],
    doubts: list[ReprodError],
    wait_s: float,
) -> str | None:
    """Tell the daemon who the command is; return where it listens."""
    parameters = {"context": context.to_object() if context else None, "dataset": ",".join(names)}
    try:
        with Client(timeout_s=wait_s) as client:
            client.open(retry_s=0)
            path = str(client.path)
            answer = client.call("announce", parameters)
    except DaemonUnavailableError as error:
        hint = "start one: reprod daemon; a run is recorded when one runs again"
        doubts.append(DaemonUnavailableError(error.message, hint=hint))
        return None
    except ReprodError as error:
        doubts.append(error)
        return None
    from reprod.api import doubt as doubt_about

    doubt = doubt_about(answer, names, environ.get("MLFLOW_TRACKING_URI"))
    if doubt is not None:
        doubts.append(doubt)
    return path


def _start_watch(context: ProcessContext, path: str | None) -> None:
    """Start the watch as a child of init in a session of its own, with none of this process's files. Raises OSError."""
    from reprod.capture.handover import sockets

    if not os.path.basename(sys.executable or "").startswith("python"):
        raise OSError("this interpreter cannot be started again")  # as in a frozen application
    if os.getpid() == 1:
        # Orphans become its children, and a training that waits for all of its children would wait for the watch.
        raise OSError(
            "this is process 1 of its container, which gets every child; docker run --init, or put a sh before"
        )
    with open("/proc/self/cmdline", "rb") as file:
        launcher = os.fsdecode(file.read())
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Only what is installed: a module of the user's directory must not run there.
    places = [entry for entry in sys.path if os.path.basename(entry) in {"site-packages", "dist-packages"}]
    given = {
        "context": context.to_object(),
        "launcher": launcher,
        "found": path is not None,
        "sockets": [os.path.abspath(path)] if path else sockets(),
        "sys_path": [root, *map(os.path.abspath, places)],
    }
    fd = os.memfd_create("reprod-command", os.MFD_CLOEXEC)
    os.write(fd, json.dumps(given).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        _become_watch(fd)
    os.close(fd)
    os.waitpid(child, 0)


def _become_watch(fd: int) -> None:
    """In the child: leave the session, let init have it, and start the program; never returns."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(fd, 0)
        os.dup2(null, 1)
        os.dup2(null, 2)
        # A lock or a pipe of the user's script, kept open as long as the command lives, would be held by the watch too.
        os.closerange(3, 1 + max(int(name) for name in os.listdir("/proc/self/fd")))
        os.chdir("/")
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _CHILD])  # noqa: S606 - a fixed program, no shell
    finally:
        os._exit(127)
