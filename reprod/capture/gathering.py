"""Owns one record in the making: which collector gives which section, within which time.

Each section has a collector and a budget of its own (``reprod.capture.sections``): one that fails or hangs is a reason
under its section's name. A record leaves here through the one redaction point.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from reprod.capture.git.repository import read_git
from reprod.capture.gpu.accelerators import read_accelerators
from reprod.capture.gpu.cuda import read_cuda
from reprod.capture.gpu.rocm import read_rocm
from reprod.capture.hosting.cloud import read_cloud
from reprod.capture.hosting.container import read_container
from reprod.capture.hosting.scheduler import read_schedulers
from reprod.capture.imports.named import scan_imports
from reprod.capture.imports.used import read_imports, read_mapped_imports
from reprod.capture.machine.cpu import read_cpu
from reprod.capture.machine.limits import read_limits, read_placement
from reprod.capture.machine.memory import read_memory
from reprod.capture.machine.system import read_platform
from reprod.capture.numerics.random_state import read_random_state
from reprod.capture.numerics.settings import read_numerics, read_process_numerics
from reprod.capture.packages.conda import read_conda
from reprod.capture.packages.installed import read_packages
from reprod.capture.process.foreign import start_environ
from reprod.capture.process.identity import is_alive
from reprod.capture.process.invocation import read_invocation, read_process_invocation
from reprod.capture.sections import Sections
from reprod.capture.taint import TaintSet, read_taint, repository_texts
from reprod.core.accelerator import visible_indices
from reprod.core.environment import Environment, Record, clean
from reprod.core.execution import Execution, Subject
from reprod.core.invocation import Command
from reprod.core.packages import Python
from reprod.core.process import ProcessContext
from reprod.core.redact import Redactor, allowed_variables, execution_variables, other_variables, plain
from reprod.errors import IncompleteError

NOT_ASKED = "not asked"
NO_PACKAGES = "the packages are unknown: what they bring was not seen"

#: Budgets in seconds beside the usual one: a site directory on a cold network file system, drivers that wake a GPU up
#: (their own bound is 5), git's own bounds together, a metadata service that is silent (its own bound is 0.3), and a
#: program of two thousand files of its own.
PACKAGES_S, ACCELERATORS_S, GIT_S, CLOUD_S, SCAN_S = 20.0, 7.0, 15.0, 1.0, 10.0

_T = TypeVar("_T")


class Gathering:
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
        if accelerators is not None and self._subject.kind == "process":
            self._execution["visible_gpus"] = visible_indices(accelerators.gpus, environ)
        driver_max = accelerators.cuda_driver_max if accelerators else None
        installed, conda = found.get("packages"), found.get("conda")
        packages = installed.packages if installed else ()
        linked = [(each.name, each.version) for each in conda.packages] if conda else []
        found["cuda"] = take(
            "cuda", lambda: read_cuda(packages, driver_max=driver_max, conda=linked, variables=environ)
        )
        found["rocm"] = take("rocm", lambda: read_rocm(packages, variables=environ))
        if "packages" in self.known.unknown:  # then they are not known to bring nothing
            for name in ("cuda", "rocm"):
                if found[name] is not None:
                    found[name] = replace(found[name], problems=(*found[name].problems, NO_PACKAGES))

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

    def named(self, script: str | None, cwd: str, search_path: Sequence[str]) -> None:
        """Read what the script or notebook says it imports: the user's own files, so only in the user's own process."""
        call = self._execution.get("invocation")
        notebook = call.entry.name if call is not None and call.entry and call.entry.kind == "notebook" else None
        file = notebook or script
        if file:
            path = os.path.join(cwd, file)
            self._execution["named_imports"] = self.seen.take(
                "named_imports", lambda: scan_imports(path, search_path), SCAN_S
            )

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


def _code_directory(script: str | None, cwd: str, python: Python) -> str:
    """Return where the user's code is: beside the script, unless that is a command installed in the environment."""
    if not script:
        return cwd
    directory = os.path.dirname(os.path.join(cwd, script))
    commands = {os.path.join(prefix, "bin") for prefix in (python.prefix, python.base_prefix)}
    installed = directory in commands or "-packages/" in f"{directory}/"
    return directory if os.path.isdir(directory) and not installed else cwd
