"""Owns which interpreters the processes of a command are, and how the environment of one is read from outside.

A run can only be started by a Python that has MLflow, so shells, ``uv run``, ``conda run`` and other launchers are
looked through for one, and what runs notebooks for their kernels. Whose packages a process uses is told as
``reprod.capture.process.foreign`` tells it, or not at all.
Reading files only, except that git is run: this is for the user's own processes, as that user. Times are seconds.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reprod.capture.bounded import read_bounded
from reprod.capture.environment import read_process
from reprod.capture.git.repository import read_git
from reprod.capture.process.foreign import examine, start_environ
from reprod.capture.process.identity import current_context, start_ticks
from reprod.capture.process.named_interpreter import has_mlflow, locate, prefix_of, starts_kernels
from reprod.capture.sections import Sections
from reprod.capture.taint import read_taint, repository_texts
from reprod.core.environment import Record, clean
from reprod.core.execution import Execution
from reprod.core.invocation import is_python
from reprod.core.packages import normalise
from reprod.core.process import ProcessContext
from reprod.core.redact import Redactor
from reprod.errors import IncompleteError

#: The kernel allows a quarter of the stack for arguments and variables together.
ARGUMENT_BYTES = 1 << 21
#: Git has bounds of its own; together they are this.
GIT_S = 15.0
FROM_OUTSIDE = "files of the process, read for reprod run"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A live Python process, and where it looks for packages. ``context.prefix`` was checked."""

    context: ProcessContext
    site_dirs: tuple[str, ...]

    def has(self, distribution: str) -> bool:
        """Return whether ``distribution`` is installed there."""
        return has_distribution(self.site_dirs, distribution)

    @property
    def has_mlflow(self) -> bool:
        """Return whether MLflow can be imported there."""
        return has_mlflow(self.site_dirs)


def has_distribution(site_dirs: Sequence[str], distribution: str) -> bool:
    """Return whether an installer's record of ``distribution`` (a normalised name) is in one of the directories."""
    for path in site_dirs:
        try:
            names = os.listdir(path)
        except OSError:
            continue
        if any(name.endswith(".dist-info") and normalise(name.split("-")[0]) == distribution for name in names):
            return True
    return False


def family(pid: int) -> list[int]:
    """Return ``pid`` and the processes below it, parents first; 10 us for each process of the machine."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (parent := _parent(name)) is not None:
            children.setdefault(parent, []).append(int(name))
    found = [pid]
    for each in found:  # it grows: those below are looked at in their turn
        found += children.pop(each, [])
    return found


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read(4096)
        # The second field is the command's name, which may itself hold blanks and brackets.
        return int(line[line.rfind(b")") + 1 :].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def identify(pid: int) -> tuple[object, ...] | None:
    """Return what changes when ``pid`` becomes another process or program; None if it is gone or another user's."""
    ticks = start_ticks(pid)
    try:
        return None if ticks is None else (pid, ticks, os.readlink(f"/proc/{pid}/exe"), command_line(pid))
    except OSError:
        return None


def command_line(pid: int) -> bytes:
    """Return the raw command line of a process, empty where it cannot be read."""
    try:
        return read_bounded(f"/proc/{pid}/cmdline", ARGUMENT_BYTES)
    except OSError:
        return b""


def find_interpreter(pid: int) -> Interpreter | None:
    """Return the Python that process ``pid`` is, None if it is another program, leaves runs to kernels, or is gone.

    Raises IncompleteError where it is a Python and whose packages it uses is not clear, or not yet.
    """
    ticks = start_ticks(pid)
    try:
        executable = os.readlink(f"/proc/{pid}/exe")
        cwd = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    if ticks is None or not is_python(executable):
        return None
    words = [os.fsdecode(word) for word in command_line(pid).split(b"\0")]
    if starts_kernels(words):
        return None
    named = locate(words[0], cwd, start_environ(pid).get("PATH", ""))
    prefix = prefix_of(named if named is not None else executable)
    context = replace(current_context(), pid=pid, start_ticks=ticks, prefix=prefix)
    return Interpreter(context, examine(context).site_dirs)


def read_interpreter(found: Interpreter) -> Record:
    """Return the environment of a live process, with the repository of its code.

    Raises IncompleteError when it has ended, became another program, or its packages cannot be told.
    """
    record = read_process(found.context)
    if record.environment.packages is None:
        raise IncompleteError(record.environment.unknown.get("packages", "the packages are not known"))
    execution = replace(record.execution, subject=replace(record.execution.subject, how=FROM_OUTSIDE))
    return _with_git(replace(record, execution=execution), start_environ(found.context.pid))


def _with_git(record: Record, environ: Mapping[str, str]) -> Record:
    """Return the record with what git says of the user's code, and of the process's secrets nothing."""
    directory = _code_directory(record.execution)
    if directory is None:
        return record
    prefix = record.execution.subject.prefix
    taint = read_taint(environ, home=environ.get("HOME"), prefix=prefix, texts=repository_texts(directory))
    asked = Sections()
    git, files = asked.take("git", lambda: read_git(directory, tainted=taint), GIT_S) or (None, {})
    unknown = {name: why for name, why in record.environment.unknown.items() if name != "git"} | asked.unknown
    environment = replace(record.environment, git=git, unknown=unknown)
    return clean(Record(record.execution, environment, files), Redactor(taint))


def _code_directory(execution: Execution) -> str | None:
    """Return where the user's code is: beside the script, unless that is a command installed in the environment."""
    called = execution.invocation
    if called is None:
        return None
    prefix = execution.subject.prefix or "/nowhere"
    if called.main_file is None or called.main_file.startswith(f"{prefix}/"):
        return called.cwd
    return os.path.dirname(os.path.realpath(called.main_file))
