"""Owns the repository that a directory lies in, and a private git directory that stands for it while it is read.

The private one names the user's working tree, has the objects as an alternate, a copy of the index and of the
references, and of the settings only those that decide how a file becomes a blob. So no filter, hook, fsmonitor, diff
driver, include or remote of the repository can run, and nothing is written into it: no object, no index, no lock.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from reprod.capture.bounded import read_bounded
from reprod.capture.git.command import FailedError, Place, run, user_place
from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: The index of a tree of a million files is about 100 MB.
MAX_INDEX = 256 << 20

#: Settings, patterns, grafts of a shallow clone: files that people write or that have a line a commit.
MAX_SMALL = 4 << 20

#: Some 80,000 references; without them it is not known which commits a remote has.
MAX_REFERENCES = 8 << 20

#: The settings of the user's that change what blob a file becomes or which files count; everything else stays behind.
_SETTINGS = (
    "core.attributesfile",
    "core.autocrlf",
    "core.eol",
    "core.excludesfile",
    "core.filemode",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.symlinks",
)

#: What must not come from elsewhere: git before 2.32 reads the user's settings all the same.
_OWN_SETTINGS = (
    "core.fsmonitor=false",
    "core.fsync=none",
    "core.hooksPath=/dev/null",
    "core.looseCompression=0",
    "core.quotePath=false",
    "core.safecrlf=false",
    "core.sparseCheckout=false",
    "core.splitIndex=false",
    "core.untrackedCache=false",
    "diff.renames=false",
    "pack.threads=1",
)

_QUESTIONS = ("--show-toplevel", "--absolute-git-dir", "--git-common-dir", "--is-shallow-repository")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository with a commit checked out. ``head`` is the full name of its branch, None on a detached head.

    ``cwd`` is where the search began, relative to ``root``. ``config`` has every setting, its values in order.
    """

    root: str
    git_dir: str
    common_dir: str
    shallow: bool
    commit: str
    head_tree: str
    head: str | None
    cwd: str
    config: Mapping[str, tuple[str | None, ...]]

    def setting(self, key: str) -> str | None:
        """Return the value in force of a setting (its key in small letters), None if it has none."""
        values = self.config.get(key)
        return values[-1] if values else None


@dataclass(frozen=True, slots=True)
class References:
    """What ``lines`` (``object name``) the repository has of tags and remote branches; None if they are too many."""

    lines: tuple[str, ...] | None
    upstream: str | None = None

    def among(self, prefix: str) -> bool:
        """Return whether any reference begins with ``prefix``."""
        return any(line.partition(" ")[2].startswith(prefix) for line in self.lines or ())


def find(directory: str, ends: float) -> Checkout:
    """Return the repository that holds ``directory``; raises IncompleteError with the reason if there is none."""
    place = user_place(directory, ends)
    try:
        said = run(place, ["rev-parse", *_QUESTIONS, "HEAD^{commit}", "HEAD^{tree}", "--symbolic-full-name", "HEAD"])
    except FailedError as failure:
        if failure.said.count(b"\n") >= len(_QUESTIONS):
            raise IncompleteError("the git repository has no commit yet") from failure
        raise
    lines = os.fsdecode(said).split("\n")
    if len(lines) != 8:
        raise IncompleteError("the path of the git repository has a line break")
    root, git_dir, common, shallow, commit, tree, head, _ = lines
    if not _belongs(root, git_dir):
        raise IncompleteError(f"the git repository has its working tree set elsewhere, to {plain(root)}")
    cwd = os.path.relpath(os.path.realpath(directory), root)
    if cwd.startswith(".."):
        raise IncompleteError(f"{plain(directory)} is not in the working tree {plain(root)}")
    return Checkout(
        root=root,
        git_dir=git_dir,
        common_dir=os.path.realpath(os.path.join(directory, common)),
        shallow=shallow == "true",
        commit=commit,
        head_tree=tree,
        head=None if head == "HEAD" else head,
        cwd=cwd,
        config=_read_settings(place),
    )


