"""Owns how the invocation of a process is read: of this one from the interpreter, of another from its /proc files.

Parents are only looked at, through files that every user may read, to see what launched the process. A user's name
comes from /etc/passwd and not from the name service, which may ask a server and wait. Under 1 ms.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reprod.capture.bounded import read_bounded
from reprod.capture.process.identity import started_ns
from reprod.core.invocation import Entry, Invocation, Launcher, as_notebook, parse_command, ranks_of
from reprod.core.launcher import find_launcher, launchers_named_by
from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: The kernel allows a quarter of the stack for arguments and variables together.
BLOCK_BYTES = 1 << 21
#: A command line of thousands of file names is recorded in part, and says so.
MAX_ARGUMENTS = 1000
MAX_ARGUMENT = 1 << 15
#: Launcher in launcher in batch step in login: real chains have about ten processes.
MAX_PARENTS = 32
PASSWD_BYTES = 1 << 22


def read_invocation(*, proc: str = "/proc", users: str = "/etc/passwd") -> Invocation:
    """Return how the calling process was invoked: as it began, whatever it did to ``sys.argv`` since."""
    problems: list[str] = []
    arguments = list(sys.orig_argv) if any(sys.orig_argv) else _arguments(f"{proc}/self/cmdline")
    main = vars(sys.modules.get("__main__", sys))
    command = parse_command(arguments)
    entry = as_notebook(command.entry, _notebook(main.get("__vsc_ipynb_file__"), os.environ))
    try:
        cwd = os.getcwd()
    except OSError as error:
        cwd = None
        problems.append(f"working directory: {error.strerror or error}")
    file = main.get("__file__")
    main_file = file if isinstance(file, str) and file[:1] not in {"", "<"} else None
    return _described(
        Invocation(
            executable=_link(f"{proc}/self/exe", "executable", problems),
            cwd=cwd,
            entry=Entry("program", sys.executable) if getattr(sys, "frozen", False) else entry,
            main_file=main_file and os.path.normpath(os.path.join(cwd or "/", main_file)),
            options=command.options,
        ),
        arguments,
        _Place(proc, os.getpid(), users),
        os.environ,
        problems,
    )


def read_process_invocation(
    pid: int, environ: Mapping[str, str], *, proc: str = "/proc", users: str = "/etc/passwd"
) -> Invocation:
    """Return how process ``pid`` was invoked; ``environ`` is the environment that it started with.

    What its files do not tell, or may not be read, is None with a problem. Raises IncompleteError when there is no such
    process, or it has no command line.
    """
    problems: list[str] = []
    arguments = _arguments(f"{proc}/{pid}/cmdline")
    if not arguments:
        raise IncompleteError(f"process {pid} has ended, or has no command line")
    command = parse_command(arguments)
    entry = as_notebook(command.entry, _notebook(None, environ))
    if _is_title(arguments):
        entry = None
        problems.append("entry: the process wrote a title over its arguments")
    cwd = _link(f"{proc}/{pid}/cwd", "working directory", problems)
    script = entry.name if entry is not None and entry.kind == "script" else None
    return _described(
        Invocation(
            executable=_link(f"{proc}/{pid}/exe", "executable", problems),
            cwd=cwd,
            entry=entry,
            main_file=os.path.normpath(os.path.join(cwd, script)) if cwd is not None and script else None,
            options=command.options,
        ),
        arguments,
        _Place(proc, pid, users),
        environ,
        problems,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the facts of one process are read."""

    proc: str
    pid: int
    users: str

    def stat(self, pid: int) -> tuple[int, int] | None:
        """Return the parent's pid and the start in clock ticks since boot; None if there is no such process."""
        try:
            with open(f"{self.proc}/{pid}/stat", "rb") as file:
                line = file.read(4096)
            # The second field is the command's name, which may itself hold blanks and brackets.
            fields = line[line.rfind(b")") + 1 :].split()
            return int(fields[1]), int(fields[19])
        except (OSError, ValueError, IndexError):
            return None

    def uid(self, pid: int) -> int | None:
        try:
            return os.stat(f"{self.proc}/{pid}").st_uid
        except OSError:
            return None


