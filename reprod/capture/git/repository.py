"""Owns what is recorded of the repository of a user's code, and what of it travels: the patch and unpushed commits.

Called in the user's own process or its child, never by the daemon: it runs git, in a way in which nothing that the
repository configures can run and nothing in it is written (git_private.py). What could not be found out in time is
None and said in ``problems``; what cannot be had again is said in ``reasons``.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal

from reprod.capture.git.addresses import read_remotes, read_submodule_urls
from reprod.capture.git.bundle import count_against, describe, read_history
from reprod.capture.git.changes import Changes, read_changes
from reprod.capture.git.command import Budget, Place
from reprod.capture.git.lfs import Filtered, count_pointers, settle
from reprod.capture.git.patch import Patch, read_patch
from reprod.capture.git.private import Checkout, References, find, open_private, read_references
from reprod.capture.git.secrets import Search
from reprod.capture.git.selection import select
from reprod.core.redact import plain, redact_text
from reprod.core.redact_taint import Taint
from reprod.core.repository import BUNDLE_NAME, PATCH_NAME, Attachment, Git, Submodule, Withheld
from reprod.errors import IncompleteError

#: What leaves the process of uncommitted changes and unpushed commits: all, the names of changed files, or nothing.
Keep = Literal["patch", "names", "off"]

#: More withheld files are counted, not listed: the record travels through a socket.
MAX_WITHHELD = 200

#: Submodules that are looked into, each at the cost of a small repository, and how deep they may lie in each other.
MAX_SUBMODULES = 32
MAX_DEPTH = 3

#: Bundling is the first to give up: without it the patch can start from an older commit.
_HISTORY_SHARE = 0.4

_DEFAULT = Budget()


def read_git(
    directory: str, *, patch: Keep = "patch", budget: Budget = _DEFAULT, tainted: Collection[str] = ()
) -> tuple[Git, dict[str, bytes]]:
    """Return the state of the repository that holds ``directory``, and the files that belong to it, by name.

    The files are ``git_diff.txt`` (of ``names``: a letter and a name a line) and ``git_commits.bundle``, where there is
    anything to put in, and the same of submodules with a number in the name. They were searched for secrets, of which
    ``tainted`` are known by value, and are to be kept as they are: a patch with a masked line does not apply.

    Raises IncompleteError with the reason if there is no repository, no commit, no git, or one of another user.
    """
    ends = time.monotonic() + budget.seconds
    capture = _Capture(patch, budget, ends, Search(Taint(tainted), ends))
    git = capture.read(find(directory, ends))
    attachments = tuple(
        Attachment(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in capture.files.items()
    )
    return replace(git, files=attachments), capture.files


@dataclass(slots=True)
class _Capture:
    """One call: what may leave, what it may still cost, and the files so far."""

    keep: Keep
    budget: Budget
    ends: float
    search: Search
    files: dict[str, bytes] = field(default_factory=dict)
    repositories: int = 0

    def read(self, checkout: Checkout, depth: int = 0) -> Git:
        """Return what ``checkout`` is; ``depth`` is in how many repositories it lies."""
        number, self.repositories = self.repositories, self.repositories + 1
        references = read_references(checkout, self.ends)
        git = _facts(checkout, references)
        try:
            with tempfile.TemporaryDirectory(prefix="reprod-git-", ignore_cleanup_errors=True) as folder:
                place = open_private(checkout, references, folder, self.ends)
                return self._differences(git, place, checkout, references, number, depth)
        except (IncompleteError, OSError) as error:
            why = plain(error.message if isinstance(error, IncompleteError) else str(error))
            return replace(git, problems=(f"what differs from the commit is not known: {why}",))

    def _differences(
        self, git: Git, place: Place, checkout: Checkout, references: References, number: int, depth: int
    ) -> Git:
        filtered = settle(place, checkout, read_changes(place))
        ahead, behind = count_against(place, references)
        git = replace(git, describe=describe(place, references), ahead=ahead, behind=behind)
        git = _counts(git, checkout, filtered.changes, count_pointers(place, filtered.changes))
        git = self._keep_history(place, git, references, number)
        git = self._keep_changes(place, git, filtered, number)
        git = self._enter_submodules(place, git, filtered.changes, depth)
        if not filtered.changes.listed_all:
            git = replace(git, tree=None)
        lost = git.base is None
        return replace(git, restorable="no" if lost else "partial" if git.reasons else "yes")

    def _keep_history(self, place: Place, git: Git, references: References, number: int) -> Git:
        left = max(0.0, self.ends - time.monotonic())
        try:
            history = read_history(
                place.within(left * _HISTORY_SHARE),
                git.commit,
                references,
                self.budget,
                self.search if self.keep == "patch" else None,
            )
        except IncompleteError as error:
            git = replace(git, base=git.commit)
            return _wanting(git, f"which commits a remote has is not known: {error.message}")
        if history.bundle is not None:
            self._attach(BUNDLE_NAME, number, history.bundle)
        git = replace(git, unpushed=history.unpushed, base=history.base)
        return git if history.reason is None else _wanting(git, history.reason)

    def _keep_changes(self, place: Place, git: Git, filtered: Filtered, number: int) -> Git:
        """Return ``git`` with its tree and what is withheld, and attach the patch or the names."""
        base = (git.base if self.keep == "patch" else None) or git.commit
        if not git.dirty and base == git.commit:
            return git
        try:
            chosen = select(place.directory, filtered, self.budget)
            patch = read_patch(place, base, chosen, self.budget, self.search)
        except IncompleteError as error:
            return _wanting(replace(git, tree=None), f"the changes are not recorded: {error.message}")
        git = _withheld(replace(git, tree=patch.tree), patch)
        if git.withheld:
            git = _wanting(git, f"{len(git.withheld) + git.withheld_more} changed files are withheld")
        if self.keep == "patch":
            if not patch.proven:
                git = _wanting(git, "the patch could not be proven to give the tree")
            if patch.data:
                self._attach(PATCH_NAME, number, patch.data)
        elif patch.entries:
            git = _wanting(git, f"the contents of {len(patch.entries)} changed files are not recorded, as configured")
            if self.keep == "names":
                names = "".join(f"{entry.letter}\t{_shown(entry.path)}\n" for entry in patch.entries)
                self._attach(PATCH_NAME, number, names.encode())
        return git

    def _enter_submodules(self, place: Place, git: Git, changes: Changes, depth: int) -> Git:
        links: dict[bytes, bytes | None] = {**changes.gitlinks(), **dict.fromkeys(changes.nested)}
        if not links:
            return git
        urls = read_submodule_urls(place)
        modules = []
        for path, oid in list(links.items())[:MAX_SUBMODULES]:
            recorded = None if oid is None else oid.decode()
            modules.append(self._enter(place.directory, path, recorded, urls, depth))
        if len(links) > MAX_SUBMODULES:
            git = _wanting(git, f"only {MAX_SUBMODULES} of {len(links)} submodules were looked into")
        for module in modules:
            if module.recorded is not None and module.commit is not None and module.restorable != "yes":
                git = _wanting(git, f"the submodule {module.path} cannot be had again in full")
        git = replace(git, submodules=tuple(modules))
        return replace(git, dirty=True) if any(module.dirty for module in modules) else git

    def _enter(self, root: str, path: bytes, recorded: str | None, urls: dict[str, str], depth: int) -> Submodule:
        """Return one submodule: what git says in its own directory, if it is a repository of its own."""
        name = os.fsdecode(path)
        module = Submodule(_shown(path), None, recorded, url=urls.get(name))
        directory = os.path.join(root, name)
        before = set(self.files)
        try:
            if not os.path.lexists(os.path.join(directory, ".git")):
                return module
            if depth >= MAX_DEPTH:
                return replace(module, problem="it lies too deep in other submodules to be looked into")
            git = self.read(find(directory, self.ends), depth + 1)
        except IncompleteError as error:
            return replace(module, problem=error.message)
        return replace(
            module,
            commit=git.commit,
            dirty=git.dirty,
            tree=git.tree,
            url=module.url or git.remote,
            restorable=git.restorable,
            files=tuple(sorted(set(self.files) - before)),
            problem="; ".join((*git.reasons, *git.problems)) or None,
        )

    def _attach(self, name: str, number: int, data: bytes) -> None:
        """Keep a file, and let it count against what those of later repositories may have."""
        stem, _, suffix = name.rpartition(".")
        self.files[f"{stem}.{number}.{suffix}" if number else name] = data
        left = {"patch_bytes": self.budget.patch_bytes, "bundle_bytes": self.budget.bundle_bytes}
        kind = "bundle_bytes" if name == BUNDLE_NAME else "patch_bytes"
        left[kind] -= len(data)
        self.budget = replace(self.budget, **left)


def _facts(checkout: Checkout, references: References) -> Git:
    """Return what settings and references say."""
    remotes = read_remotes(checkout)
    branch = checkout.head.removeprefix("refs/heads/") if checkout.head else None
    upstream = references.upstream
    return Git(
        commit=checkout.commit,
        branch=None if branch is None else plain(branch),
        dirty=None,
        root=plain(checkout.root),
        remote=remotes[0].url if remotes else None,
        cwd=plain(checkout.cwd),
        remotes=remotes,
        upstream=None if upstream is None else plain(upstream.removeprefix("refs/remotes/")),
        shallow=checkout.shallow,
        worktree=os.path.realpath(checkout.git_dir) != checkout.common_dir,
        sparse=checkout.setting("core.sparsecheckout") == "true",
    )


def _counts(git: Git, checkout: Checkout, changes: Changes, lfs: tuple[int, int] | None) -> Git:
    """Return ``git`` with how many files differ, and the tree of the commit for as long as none does."""
    new = len(changes.untracked) + len(changes.nested)
    dirty = bool(changes.tracked or new)
    git = replace(
        git,
        dirty=dirty or (False if changes.listed_all else None),
        tree=checkout.head_tree,
        staged=changes.count("staged", "both"),
        unstaged=changes.count("unstaged", "both"),
        conflicts=changes.count("conflict"),
        untracked=new,
        lfs_files=lfs[0] if lfs else None,
        lfs_missing=lfs[1] if lfs else None,
    )
    if not changes.listed_all:
        git = _wanting(git, "new files were not listed to the end, there are too many")
    elif git.cwd not in {None, "."}:
        inside = os.fsencode(f"{git.cwd}/")
        if not any(path.startswith(inside) for path in (*changes.index, *changes.untracked)):
            git = _wanting(git, f"the repository holds nothing of {git.cwd}, where the code is")
    return git


def _withheld(git: Git, patch: Patch) -> Git:
    listed = sorted(patch.withheld.items())[:MAX_WITHHELD]
    return replace(
        git,
        withheld=tuple(Withheld(_shown(path), size, reason) for path, (size, reason) in listed),
        withheld_more=len(patch.withheld) - len(listed),
    )


def _wanting(git: Git, reason: str) -> Git:
    return replace(git, reasons=(*git.reasons, reason))


def _shown(path: bytes) -> str:
    """Return a path for people: one line, no control characters, no secret that is part of a name."""
    text = redact_text(os.fsdecode(path))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
