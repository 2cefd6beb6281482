"""Owns the commits that no remote has: how many, and a bundle of them from which git restores the exact commit.

"Has" is what the remote-tracking branches say. A bundle holds whole files and messages, so each object in it is looked
through first: one secret, or too many bytes, and there is no bundle; then the patch starts from the newest commit that
a remote has, and gives the code without its history. Sizes are bytes.
"""

import os
import re
from dataclasses import dataclass

from reprod.capture.git.command import Budget, FailedError, LongError, Place, run
from reprod.capture.git.patch import read_objects
from reprod.capture.git.private import References
from reprod.capture.git.secrets import Search, is_secret_name
from reprod.errors import IncompleteError

#: Names of 100,000 commits; so many that no remote has are a repository without one.
MAX_COMMITS = 5 << 20

#: A guess at a version; walking to the nearest tag takes seconds in a large history.
DESCRIBE_S = 0.4

_OBJECT = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})(?: (.*))?\Z", re.DOTALL)
_UNPUSHED = ("HEAD", "--not", "--remotes")


@dataclass(frozen=True, slots=True)
class History:
    """Where the commit stands. ``base`` is the newest commit that can be had again: from a remote, or with ``bundle``.

    ``base`` is None if there is none; ``reason`` says why unpushed commits are not kept. Unknown counts are None.
    """

    unpushed: int | None
    base: str | None
    bundle: bytes | None = None
    reason: str | None = None


def read_history(place: Place, commit: str, references: References, budget: Budget, search: Search | None) -> History:
    """Return how many commits no remote has, and the bundle of them unless ``search`` is None: they are to stay."""
    if references.lines is None:
        return History(None, commit, reason="the git repository has too many references to tell what a remote has")
    commits = run(place, ["rev-list", *_UNPUSHED], limit=MAX_COMMITS).split()
    if not commits:
        return History(0, commit)
    if search is None:
        return History(len(commits), _pushed(place), reason=f"{len(commits)} unpushed commits are not recorded")
    try:
        return History(len(commits), commit, _bundle(place, commits, budget, search))
    except IncompleteError as error:
        why = f"{len(commits)} unpushed commits are not recorded: {error.message}"
        return History(len(commits), _pushed(place), reason=why)


def count_against(place: Place, references: References) -> tuple[int | None, int | None]:
    """Return how many commits the branch is ahead of and behind its upstream; None where that is not known."""
    oids = {name: oid for oid, _, name in (line.partition(" ") for line in references.lines or ())}
    if references.upstream not in oids:
        return None, None
    try:
        said = run(place, ["rev-list", "--left-right", "--count", f"HEAD...{oids[references.upstream]}"])
    except IncompleteError:
        return None, None
    ahead, behind = said.split()
    return int(ahead), int(behind)


def describe(place: Place, references: References) -> str | None:
    """Return the nearest tag with the distance to it, as ``git describe --tags`` writes it, if there is one."""
    if not references.among("refs/tags/"):
        return None
    try:
        return os.fsdecode(run(place.within(DESCRIBE_S), ["describe", "--tags", "HEAD"])).strip()
    except IncompleteError:
        return None


def _pushed(place: Place) -> str | None:
    """Return the newest commit on the branch's first line that a remote has."""
    try:
        said = run(place, ["rev-list", "--first-parent", "--boundary", *_UNPUSHED], limit=MAX_COMMITS).decode().split()
    except IncompleteError:
        return None
    return next((line[1:] for line in reversed(said) if line.startswith("-")), None)


def _bundle(place: Place, commits: list[bytes], budget: Budget, search: Search) -> bytes:
    try:
        with open(os.path.join(place.environ["GIT_DIR"], "shallow"), "rb") as file:
            cut = set(file.read().split())
    except FileNotFoundError:
        cut = set()
    if not cut.isdisjoint(commits):
        raise IncompleteError("the clone is shallow, so their history is not here")
    try:
        data = run(place, ["bundle", "create", "--quiet", "-", *_UNPUSHED], limit=budget.bundle_bytes)
    except LongError as error:
        raise IncompleteError(f"their bundle has over {budget.bundle_bytes} bytes") from error
    except FailedError as error:
        raise IncompleteError(error.message) from error
    _look_through(place, search)
    return data


def _look_through(place: Place, search: Search) -> None:
    """Raise IncompleteError if any object of the unpushed commits holds a secret, or has the name of one that does."""
    names: dict[bytes, bytes] = {}
    latest = b""
    for line in run(place, ["rev-list", "--objects", *_UNPUSHED]).split(b"\n"):
        match = _OBJECT.match(line)
        if match:
            latest = match.group(1)
            names[latest] = match.group(2) or b""
        elif latest:
            names[latest] += b"\n" + line  # a name may have a line break
    if any(is_secret_name(name.rstrip(b"\n")) for name in names.values()):
        raise IncompleteError("one of their files has the name of a secret")
    if any(search.finds(content) for content in read_objects(place, set(names)).values()):
        raise IncompleteError("one of their files or messages holds what looks like a secret")
