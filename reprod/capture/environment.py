"""Owns the ways in which an environment is read, and what each of them may claim.

In the process or handed over by it: everything. From outside: what the process's files say, verified before and after
to be that very process. Of a prefix: its packages. Of the host: the machine. Each section has a collector and a time
of its own (``reprod.capture.sections``). The daemon's own environment is never passed off for another. Every record
passes the one redaction point before it leaves here.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from reprod.capture.changed import find_change
from reprod.capture.cloud import read_cloud
from reprod.capture.conda import read_conda
from reprod.capture.container import read_container
from reprod.capture.cpu import read_cpu
from reprod.capture.cuda import read_cuda
from reprod.capture.foreign import examine, require_seen, start_environ
from reprod.capture.git import read_git
from reprod.capture.gpu import read_accelerators
from reprod.capture.imports import read_imports, read_mapped_imports
from reprod.capture.interpreter import describe_self, read_layout
from reprod.capture.limits import read_limits, read_placement
from reprod.capture.memory import read_memory
from reprod.capture.numerics import read_numerics, read_process_numerics
from reprod.capture.packages import read_packages
from reprod.capture.process import boot_id, current_context, host_name, is_alive, started_ns
from reprod.capture.process_facts import read_invocation, read_process_invocation
from reprod.capture.random_state import read_random_state
from reprod.capture.rocm import read_rocm
from reprod.capture.scheduler import read_schedulers
from reprod.capture.sections import Sections
from reprod.capture.system import read_platform
from reprod.capture.taint import TaintSet, read_taint, repository_texts
from reprod.core.environment import NO_INTERPRETER, NO_PROCESS, Environment, Record, clean
from reprod.core.execution import Execution, Subject, SubjectKind
from reprod.core.invocation import Command
from reprod.core.packages import Python
from reprod.core.process import ProcessContext
from reprod.core.redact import Redactor, allowed_variables, execution_variables, other_variables, plain
from reprod.errors import IncompleteError

NO_GIT = "only the process's own user may run git"
NOT_ASKED = "not asked"

#: Budgets in seconds beside the usual one: a site directory on a cold network file system, drivers that wake a GPU up
#: (their own bound is 5), git's own bounds together, and a metadata service that is silent (its own bound is 0.3).
PACKAGES_S, ACCELERATORS_S, GIT_S, CLOUD_S = 20.0, 7.0, 15.0, 1.0

_T = TypeVar("_T")


def capture_self(*, git: bool = True) -> Record:
    """Return the environment of the calling process; ``git=False`` leaves the repository unknown."""
    context, cwd = current_context(), _working_directory()
    subject = _subject("process", "in-process", context)
    capture = _Capture(subject, os.environ)
    capture.interpreter(describe_self(), [os.path.join(cwd, path) for path in sys.path])
    capture.machine()
    capture.process()
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    capture.repository(script, cwd, asked=git)
    return capture.record()


def capture_paths(
    context: ProcessContext,
    *,
    sys_path: Sequence[str],
    python: Python,
    cwd: str,
    script: str | None = None,
    variables: Mapping[str, str] | None = None,
    how: str = "handover",
    git: bool = True,
) -> Record:
    """Return the environment of process ``context`` as that process described itself.

    To be called in its own child, as its user: git is run here. ``variables`` is its whole environment, of which only
    the allowed names are kept; the repository is that of ``script``, else of ``cwd``.
    """
    capture = _Capture(_subject("process", how, context), os.environ if variables is None else variables)
    site_dirs = [os.path.join(cwd, path) for path in sys_path]
    capture.process(context, site_dirs, inherits=True)  # first: it may end at any moment
    capture.interpreter(python, site_dirs)
    capture.machine(context.pid)
    capture.repository(script, cwd, asked=git)
    return capture.record()


def read_process(context: ProcessContext, start_ns: int | None = None) -> Record:
    """Return the environment of another live process, by reading files only; ``start_ns`` is when its run began.

    Where its virtual environment cannot be told for sure, or its files are not this user's to read, only what every
    user may see of it is known; packages that changed since it started are not. Raises IncompleteError with the reason
    when that very process is not here, is not alive, or became another program meanwhile.
    """
    require_seen(context)
    try:
        before = examine(context)
    except IncompleteError as error:
        return _read_outside(context, error.message)
    capture = _Capture(_subject("process", "files", context, prefix=before.python.prefix), before.environ)
    capture.interpreter(before.python, before.site_dirs)
    capture.machine(context.pid)
    capture.process(context, before.site_dirs)
    capture.known.unknown["git"] = NO_GIT
    if examine(context) != before:
        raise IncompleteError(f"process {context.pid} became another program while it was read")
    # A run begins after its process: one that seems to have begun before shows that the clock was set since.
    began_ns = min(started_ns(context.start_ticks), start_ns or time.time_ns())
    changed = find_change([*before.site_dirs, os.path.join(before.python.prefix, "conda-meta")], began_ns)
    if changed is not None:
        capture.doubt(("packages", "conda", "cuda", "rocm"), ("imports",), changed)
    return capture.record()


def _read_outside(context: ProcessContext, why: str) -> Record:
    """Return what every user may see of a live process, and ``why`` no more is known of it."""
    # The prefix is a claim that nothing backs: no file below it is looked at.
    subject = replace(_subject("process", "files that every user may read", context), prefix=None)
    capture = _Capture(subject, {})
    capture.machine(context.pid)
    capture.process(context)
    capture.doubt(
        ("python", "packages", "conda", "cuda", "rocm", "variables", "git"),
        ("variables", "schedulers", "numerics", "imports"),
        why,
    )
    require_seen(context)
    return capture.record()


def read_prefix(prefix: str) -> Record:
    """Return the environment of an interpreter's prefix, by reading files only; raises IncompleteError if none."""
    layout = read_layout(prefix)
    capture = _Capture(_subject("interpreter", "files of the prefix", prefix=layout.python.prefix), {})
    capture.interpreter(layout.python, layout.site_dirs)
    capture.machine()
    capture.known.unknown |= dict.fromkeys(("git", "variables", "limits"), NO_PROCESS)
    return capture.record()


