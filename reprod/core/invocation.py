"""Owns how a process was invoked: command, entry, launchers, ranks. Facts of one process, no part of an environment.

The arguments are raw here: whoever lets a record out takes secrets from them. Nothing here reads a file.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

EntryKind = Literal["script", "module", "command", "notebook", "interactive", "stdin", "program"]

#: Which process of a distributed job this is. Fixed names; only numbers are taken.
_RANKS = """
    RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE NODE_RANK ROLE_RANK ROLE_WORLD_SIZE
    CROSS_RANK CROSS_SIZE TORCHELASTIC_RESTART_COUNT OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE
    OMPI_COMM_WORLD_LOCAL_RANK OMPI_COMM_WORLD_LOCAL_SIZE OMPI_COMM_WORLD_NODE_RANK PMI_RANK PMI_SIZE PMIX_RANK
    MPI_LOCALRANKID MPI_LOCALNRANKS MV2_COMM_WORLD_RANK MV2_COMM_WORLD_SIZE MV2_COMM_WORLD_LOCAL_RANK
    HOROVOD_RANK HOROVOD_SIZE HOROVOD_LOCAL_RANK JAX_PROCESS_ID JAX_NUM_PROCESSES
    SLURM_PROCID SLURM_LOCALID SLURM_NODEID SLURM_NTASKS
"""
RANK_VARIABLES = tuple(_RANKS.split())

_PYTHON = re.compile(r"(?:python|pypy)(?:\d(?:\.\d+)*t?)?\Z")
_NOTEBOOK_MODULES = frozenset({"ipykernel_launcher", "ipykernel", "colab_kernel_launcher"})


@dataclass(frozen=True, slots=True)
class Entry:
    """What was run: ``name`` is a script or notebook as it was named, a module, or None.

    ``program`` is an executable that is no interpreter, as a frozen application; ``name`` is then its path.
    """

    kind: EntryKind
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Launcher:
    """A known command that started this process, perhaps through others. ``arguments`` is its command line, raw.

    ``by`` says what tells it: a ``parent`` process, the process's own command (``self``), or a ``variable``. There are
    arguments only of a parent that is the same user's.
    """

    name: str
    by: Literal["parent", "self", "variable"]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Invocation:
    """How one process was started.

    ``executable`` is the running file, for a virtual environment that of its base. ``cwd`` is the working directory
    when it was read. ``main_file`` is the file of ``__main__``; from outside, the script's name as seen from ``cwd``.
    ``options`` are the interpreter's own. ``launchers`` begin with the nearest. ``ranks`` are the variables that are
    set. ``started_ns`` is nanoseconds since the epoch, exact to a clock tick (10 ms).
    """

    arguments: tuple[str, ...] | None = None
    executable: str | None = None
    cwd: str | None = None
    entry: Entry | None = None
    main_file: str | None = None
    options: tuple[str, ...] = ()
    launchers: tuple[Launcher, ...] = ()
    ranks: dict[str, str] = field(default_factory=dict)
    started_ns: int | None = None
    user: str | None = None
    uid: int | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A command line taken apart: interpreter ``options``, the entry, and the ``following`` arguments that it got."""

    entry: Entry | None
    options: tuple[str, ...] = ()
    following: tuple[str, ...] = ()

    @property
    def ignores_environment(self) -> bool:
        """Return whether the interpreter was told to ignore ``PYTHON*`` variables (``-E``, ``-I``)."""
        return any(re.match(r"-[^WX-]*[EI]", option) for option in self.options)


def parse_command(arguments: Sequence[str]) -> Command:
    """Return the parts of a command line, ``argv[0]`` included; the entry is None where it is empty."""
    if not arguments or not arguments[0]:
        return Command(None)
    rest = list(arguments[1:])
    if not is_python(arguments[0]):
        return Command(Entry("program", arguments[0]), (), tuple(rest))
    options: list[str] = []
    entry = None
    while entry is None and rest:
        word = rest.pop(0)
        if word == "-":
            entry = Entry("stdin")
        elif not word.startswith("-"):
            entry = Entry("script", word)
        elif word == "--":
            entry = Entry("script", rest.pop(0)) if rest else None
            break
        elif word.startswith("--"):
            options.append(word)
            if word == "--check-hash-based-pycs" and rest:
                options.append(rest.pop(0))
        else:
            entry = _letters(word, rest, options)
    return Command(entry or Entry("interactive"), tuple(options), tuple(rest))


def _letters(word: str, rest: list[str], options: list[str]) -> Entry | None:
    """Take one word of short options (``-Im``, ``-Xdev``); return the entry if one of them ends the options."""
    for position, letter in enumerate(word[1:], 1):
        if letter not in "cmWX":
            continue
        attached = word[position + 1 :]
        value = attached or (rest.pop(0) if rest else "")
        if letter in "WX":
            options.extend([word] if attached else [word, value])
            return None
        if position > 1:
            options.append(word[:position])
        return Entry("command") if letter == "c" else Entry("module", value or None)
    options.append(word)
    return None


def is_python(name: str) -> bool:
    """Return whether a file of that name is an interpreter, as far as names tell."""
    return _PYTHON.match(os.path.basename(name)) is not None


def as_notebook(entry: Entry | None, notebook: str | None) -> Entry | None:
    """Return ``entry``, as the notebook that it is if it is a notebook's kernel; ``notebook`` is its path if known."""
    if entry is None or entry.name is None:
        return entry
    module = os.path.basename(entry.name).removesuffix(".py") if entry.kind == "script" else entry.name
    return Entry("notebook", notebook) if module in _NOTEBOOK_MODULES else entry


def ranks_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the rank variables that hold numbers."""
    return {name: environ[name] for name in RANK_VARIABLES if re.fullmatch(r"-?\d{1,12}", environ.get(name, ""))}
