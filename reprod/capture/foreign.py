"""Owns how another live process is examined: which interpreter and which virtual environment it runs in.

``/proc/PID/exe`` of a virtual environment is its base interpreter, so the environment comes from the prefix that the
process claimed or from ``argv[0]``; it counts only if its files lead to that very executable and if the modules that
the process has mapped do not come from elsewhere. A claim may come from a tag, so nothing below it is looked at before
the process itself names it too (law 9). What cannot be told for sure is an IncompleteError, never a guess.
"""

import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass

from reprod.capture.interpreter import Layout, read_layout
from reprod.capture.process import boot_id, is_alive
from reprod.core.environment import Python
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
    how: str


def examine(context: ProcessContext) -> Examined:
    """Return the interpreter of the process ``context``; raises IncompleteError with the reason why it is not known."""
    if context.boot_id != boot_id():
        raise IncompleteError(f"process {context.pid} ran on {context.host} in another boot than this one")
    if not is_alive(context):
        raise IncompleteError(f"process {context.pid} has ended or is not the one that started the run")
    proc = f"/proc/{context.pid}"
    try:
        _check_namespaces(proc)
        executable = os.readlink(f"{proc}/exe")
        cwd = os.readlink(f"{proc}/cwd")
        uid = os.stat(proc).st_uid
        arguments = tuple(os.fsdecode(part) for part in _block(f"{proc}/cmdline"))
        parts = (os.fsdecode(part).partition("=") for part in _block(f"{proc}/environ"))
        environ = {name: value for name, equals, value in parts if equals}
        mapped = _mapped_sites(f"{proc}/maps")
    except PermissionError as error:
        raise IncompleteError(
            f"not permitted to read process {context.pid}",
            hint="run the daemon as the user who trains, or let the process hand over its environment",
        ) from error
    except OSError as error:
        raise IncompleteError(f"process {context.pid} ended while it was examined") from error
    user_site = None if environ.get("PYTHONNOUSERSITE") else _home_of(uid)
    evidence = _Evidence(context.pid, executable, mapped, user_site)
    named = list(_prefixes_of(arguments, cwd, environ))
    vouched = os.path.normpath(context.prefix) in {*named, *_vouched(evidence, environ)}
    layout, how = _find_layout(context.prefix if vouched else None, named, evidence)
    extra = [os.path.join(cwd, path) for path in environ.get("PYTHONPATH", "").split(":") if path]
    site_dirs = tuple(dict.fromkeys([*extra, *layout.site_dirs]))
    if not is_alive(context):
        raise IncompleteError(f"process {context.pid} ended while it was examined")
    return Examined(executable, arguments, environ, layout.python, site_dirs, how)


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


def _find_layout(claimed: str | None, named: list[str], evidence: _Evidence) -> tuple[Layout, str]:
    """Return the layout of the prefix that the process claimed, else of one that its command line named.

    Never that of the executable alone: for a virtual environment that would be the base's packages.
    """
    refusals: dict[str, str] = {}

    def accept(prefix: str) -> Layout | None:
        try:
            return None if prefix in refusals else evidence.check(prefix)
        except IncompleteError as error:
            refusals[prefix] = error.message
            return None

    own = accept(claimed) if claimed is not None else None
    by_name = next((layout for prefix in named if (layout := accept(prefix))), None)
    if own and by_name and os.path.realpath(own.python.prefix) != os.path.realpath(by_name.python.prefix):
        names = f"{own.python.prefix}, but its command line names {by_name.python.prefix}"
        refusals[own.python.prefix] = f"it claims {names}"
    elif own:
        return own, "the prefix that the process named"
    elif by_name:
        return by_name, "its command line"
    reasons = "; ".join(refusals.values()) or "it names none"
    raise IncompleteError(
        plain(f"the environment of process {evidence.pid} is not clear: {reasons}"),
        hint="let the process hand over its own environment: reprod.tag_dataset or the MLflow context provider",
    )


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


def _block(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.read(_BLOCK_BYTES).rstrip(b"\0").split(b"\0")


def _home_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None
