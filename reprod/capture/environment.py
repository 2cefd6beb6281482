"""Owns the ways in which an environment is read, and what each of them may claim.

In the process or handed over by it: everything. From outside: what the process's files say, verified before and after
to be that very process. Of a prefix: its packages. Of the host: the machine. A collector that fails leaves its
section unknown with the reason and the others whole. The daemon's own environment is never passed off for another.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from reprod.capture.foreign import examine
from reprod.capture.git import read_git
from reprod.capture.gpu import read_gpus
from reprod.capture.interpreter import describe_self, read_layout
from reprod.capture.packages import read_packages
from reprod.capture.process import boot_id, current_context, host_name
from reprod.capture.system import read_system
from reprod.core.environment import Environment, Python, Subject, SubjectKind
from reprod.core.process import ProcessContext
from reprod.core.redact import allowed_variables, plain
from reprod.errors import IncompleteError

NO_GIT = "only the process's own user may run git"

_T = TypeVar("_T")


def capture_self(*, git: bool = True) -> Environment:
    """Return the environment of the calling process; ``git=False`` leaves the repository unknown."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return capture_paths(
        current_context(),
        sys_path=sys.path,
        python=describe_self(),
        cwd=_working_directory(),
        script=script if git else None,
        variables=os.environ,
        how="in-process",
        git=git,
    )


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
) -> Environment:
    """Return the environment of process ``context`` as that process described itself.

    To be called in it or in its own child, as its user: git is run here. ``variables`` is its whole environment, of
    which only the allowed names are kept; the repository is that of ``script``, else of ``cwd``.
    """
    unknown: dict[str, str] = {}
    if git:
        found = _attempt("git", unknown, lambda: read_git(_code_directory(script, cwd, python)))
    else:
        found, unknown["git"] = None, "not asked"
    packages = read_packages([os.path.join(cwd, path) for path in sys_path])
    return Environment(
        subject=_subject("process", how, context),
        taken_ns=time.time_ns(),
        python=python,
        packages=packages.packages,
        system=_attempt("system", unknown, read_system),
        gpus=_attempt("gpu", unknown, read_gpus),
        git=found,
        variables=allowed_variables(os.environ if variables is None else variables),
        problems=packages.problems,
        unknown=unknown,
    )


def read_process(context: ProcessContext) -> Environment:
    """Return the environment of another live process, by reading files only.

    Raises IncompleteError with the reason when it is not here, not alive, not readable, or when its virtual
    environment cannot be told for sure.
    """
    before = examine(context)
    packages = read_packages(before.site_dirs)
    unknown = {"git": NO_GIT}
    system = _attempt("system", unknown, lambda: read_system(context.pid))
    gpus = _attempt("gpu", unknown, read_gpus)
    if examine(context) != before:
        raise IncompleteError(f"process {context.pid} became another program while it was read")
    return Environment(
        subject=_subject("process", f"files, {before.how}", context, prefix=before.python.prefix),
        taken_ns=time.time_ns(),
        python=before.python,
        packages=packages.packages,
        system=system,
        gpus=gpus,
        variables=allowed_variables(before.environ),
        problems=packages.problems,
        unknown=unknown,
    )


def read_prefix(prefix: str) -> Environment:
    """Return the environment of an interpreter's prefix, by reading files only; raises IncompleteError if none."""
    layout = read_layout(prefix)
    packages = read_packages(layout.site_dirs)
    unknown = {"git": "an interpreter has no working directory", "variables": "an interpreter has no variables"}
    return Environment(
        subject=_subject("interpreter", "files of the prefix", prefix=layout.python.prefix),
        taken_ns=time.time_ns(),
        python=layout.python,
        packages=packages.packages,
        system=_attempt("system", unknown, read_system),
        gpus=_attempt("gpu", unknown, read_gpus),
        problems=packages.problems,
        unknown=unknown,
    )


def read_host() -> Environment:
    """Return what the machine is: system and GPUs only."""
    unknown = dict.fromkeys(("python", "packages", "git", "variables"), "a host has none of its own")
    return Environment(
        subject=_subject("host", "this machine"),
        taken_ns=time.time_ns(),
        system=_attempt("system", unknown, read_system),
        gpus=_attempt("gpu", unknown, read_gpus),
        unknown=unknown,
    )


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


def _attempt(section: str, unknown: dict[str, str], read: Callable[[], _T]) -> _T | None:
    """Return what ``read`` finds, or None with the reason noted under ``section``."""
    try:
        return read()
    except IncompleteError as error:
        unknown[section] = plain(error.message)
    except Exception as error:  # noqa: BLE001 - one collector's unforeseen failure must not cost the other sections
        unknown[section] = plain(f"{type(error).__name__}: {error}")
    return None


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
