"""Owns what the repository of a user's code was when it ran: the commit, what differed from it, what is kept of that.

``tree`` names the code: the git tree of the files as they lay in the working tree, less what is ``withheld``. Two runs
with equal trees and nothing withheld ran the same code, whatever their commits. What is not known is None, with its
reason in ``problems``. Paths are relative to ``root``; names and addresses were made fit for UTF-8 and redacted where
they were read. Sizes are bytes. Nothing here reads a file.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

#: Whether the code can be had again: all of it, in part (``reasons`` say what lacks), or not at all.
Restorable = Literal["yes", "partial", "no"]

#: Names of the files that belong to a repository: MLflow shows the first as text.
PATCH_NAME = "git_diff.txt"
BUNDLE_NAME = "git_commits.bundle"

#: Those of submodules have a number.
_FILE_NAME = re.compile(r"git_diff(?:\.[0-9]{1,4})?\.txt|git_commits(?:\.[0-9]{1,4})?\.bundle")


@dataclass(frozen=True, slots=True)
class Remote:
    """An address that the repository is fetched from, and the one it is pushed to where that is another."""

    name: str
    url: str
    push_url: str | None = None


@dataclass(frozen=True, slots=True)
class Submodule:
    """A repository within. ``commit`` is what lay there, ``recorded`` what the captured tree says, None if nothing.

    A submodule that is not initialised has no ``commit``. ``tree`` is the code that lay there; ``files`` are the names
    of its own patch and bundle among the record's files; ``problem`` says what is not known of it or not kept.
    """

    path: str
    commit: str | None
    recorded: str | None = None
    dirty: bool | None = None
    tree: str | None = None
    url: str | None = None
    restorable: Restorable | None = None
    files: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Withheld:
    """A changed file that is not in the patch, and why. ``size`` is that of the file on disk, None if it is gone."""

    path: str
    size: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that travels with the record: the patch or the bundle. ``sha256`` is hex, ``size`` bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Git:
    """The repository of the user's code.

    ``branch`` is None on a detached head; untracked files count as dirty. ``cwd`` is where in the repository the code
    was looked for. ``base`` is the commit that the patch starts from: ``commit``, or the newest one that a remote has
    where the unpushed commits could not be kept. ``unpushed`` counts commits that no remote-tracking branch holds;
    ``ahead`` and ``behind`` are against ``upstream``. Counts are of files. ``lfs_missing`` of ``lfs_files`` lay there
    as pointers, without their content. ``withheld_more`` counts what the list of withheld files has no room for.
    """

    commit: str
    branch: str | None
    dirty: bool | None
    root: str
    remote: str | None = None
    tree: str | None = None
    base: str | None = None
    describe: str | None = None
    cwd: str | None = None
    remotes: tuple[Remote, ...] = ()
    upstream: str | None = None
    ahead: int | None = None
    behind: int | None = None
    unpushed: int | None = None
    shallow: bool | None = None
    worktree: bool | None = None
    sparse: bool | None = None
    staged: int | None = None
    unstaged: int | None = None
    untracked: int | None = None
    conflicts: int | None = None
    submodules: tuple[Submodule, ...] = ()
    lfs_files: int | None = None
    lfs_missing: int | None = None
    withheld: tuple[Withheld, ...] = ()
    withheld_more: int = 0
    files: tuple[Attachment, ...] = ()
    restorable: Restorable | None = None
    reasons: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def is_file_name(name: str) -> bool:
    """Return whether a file of a record may have this name: it becomes a path, and whoever hands over may lie."""
    return _FILE_NAME.fullmatch(name) is not None


def limit(git: Git, files: Mapping[str, bytes], keep: str) -> tuple[Git, dict[str, bytes]]:
    """Return the repository and its files as somebody may keep them who wants less than was captured.

    ``keep``: ``patch`` all, ``names`` only which files changed, ``off`` nothing; the names of the files stay.
    """
    own = {each.name for each in git.files}
    if keep == "patch" or not own:
        return git, dict(files)
    kept = {name: content for name, content in files.items() if name not in own}
    attachments = []
    if keep == "names":
        for name in sorted(own & files.keys()):
            if name.startswith("git_diff"):
                kept[name] = changed_names(files[name])
                attachments.append(Attachment(name, hashlib.sha256(kept[name]).hexdigest(), len(kept[name])))
    why = f"uncommitted changes are not kept: git_diff = {keep}"
    return replace(git, files=tuple(attachments), restorable="partial", reasons=(*git.reasons, why)), kept


def changed_names(patch: bytes) -> bytes:
    """Return a line for each file of a patch: A, D or M, a blank and its name as git writes it."""
    lines = []
    for head, rest in _FILE.findall(patch):
        letter = b"A" if rest.startswith(b"new file") else b"D" if rest.startswith(b"deleted") else b"M"
        quoted = head.startswith(b'"')
        half = head[: len(head) // 2]  # the same name twice: there are no renames
        lines.append(letter + b" " + (b'"' + half[3:] if quoted else half[2:]) + b"\n")
    return b"".join(lines)


_FILE = re.compile(rb"^diff --git (.+)\n(.*)$", re.MULTILINE)
