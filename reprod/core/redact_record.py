"""Owns what a record of an environment may tell of datasets that keep their names to themselves: nothing below a root.

Command lines and paths are judged from where the process stood, the changes of a repository from where it lies; every
other text is searched for the roots. Code is the user's, so its lines stay as they are; files of a repository that lie
in such a dataset are no code, and what cannot be looked into (commits, packed) goes whole. Pure.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from reprod.core.described import described
from reprod.core.environment import Environment, Record
from reprod.core.execution import Execution
from reprod.core.invocation import Invocation
from reprod.core.redact_paths import Curtain, Reserved
from reprod.core.repository import Attachment, Git, Submodule, Withheld

_Part = TypeVar("_Part", Environment, Execution)

_UNTOLD = "the names of its dataset are not published"
_SECTION = re.compile(rb"^diff --git (.+)\n", re.MULTILINE)


def hidden(record: Record, curtain: Curtain) -> Record:
    """Return the record without what the curtain hides; the same record where that is nothing."""
    if not curtain:
        return record
    environment, execution, files = record.environment, record.execution, dict(record.files)
    if execution.invocation is not None:
        execution = replace(execution, invocation=_invocation(execution.invocation, curtain))
    if environment.git is not None:
        git, files = _git(environment.git, files, curtain)
        environment = replace(environment, git=git)
    return Record(_searched(execution, curtain), _searched(environment, curtain), files)


def _searched(part: _Part, curtain: Curtain) -> _Part:
    import msgspec

    return msgspec.convert(curtain.value(msgspec.to_builtins(part)), described(type(part)))


def _invocation(found: Invocation, curtain: Curtain) -> Invocation:
    def words(given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(curtain.word(word, found.cwd) for word in given)

    def path(given: str | None) -> str | None:
        return None if given is None else curtain.word(given, found.cwd)

    entry = found.entry
    return replace(
        found,
        arguments=None if found.arguments is None else words(found.arguments),
        entry=entry if entry is None or entry.kind == "module" else replace(entry, name=path(entry.name)),
        main_file=path(found.main_file),
        options=words(found.options),
        launchers=tuple(replace(each, arguments=words(each.arguments)) for each in found.launchers),
    )


# --- the repository --------------------------------------------------------------------------------------------------


def _git(git: Git, files: Mapping[str, bytes], curtain: Curtain) -> tuple[Git, dict[str, bytes]]:
    """Return a repository and its files without what lies in such a dataset, or may."""
    inside = dict(curtain.within(git.root))
    around = curtain.owner(git.root)
    if not inside and around is None:
        return git, dict(files)
    roots = {name: posixpath.join(git.root, each.path) for each in git.submodules for name in each.files}
    kept, lost = {}, False
    for name, content in files.items():
        left = _left(name, content, roots.get(name, git.root), curtain)
        lost = lost or left != content
        if left:
            kept[name] = left
    # Counts and sentences may name a path as seen from the top of the repository.
    relative = Curtain([Reserved(each.name, (path,), each.whole) for path, each in inside.items() if path])
    own = {each.name for each in git.files}
    git = replace(
        git,
        cwd=None if git.cwd is None else _told(git.root, git.cwd, curtain),
        withheld=_withheld(git, curtain),
        submodules=tuple(_submodule(each, git.root, kept, curtain) for each in git.submodules),
        files=tuple(Attachment(n, hashlib.sha256(c).hexdigest(), len(c)) for n, c in kept.items() if n in own),
        reasons=tuple(map(relative.text, git.reasons)),
        problems=tuple(map(relative.text, git.problems)),
    )
    if lost:
        whose = ", ".join(
            sorted({f"dataset {each.name}" for each in [*inside.values(), *([around] if around else [])]})
        )
        why = f"what changed in {whose}, and commits that no remote has, are not kept: {_UNTOLD}"
        git = replace(git, restorable="partial", reasons=(*git.reasons, why))
    return git, kept


def _left(name: str, content: bytes, root: str, curtain: Curtain) -> bytes:
    """Return what is left of a file that belongs to the repository at ``root``."""
    if curtain.owner(root) is not None:
        return b""
    if not curtain.within(root):
        return content
    return b"".join(_sections(content, root, curtain)) if name.startswith("git_diff") else b""


def _sections(patch: bytes, root: str, curtain: Curtain) -> Iterator[bytes]:
    """Yield the parts of a patch that change files which may be named."""
    starts = [match.start() for match in _SECTION.finditer(patch)]
    yield patch[: starts[0] if starts else len(patch)]
    for start, end in zip(starts, [*starts[1:], len(patch)], strict=True):
        head = patch[start + len(b"diff --git ") : patch.index(b"\n", start)]
        if curtain.owner(posixpath.join(root, _name(head))) is None:
            yield patch[start:end]


def _name(head: bytes) -> str:
    """Return the name in the head of a part: ``a/NAME b/NAME``, in quotes if git had to escape it."""
    half = head[: len(head) // 2]
    if half.startswith(b'"'):
        half = half[1:-1].decode("unicode_escape").encode("latin-1", "replace")
    return half[2:].decode("utf-8", "surrogateescape")


def _withheld(git: Git, curtain: Curtain) -> tuple[Withheld, ...]:
    """Return the files that are not in the patch, one for all that lie in one dataset; without sizes."""
    found: dict[Any, Withheld] = {}
    for each in git.withheld:
        owner = curtain.owner(posixpath.join(git.root, each.path))
        found[owner or each] = each if owner is None else Withheld(owner.below, None, _UNTOLD)
    return tuple(found.values())


def _submodule(module: Submodule, root: str, kept: Mapping[str, bytes], curtain: Curtain) -> Submodule:
    left = tuple(name for name in module.files if name in kept)
    hides = left != module.files or curtain.within(posixpath.join(root, module.path))
    return replace(
        module,
        path=_told(root, module.path, curtain),
        files=left,
        restorable="partial" if left != module.files else module.restorable,
        problem=_UNTOLD if hides and module.problem else module.problem,
    )


def _told(root: str, path: str, curtain: Curtain) -> str:
    """Return a path within a repository, hidden if it lies in such a dataset."""
    owner = curtain.owner(posixpath.join(root, path))
    return path if owner is None else owner.below
