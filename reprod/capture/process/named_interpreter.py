"""Owns which interpreter the words of a command name, and what its prefix is, as the interpreter itself finds it.

Whether a process really is that one is for `reprod.capture.process.foreign` to check: these are claims. Standard
library only, and under a millisecond: a training waits for it.
"""

import os
import re
from collections.abc import Sequence

from reprod.core.invocation import is_python
from reprod.core.launcher import find_launcher

#: They run the cells of a notebook in a kernel: a process of its own, perhaps of another environment.
_KERNEL_STARTERS = frozenset({"nbconvert", "papermill", "jupyter"})


def prefix_of(executable: str) -> str:
    """Return ``sys.prefix`` of the interpreter at an absolute path, found as it finds it itself."""
    folder = os.path.dirname(os.path.normpath(executable))
    for place in (os.path.dirname(folder), folder):
        if os.path.isfile(os.path.join(place, "pyvenv.cfg")):
            return place
    return os.path.dirname(os.path.dirname(os.path.realpath(executable)))


def named_interpreter(command: Sequence[str], path: str, cwd: str) -> str | None:
    """Return the interpreter that ``command`` becomes: its first word, or what that script's first line names.

    None where it is something else; ``path`` is the value of PATH.
    """
    program = locate(command[0], cwd, path)
    if program is None or is_python(program):
        return program
    try:
        with open(program, "rb") as file:
            head = file.read(4096)
    except OSError:
        return None
    words = [os.fsdecode(word) for word in head.split(b"\n", 1)[0][2:].split()] if head.startswith(b"#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    elif words and words[0] == "/bin/sh" and (long := re.search(rb"\n'''exec' \"?(/[^\n\"]*?python[0-9.]*)\"? ", head)):
        words = [os.fsdecode(long[1])]  # what installers write where a path is too long for a first line
    named = locate(words[0], cwd, path) if words else None
    return named if named is not None and is_python(named) else None


def starts_kernels(command: Sequence[str]) -> bool:
    """Return whether a command runs notebooks, so that what starts a run in one is a kernel below it, never itself."""
    return find_launcher(command) in _KERNEL_STARTERS


def locate(name: str, cwd: str, path: str) -> str | None:
    """Return the absolute path of the file that a command's first word is, as a shell finds it."""
    if "/" in name:
        return os.path.normpath(os.path.join(cwd, name))
    places = (os.path.join(cwd, folder, name) for folder in path.split(":") if name)
    return next((place for place in places if os.path.isfile(place)), None)


def has_mlflow(site_dirs: Sequence[str]) -> bool:
    """Return whether MLflow can be imported from one of the directories, however it was installed."""
    return any(os.path.isfile(os.path.join(path, "mlflow", "__init__.py")) for path in site_dirs)


def usual_sites(prefix: str) -> list[str]:
    """Return where the Python of a prefix may have its packages, perhaps of two versions; no ``.pth`` file is read."""
    libraries = (os.path.join(prefix, *parts) for parts in (("lib",), ("local", "lib")))
    found = []
    for library in libraries:
        try:
            names = [name for name in os.listdir(library) if name.startswith("python")]
        except OSError:
            continue
        found += [os.path.join(library, name, site) for name in names for site in ("site-packages", "dist-packages")]
    return found
