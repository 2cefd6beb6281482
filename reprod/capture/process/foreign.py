"""Owns how another live process is examined: which interpreter and which virtual environment it runs in.

``/proc/PID/exe`` of a virtual environment is its base interpreter, so the environment is the prefix that the process
claimed. It counts only if ``argv[0]`` names no other one, if its files lead to that very executable, and if the modules
that the process has mapped do not come from elsewhere. A claim may come from a tag, so nothing below it is looked at
before the process itself names it too (law 9). What cannot be told for sure is an IncompleteError, never a guess.
"""

import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass

from reprod.capture.process.identity import boot_id, current_context, is_alive
from reprod.capture.process.interpreter import Layout, read_layout
from reprod.core.invocation import is_python, parse_command
from reprod.core.packages import Python
from reprod.core.process import ProcessContext
from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: A command line or environment block larger than this is cut; the kernel itself allows a quarter of the stack.
_BLOCK_BYTES = 1 << 21

_MAPPED = re.compile(rb"(/[^\n]*?/(?:site|dist)-packages)/[^\n]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Examined:
    """What the process's own files say; equal before and after a reading if nothing changed meanwhile."""

    executable: str
    arguments: tuple[str, ...]
    environ: dict[str, str]
    python: Python
    site_dirs: tuple[str, ...]


def require_seen(context: ProcessContext) -> None:
    """Raise IncompleteError with the reason unless the very process ``context`` lives, and is seen here by its pid."""
    if context.boot_id != boot_id():
        raise IncompleteError(f"process {context.pid} ran on {context.host} in another boot than this one")
    if None not in {context.pid_ns, ours := current_context().pid_ns} and context.pid_ns != ours:
        raise IncompleteError(f"process {context.pid} runs in a container (another pid namespace), not seen from here")
    if not is_alive(context):
        raise IncompleteError(f"process {context.pid} has ended or is not the one that started the run")


def examine(context: ProcessContext) -> Examined:
    """Return the interpreter of the process ``context``; raises IncompleteError with the reason why it is not known."""
    require_seen(context)
    try:
        facts = _read_facts(f"/proc/{context.pid}")
    except PermissionError as error:
        raise IncompleteError(
            f"permission: process {context.pid} may not be read by the daemon's user",
            hint="run the daemon as the user who trains, or let the process hand over its environment",
        ) from error
    except OSError as error:
        raise IncompleteError(f"process {context.pid} ended while it was examined") from error
    if facts.executable.endswith(" (deleted)"):
        raise IncompleteError(plain(f"the interpreter of process {context.pid} was replaced since it began"))
    if not is_python(facts.executable):
        raise IncompleteError(plain(f"process {context.pid} runs {facts.executable}: a launcher, or no known Python"))
    layout, site_dirs = _locate(context, facts)
    if not is_alive(context):
        raise IncompleteError(f"process {context.pid} ended while it was examined")
    return Examined(facts.executable, facts.arguments, facts.environ, layout.python, site_dirs)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What /proc says of a process; ``mapped`` are the site directories that it has files of in memory."""

    executable: str
    cwd: str
    uid: int
    arguments: tuple[str, ...]
    environ: dict[str, str]
    mapped: frozenset[str]


def _read_facts(proc: str) -> _Facts:
    """Raises OSError, and IncompleteError for a process in a container."""
    _check_namespaces(proc)
    return _Facts(
        executable=os.readlink(f"{proc}/exe"),
        cwd=os.readlink(f"{proc}/cwd"),
        uid=os.stat(proc).st_uid,
        arguments=tuple(os.fsdecode(part) for part in _block(f"{proc}/cmdline")),
        environ=_read_environ(proc),
        mapped=_mapped_sites(f"{proc}/maps"),
    )


def _locate(context: ProcessContext, facts: _Facts) -> tuple[Layout, tuple[str, ...]]:
    """Return the interpreter's layout, and where it looks for packages."""
    command, environ = parse_command(facts.arguments), facts.environ
    if command.ignores_environment:
        environ = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    without = environ.get("PYTHONNOUSERSITE") or any(re.match(r"-[^WX-]*[sI]", option) for option in command.options)
    evidence = _Evidence(context.pid, facts.executable, facts.mapped, None if without else _home_of(facts.uid))
    layout = _find_layout(context.prefix, list(_prefixes_of(facts.arguments, facts.cwd, environ)), evidence, environ)
    extra = [os.path.join(facts.cwd, path) for path in environ.get("PYTHONPATH", "").split(":") if path]
    return layout, tuple(dict.fromkeys([*extra, *layout.site_dirs]))


def _check_namespaces(proc: str) -> None:
    """Raise unless the process sees the pids and the file system that this one sees."""
    if os.readlink(f"{proc}/ns/pid") != os.readlink("/proc/self/ns/pid"):
        raise IncompleteError("the process runs in a container (another pid namespace)")
    theirs, ours = os.stat(f"{proc}/root/"), os.stat("/")
    if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
        raise IncompleteError("the process runs in a container (another root directory)")


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the process cannot easily be wrong about."""

    pid: int
    executable: str
    mapped: frozenset[str]
    user_site: str | None

    def check(self, prefix: str) -> Layout:
        """Return the layout of ``prefix`` if nothing contradicts it; raises IncompleteError with what does."""
        layout = read_layout(prefix, user_site=self.user_site)
        if not _leads_to(layout, prefix, self.executable):
            raise IncompleteError(f"{prefix} does not belong to {self.executable}")
        if self.mapped and self.mapped.isdisjoint(os.path.realpath(path) for path in layout.site_dirs):
            raise IncompleteError(f"its modules come from {min(self.mapped)}, not from {prefix}")
        if not _same_files(self.pid, layout):
            raise IncompleteError(f"the process sees other files in {prefix} than this one does")
        return layout


def _vouched(evidence: _Evidence, environ: dict[str, str]) -> Iterator[str]:
    """Yield the prefixes that the process itself names, beside that of its command line."""
    yield os.path.dirname(os.path.dirname(evidence.executable))
    yield from (os.path.normpath(environ[name]) for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if environ.get(name))
    yield from (site.rpartition("/lib")[0] for site in (os.path.dirname(path) for path in evidence.mapped))


def _find_layout(claimed: str, named: list[str], evidence: _Evidence, environ: dict[str, str]) -> Layout:
    """Return the layout of the prefix that the process claimed, if its command line names no other that could be.

    Never that of the executable or the command line alone: of a virtual environment that may be the base's packages.
    """
    refusals: dict[str, str] = {}

    def accept(prefix: str) -> Layout | None:
        try:
            return None if prefix in refusals else evidence.check(prefix)
        except IncompleteError as error:
            refusals[prefix] = error.message
            return None

    vouched = os.path.normpath(claimed) in {*named, *_vouched(evidence, environ)}
    own = accept(claimed) if vouched else None
    others = (layout for prefix in named if prefix != claimed and (layout := accept(prefix)))
    other = next((layout for layout in others if own is None or not _is_same_place(layout, own)), None)
    if own and not other:
        return own
    if other:
        refusals[claimed] = f"it claims {claimed}, but its command line names {other.python.prefix}"
    reasons = "; ".join(refusals.values()) or f"nothing of it names {claimed}"
    raise IncompleteError(
        plain(f"the environment of process {evidence.pid} is not clear: {reasons}"),
        hint="let the process hand over its own environment: reprod.tag_dataset or the MLflow context provider",
    )


def _is_same_place(one: Layout, other: Layout) -> bool:
    """Return whether two prefixes are one: ``/bin/python3`` and ``/usr/bin/python3`` often are."""
    return _identities(one) == _identities(other)


def _identities(layout: Layout) -> list[tuple[int, int]]:
    found = []
    for path in layout.site_dirs:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found.append((status.st_dev, status.st_ino))
    return found


def _prefixes_of(arguments: tuple[str, ...], cwd: str, environ: dict[str, str]) -> Iterator[str]:
    """Yield the prefix that ``argv[0]`` names, as the shell would have found it."""
    if not arguments or not arguments[0]:
        return
    name = arguments[0]
    if "/" in name:
        yield os.path.dirname(os.path.dirname(os.path.normpath(os.path.join(cwd, name))))
        return
    for directory in environ.get("PATH", "").split(":"):
        if directory.startswith("/") and os.path.lexists(os.path.join(directory, name)):
            yield os.path.dirname(os.path.normpath(directory))
            return


def _leads_to(layout: Layout, prefix: str, executable: str) -> bool:
    """Return whether the files of ``prefix`` lead to the executable that runs."""
    real = os.path.realpath(executable)
    names = ("python", "python3", f"python{'.'.join(layout.python.version.split('.')[:2])}")
    if any(os.path.realpath(os.path.join(prefix, "bin", name)) == real for name in names):
        return True
    homes = [os.path.join(prefix, "bin"), *([layout.home] if layout.home else [])]
    return any(os.path.realpath(home) == os.path.dirname(real) for home in homes)


def _same_files(pid: int, layout: Layout) -> bool:
    """Return whether the site directories are the same for that process: bind mounts may hide them."""
    for path in layout.site_dirs:
        try:
            here = os.stat(path)
        except FileNotFoundError:
            continue
        try:
            there = os.stat(f"/proc/{pid}/root{path}")
        except OSError:
            return False
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            return False
    return True


def _mapped_sites(maps: str) -> frozenset[str]:
    with open(maps, "rb") as file:
        return frozenset(os.fsdecode(path) for path in _MAPPED.findall(file.read(1 << 24)))


def start_environ(pid: int) -> dict[str, str]:
    """Return the variables that process ``pid`` started with; empty where they are not readable, or gone by now."""
    try:
        return _read_environ(f"/proc/{pid}")
    except OSError:
        return {}


def _read_environ(proc: str) -> dict[str, str]:
    parts = (os.fsdecode(part).partition("=") for part in _block(f"{proc}/environ"))
    return {name: value for name, equals, value in parts if equals}


def _block(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.read(_BLOCK_BYTES).rstrip(b"\0").split(b"\0")


def _home_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None