def read_host() -> Record:
    """Return what the machine is: no interpreter and no packages."""
    capture = _Capture(_subject("host", "this machine"), {})
    capture.machine()
    capture.known.unknown |= dict.fromkeys(("python", "packages", "git", "variables", "limits"), NO_INTERPRETER)
    return capture.record()


class _Capture:
    """One record in the making: sections of the environment and of the execution, and why some are missing."""

    def __init__(self, subject: Subject, environ: Mapping[str, str]) -> None:
        self.known, self.seen = Sections(), Sections()
        self._subject, self._environ = subject, environ
        self._environment: dict[str, Any] = {}
        self._execution: dict[str, Any] = {}
        self._files: dict[str, bytes] = {}
        self._taint = self._read_taint()

    def _read_taint(self, texts: Sequence[str] = ()) -> TaintSet:
        own = self._subject.kind == "process" and not self._subject.how.startswith("files")
        # Another user's files are not this one's to read.
        home = self._environ.get("HOME") if own else None
        return read_taint(self._environ, home=home, prefix=self._subject.prefix, texts=texts)

    def interpreter(self, python: Python, site_dirs: Sequence[str]) -> None:
        """Read what is installed there."""
        take, found = self.known.take, self._environment
        found["python"] = python
        found["packages"] = take("packages", lambda: read_packages(site_dirs), PACKAGES_S)
        found["conda"] = take("conda", lambda: read_conda(python.prefix), PACKAGES_S)

    def machine(self, pid: int | None = None) -> None:
        """Read the machine as process ``pid`` (None: the caller, or nobody in particular) has it."""
        take, found, environ = self.known.take, self._environment, self._environ
        system = take("system", lambda: read_platform(pid, environ=environ))
        if system is not None and self._subject.kind != "process":
            system = replace(system, libc_tunables=None)  # a variable of processes
        found["system"] = system
        found["cpu"] = take("cpu", read_cpu)
        found["memory"] = take("memory", read_memory)
        self._execution["cloud"] = self.seen.take("cloud", read_cloud, CLOUD_S)
        found["accelerators"] = accelerators = take("accelerators", read_accelerators, ACCELERATORS_S)
        driver_max = accelerators.cuda_driver_max if accelerators else None
        installed, conda = found.get("packages"), found.get("conda")
        packages = installed.packages if installed else ()
        linked = [(each.name, each.version) for each in conda.packages] if conda else []
        found["cuda"] = take(
            "cuda", lambda: read_cuda(packages, driver_max=driver_max, conda=linked, variables=environ)
        )
        found["rocm"] = take("rocm", lambda: read_rocm(packages, variables=environ))

    def process(
        self, context: ProcessContext | None = None, site_dirs: Sequence[str] = (), *, inherits: bool = False
    ) -> None:
        """Read what is one process's own: of the caller (None) all of it, of another what its files tell.

        ``inherits``: the caller is a child of it, and has its limits, container and variables even when it has ended.
        """
        take, environ, execution = self.seen.take, self._environ, self._execution
        bound = None if inherits or context is None else context.pid
        self._environment["limits"] = self.known.take("limits", lambda: read_limits(bound))
        place = self.known.take("container", lambda: read_container(bound, environ=environ))
        self._environment["container"], execution["container"] = place or (None, None)
        self._environment["variables"] = allowed_variables(environ)
        self._environment["other_variables"] = other_variables(environ)
        execution["variables"] = execution_variables(environ)
        execution["schedulers"] = take("schedulers", lambda: read_schedulers(environ)) or ()
        execution["placement"] = take("placement", lambda: read_placement(bound))
        if context is None:
            execution["invocation"] = take("invocation", read_invocation)
            execution["numerics"] = take("numerics", read_numerics)
            execution["random_state"] = take("random_state", read_random_state)
            execution["imports"] = take("imports", read_imports)
        else:
            self._files_of(context, site_dirs)

    def _files_of(self, context: ProcessContext, site_dirs: Sequence[str]) -> None:
        """Read what the files of another process tell, if they still are that process's: its pid may be used again."""
        pid, environ, started = context.pid, self._environ, start_environ(context.pid)

        def take(section: str, read: Callable[[], _T]) -> _T | None:
            return self.seen.take(section, lambda: _if_alive(context, read()))

        invocation = take("invocation", lambda: read_process_invocation(pid, environ))
        isolated = Command(None, invocation.options).ignores_environment if invocation else False
        self._execution["invocation"] = invocation
        self._execution["numerics"] = take(
            "numerics", lambda: read_process_numerics(pid, environ, started=started, is_isolated=isolated)
        )
        self._execution["imports"] = take("imports", lambda: read_mapped_imports(pid, site_dirs))

    def doubt(self, known: Sequence[str], seen: Sequence[str], why: str) -> None:
        """Take back sections of the environment and of the execution: it is not certain that they are the process's."""
        for sections, found, unknown in (
            (known, self._environment, self.known.unknown),
            (seen, self._execution, self.seen.unknown),
        ):
            for name in sections:
                found.pop(name, None)  # what a section is without a word: nothing
                unknown[name] = plain(why)

    def repository(self, script: str | None, cwd: str, *, asked: bool) -> None:
        """Ask git about the user's code; only in the user's own process or its child."""
        if not asked:
            self.known.unknown["git"] = NOT_ASKED
            return
        directory = _code_directory(script, cwd, self._environment["python"])
        # Addresses with a password stand in the repository's own settings, and may be in its files too.
        self._taint = self._read_taint(repository_texts(directory))
        found = self.known.take("git", lambda: read_git(directory, tainted=self._taint), GIT_S)
        self._environment["git"], self._files = found or (None, {})

    def record(self) -> Record:
        """Return what was read, without secrets."""
        environment = Environment(**self._environment, unknown=self.known.unknown)
        execution = Execution(self._subject, time.time_ns(), **self._execution, unknown=self.seen.unknown)
        return clean(Record(execution, environment, self._files), Redactor(self._taint))


def _if_alive(context: ProcessContext, found: _T) -> _T:
    if not is_alive(context):
        raise IncompleteError(f"process {context.pid} had ended before it was examined")
    return found


def _subject(
    kind: SubjectKind, how: str, context: ProcessContext | None = None, *, prefix: str | None = None
) -> Subject:
    if context is None:
        return Subject(kind=kind, host=plain(host_name()), boot_id=boot_id(), how=how, prefix=prefix)
    return Subject(
        kind=kind,
        host=plain(context.host),
        boot_id=context.boot_id,
        how=how,
        pid=context.pid,
        start_ticks=context.start_ticks,
        prefix=plain(prefix or context.prefix),
    )


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _code_directory(script: str | None, cwd: str, python: Python) -> str:
    """Return where the user's code is: beside the script, unless that is a command installed in the environment."""
    if not script:
        return cwd
    directory = os.path.dirname(os.path.join(cwd, script))
    commands = {os.path.join(prefix, "bin") for prefix in (python.prefix, python.base_prefix)}
    installed = directory in commands or "-packages/" in f"{directory}/"
    return directory if os.path.isdir(directory) and not installed else cwd