def read_references(checkout: Checkout, ends: float) -> References:
    """Return tags and remote branches, and the branch's upstream (full name, or None)."""
    wanted = ["refs/remotes", "refs/tags", *([checkout.head] if checkout.head else [])]
    arguments = ["for-each-ref", "--format=%(objectname) %(refname) %(upstream)", *wanted]
    try:
        said = run(user_place(checkout.root, ends), arguments, limit=MAX_REFERENCES)
    except IncompleteError:
        return References(None)
    upstream = None
    lines = []
    for line in os.fsdecode(said).splitlines():
        name, _, tracked = line.rpartition(" ")
        if name.endswith(f" {checkout.head}"):
            upstream = tracked or None
        else:
            lines.append(name)
    return References(tuple(lines), upstream)


def open_private(checkout: Checkout, references: References, folder: str, ends: float) -> Place:
    """Make the private git directory in ``folder`` (which is the caller's) and return the place where git uses it."""
    for name in ("objects/info", "refs", "info"):
        os.makedirs(os.path.join(folder, name), mode=0o700)
    sha256 = len(checkout.commit) == 64
    extension = "[extensions]\nobjectFormat = sha256\n" if sha256 else ""
    _write(folder, "config", f"[core]\nrepositoryFormatVersion = {int(sha256)}\nbare = false\n{extension}".encode())
    _write(folder, "HEAD", f"{checkout.commit}\n".encode())
    _write(folder, "objects/info/alternates", os.fsencode(f"{checkout.common_dir}/objects\n"))
    _write(folder, "packed-refs", b"".join(os.fsencode(line) + b"\n" for line in references.lines or ()))
    for source, name in (
        (checkout.common_dir, "info/exclude"),
        (checkout.common_dir, "info/attributes"),
        (checkout.common_dir, "shallow"),
    ):
        _copy(source, name, folder, MAX_SMALL)
    _copy(checkout.git_dir, "index", folder, MAX_INDEX)
    for name in os.listdir(checkout.git_dir):
        if name.startswith("sharedindex."):
            _copy(checkout.git_dir, name, folder, MAX_INDEX)
    options = [part for setting in _OWN_SETTINGS for part in ("-c", setting)]
    for key in _SETTINGS:
        if key in checkout.config:
            value = checkout.setting(key)
            options += ["-c", key if value is None else f"{key}={value}"]
    place = user_place(checkout.root, ends).using(
        GIT_DIR=folder, GIT_WORK_TREE=checkout.root, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1"
    )
    return Place(checkout.root, place.environ, tuple(options), ends)


def _belongs(root: str, git_dir: str) -> bool:
    """Return whether ``git_dir`` is the one that ``root`` has: ``core.worktree`` may name a home directory."""
    entry = os.path.join(root, ".git")
    try:
        if not os.path.isdir(entry):
            said = read_bounded(entry, 1 << 14).removeprefix(b"gitdir:").strip()
            entry = os.path.join(root, os.fsdecode(said))
        return os.path.samefile(entry, git_dir)
    except OSError:
        return False


def _read_settings(place: Place) -> dict[str, tuple[str | None, ...]]:
    settings: dict[str, tuple[str | None, ...]] = {}
    for entry in os.fsdecode(run(place, ["config", "-z", "--list"], limit=MAX_SMALL)).split("\0"):
        key, given, value = entry.partition("\n")
        if key:
            settings[key] = (*settings.get(key, ()), value if given else None)
    return settings


def _copy(source: str, name: str, folder: str, limit: int) -> None:
    """Copy a file of the repository with its modification time, if it is there.

    Git takes a file for unchanged only if it is older than the index, so the copy must be as old as the original.
    """
    path = os.path.join(source, name)
    try:
        status = os.stat(path)
        data = read_bounded(os.path.realpath(path), limit + 1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise IncompleteError(f"{name} of the git repository is not readable: {error.strerror or error}") from error
    if len(data) > limit:
        raise IncompleteError(f"{name} of the git repository has over {limit} bytes")
    _write(folder, name, data)
    os.utime(os.path.join(folder, name), ns=(time.time_ns(), status.st_mtime_ns))


def _write(folder: str, name: str, data: bytes) -> None:
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)