def _described(
    found: Invocation, arguments: Sequence[str], place: _Place, environ: Mapping[str, str], problems: list[str]
) -> Invocation:
    """Return ``found`` with what is read alike for this process and another."""
    uid, stat = place.uid(place.pid), place.stat(place.pid)
    shown = tuple(plain(word[:MAX_ARGUMENT]) for word in arguments[:MAX_ARGUMENTS])
    if len(arguments) > MAX_ARGUMENTS or any(len(word) > MAX_ARGUMENT for word in arguments):
        problems.append(f"arguments: cut, there are {len(arguments)} with {sum(map(len, arguments))} characters")
    return replace(
        found,
        arguments=shown,
        executable=_plain(found.executable),
        cwd=_plain(found.cwd),
        entry=found.entry and Entry(found.entry.kind, _plain(found.entry.name)),
        main_file=_plain(found.main_file),
        options=tuple(plain(option[:MAX_ARGUMENT]) for option in found.options[:MAX_ARGUMENTS]),
        launchers=tuple(_launchers(place, arguments, environ)),
        ranks=ranks_of(environ),
        started_ns=None if stat is None else started_ns(stat[1]),
        user=_plain(_user_name(uid, place.users, environ)),
        uid=uid,
        problems=tuple(plain(problem) for problem in problems),
    )


def _launchers(place: _Place, arguments: Sequence[str], environ: Mapping[str, str]) -> Iterator[Launcher]:
    """Yield the known launchers, the nearest first: the process itself, its parents, then what its variables name."""
    seen = set()
    own = find_launcher(arguments)
    if own is not None:
        seen.add(own)
        yield Launcher(own, "self")
    for pid in _parents(place):
        words = _arguments(f"{place.proc}/{pid}/cmdline")
        name = find_launcher(words)
        if name is not None:
            seen.add(name)
            is_ours = place.uid(pid) == place.uid(place.pid)
            cut = tuple(plain(word[:MAX_ARGUMENT]) for word in words[:MAX_ARGUMENTS])
            yield Launcher(name, "parent", cut if is_ours else ())
    for name in launchers_named_by(environ):
        if name not in seen:
            yield Launcher(name, "variable")


def _parents(place: _Place) -> Iterator[int]:
    pid = place.pid
    for _ in range(MAX_PARENTS):
        found = place.stat(pid)
        if found is None or found[0] <= 1:
            return
        pid = found[0]
        yield pid


def _arguments(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(BLOCK_BYTES)
    except OSError:
        return []
    # An argument may be empty, the last one too: only the final terminator goes.
    words = [os.fsdecode(part) for part in data.removesuffix(b"\0").split(b"\0")] if data.strip(b"\0") else []
    return words[:1] if _is_title(words) else words


def _is_title(words: Sequence[str]) -> bool:
    """Return whether a process wrote a title over its arguments: what was behind it is then left as empty words."""
    return bool(words) and re.search(r"\s", words[0]) is not None and not any(words[1:])


def _link(path: str, what: str, problems: list[str]) -> str | None:
    try:
        target = os.readlink(path)
    except OSError as error:
        problems.append(f"{what}: {error.strerror or error}")
        return None
    if target.endswith(" (deleted)"):
        problems.append(f"{what}: removed or replaced since it was opened")
    return target.removesuffix(" (deleted)")


def _notebook(named: object, environ: Mapping[str, str]) -> str | None:
    """Return a notebook's path as the front end told the kernel: VS Code in a global name, Jupyter in a variable."""
    return named if isinstance(named, str) else environ.get("JPY_SESSION_NAME")


def _user_name(uid: int | None, users: str, environ: Mapping[str, str]) -> str | None:
    try:
        lines = read_bounded(users, PASSWD_BYTES).split(b"\n")
    except OSError:
        lines = []
    fields = (line.split(b":") for line in lines)
    name = next((row[0] for row in fields if len(row) > 2 and row[2] == str(uid).encode()), b"")
    return os.fsdecode(name) or environ.get("LOGNAME") or environ.get("USER") or None


def _plain(text: str | None) -> str | None:
    return None if text is None else plain(text)
