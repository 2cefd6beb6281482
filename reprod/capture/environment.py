"""Owns the ways in which an environment is read, and what each of them may claim.

In the process or handed over by it: everything. From outside: what the process's files say, verified before and after
to be that very process. Of a prefix: its packages. Of the host: the machine. The daemon's own environment is never
passed off for another. How a section is read is ``reprod.capture.gathering``.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from reprod.capture.gathering import Gathering
from reprod.capture.packages.changed import find_change
from reprod.capture.process.foreign import examine, require_seen
from reprod.capture.process.identity import current_context, started_ns
from reprod.capture.process.interpreter import describe_self, read_layout
from reprod.capture.subject import subject_here, subject_of_process
from reprod.core.environment import NO_INTERPRETER, NO_PROCESS, Record
from reprod.core.packages import Python
from reprod.core.process import ProcessContext
from reprod.errors import IncompleteError

NO_GIT = "only the process's own user may run git"


def capture_self(*, git: bool = True) -> Record:
    """Return the environment of the calling process; ``git=False`` leaves the repository unknown."""
    context, cwd = current_context(), _working_directory()
    subject = subject_of_process(context, "in-process")
    capture = Gathering(subject, os.environ)
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
    the allowed names are kept; the repository is that of ``script``, else of ``cwd``, and the imports that ``script``
    names are followed through the user's files.
    """
    capture = Gathering(subject_of_process(context, how), os.environ if variables is None else variables)
    site_dirs = [os.path.join(cwd, path) for path in sys_path]
    capture.process(context, site_dirs, inherits=True)  # first: it may end at any moment
    capture.interpreter(python, site_dirs)
    capture.machine(context.pid)
    capture.named(script, cwd, site_dirs)
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
    capture = Gathering(subject_of_process(context, "files", prefix=before.python.prefix), before.environ)
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
    subject = replace(subject_of_process(context, "files that every user may read"), prefix=None)
    capture = Gathering(subject, {})
    capture.machine(context.pid)
    capture.process(context)
    capture.doubt(
        ("python", "packages", "conda", "cuda", "rocm", "variables", "git"),
        ("variables", "schedulers", "numerics", "imports", "visible_gpus"),
        why,
    )
    require_seen(context)
    return capture.record()


def read_prefix(prefix: str) -> Record:
    """Return the environment of an interpreter's prefix, by reading files only; raises IncompleteError if none."""
    layout = read_layout(prefix)
    capture = Gathering(subject_here("interpreter", "files of the prefix", prefix=layout.python.prefix), {})
    capture.interpreter(layout.python, layout.site_dirs)
    capture.machine()
    capture.known.unknown |= dict.fromkeys(("git", "variables", "limits"), NO_PROCESS)
    return capture.record()


def read_host() -> Record:
    """Return what the machine is: no interpreter and no packages."""
    capture = Gathering(subject_here("host", "this machine"), {})
    capture.machine()
    capture.known.unknown |= dict.fromkeys(("python", "packages", "git", "variables", "limits"), NO_INTERPRETER)
    return capture.record()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"
