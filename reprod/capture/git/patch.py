"""Owns the patch: what leads from a commit that can be had again to the files that ran, proven by its tree id.

The chosen files are put into the copy of the index, objects go into the private directory, and git compares the two
trees. A file whose change may not leave (its name, its text, its size) is put back to what the commit has. What is left
is applied to the commit in a second index: only a patch that gives the very tree that was read is called proven.
Sizes are bytes; paths are bytes, relative to the root.
"""

import os
from dataclasses import dataclass, field

from reprod.capture.git.command import Budget, Place, run
from reprod.capture.git.secrets import FOUND, NAMED, Search, is_secret_name
from reprod.capture.git.selection import MAX_TRACKED_BYTES, NO_ROOM, TOO_LARGE, Selection
from reprod.errors import IncompleteError

#: A patch may be this much larger than its limit before the files that do not fit are taken out.
MAX_RAW_PATCH = 64 << 20

#: Contents of binary files, old and new, that are searched for secrets.
MAX_SEARCHED = 64 << 20

_GITLINK = b"160000"
_HEADER = b"diff --git "
_BINARY = b"\nGIT binary patch\n"

#: Each says what a setting could change, although the private directory has no settings.
_DIFF = (
    "diff-index", "--cached", "-p", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv",
    "--no-renames", "--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--unified=3", "--inter-hunk-context=0",
    "--diff-algorithm=myers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One changed path: modes (octal) and object names before and after, and git's letter for the change."""

    old_mode: bytes
    new_mode: bytes
    old: bytes
    new: bytes
    letter: str
    path: bytes

    @property
    def sections(self) -> int:
        """How many parts of the patch it has: a change of kind is a deletion and a creation."""
        return 2 if self.letter == "T" else 1


@dataclass(slots=True)
class Patch:
    """``data`` gives ``tree`` when applied to the commit, if ``proven``; ``entries`` are the changed paths in it.

    ``withheld``: path -> (size in bytes or None, reason).
    """

    data: bytes
    tree: str
    proven: bool
    entries: list[Entry]
    withheld: dict[bytes, tuple[int | None, str]] = field(default_factory=dict)


def read_patch(place: Place, base: str, chosen: Selection, budget: Budget, search: Search) -> Patch:
    """Return the patch from the commit ``base`` to the chosen files; raises IncompleteError if git cannot make it."""
    _stage(place, base, chosen)
    withheld = dict(chosen.withheld)
    entries = _compare(place, base)
    dropped = _judge_entries(place, entries, chosen, withheld, budget)
    _put_back(place, dropped)
    kept = [entry for entry in entries if entry not in dropped]
    sections = _split(run(place, [*_DIFF, base], limit=MAX_RAW_PATCH), kept) if kept else {}
    too_much = _squeeze(kept, sections, budget.patch_bytes)
    guilty = _search(place, [entry for entry in kept if entry not in too_much], sections, search)
    for entry in too_much | guilty:
        withheld[entry.path] = (_size(place, entry.path), FOUND if entry in guilty else NO_ROOM)
    _put_back(place, too_much | guilty)
    kept = [entry for entry in kept if entry not in too_much | guilty]
    tree = run(place, ["write-tree"]).decode().strip()
    data = b"".join(sections[entry.path] for entry in kept)
    return Patch(data, tree, _proves(place, base, data, tree), kept, withheld)


def _stage(place: Place, base: str, chosen: Selection) -> None:
    """Make the private index what lies in the working tree, as far as it was chosen."""
    if chosen.gone:
        absent = b"0 " + b"0" * len(base) + b"\t"
        run(place, ["update-index", "-z", "--index-info"], stdin=b"".join(absent + p + b"\0" for p in chosen.gone))
    lying = [path for path in chosen.update if path not in chosen.pointers]
    if lying:
        paths = b"".join(path + b"\0" for path in lying)
        run(place, ["update-index", "--add", "--remove", "--replace", "-z", "--stdin"], stdin=paths)
    if chosen.pointers:
        _stage_pointers(place, chosen.pointers)


def _stage_pointers(place: Place, pointers: dict[bytes, bytes]) -> None:
    names = []
    for number, pointer in enumerate(pointers.values()):
        names.append(os.path.join(place.environ["GIT_DIR"], f"pointer.{number}"))
        with open(names[-1], "wb") as file:
            file.write(pointer)
    paths = os.fsencode("".join(f"{name}\n" for name in names))
    oids = run(place, ["hash-object", "-w", "--no-filters", "--stdin-paths"], stdin=paths).split()
    lines = []
    for path, oid in zip(pointers, oids, strict=True):
        executable = os.lstat(os.path.join(os.fsencode(place.directory), path)).st_mode & 0o100
        lines.append(b"%b %b\t%b\0" % (b"100755" if executable else b"100644", oid, path))
    run(place, ["update-index", "--replace", "-z", "--index-info"], stdin=b"".join(lines))


def _compare(place: Place, base: str) -> list[Entry]:
    said = run(place, ["diff-index", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", base]).split(b"\0")
    entries = []
    for facts, path in zip(said[0::2], said[1::2], strict=False):
        old_mode, new_mode, old, new, letter = facts[1:].split(b" ")
        entries.append(Entry(old_mode, new_mode, old, new, letter.decode()[:1], path))
    return entries


def _judge_entries(
    place: Place,
    entries: list[Entry],
    chosen: Selection,
    withheld: dict[bytes, tuple[int | None, str]],
    budget: Budget,
) -> set[Entry]:
    """Return the entries whose change may not be read any further: withheld, secret by name, or too large a content."""
    sizes = _blob_sizes(place, entries)
    dropped = set()
    for entry in entries:
        largest = max(sizes.get(entry.old, 0), sizes.get(entry.new, 0))
        limit = budget.patch_bytes if entry.letter in "DA" else MAX_TRACKED_BYTES
        if entry.path in withheld and entry.path not in chosen.pointers:
            why = withheld[entry.path][1]
        elif is_secret_name(entry.path):
            why = NAMED
        elif largest > limit:
            why = TOO_LARGE
        else:
            continue
        dropped.add(entry)
        withheld.setdefault(entry.path, (_size(place, entry.path), why))
    return dropped


def _blob_sizes(place: Place, entries: list[Entry]) -> dict[bytes, int]:
    oids = {oid for entry in entries for oid in _blobs(entry)}
    if not oids:
        return {}
    said = run(place, ["cat-file", "--batch-check=%(objectname) %(objectsize)"], stdin=b"\n".join(oids) + b"\n")
    pairs = (line.split(b" ") for line in said.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if pair[1].isdigit()}


def _blobs(entry: Entry) -> list[bytes]:
    pairs = ((entry.old_mode, entry.old), (entry.new_mode, entry.new))
    return [oid for mode, oid in pairs if mode != _GITLINK and oid.strip(b"0")]


def _put_back(place: Place, dropped: set[Entry]) -> None:
    """Give these paths in the private index what the commit has there."""
    if dropped:
        lines = [b"%b %b\t%b\0" % (entry.old_mode.lstrip(b"0") or b"0", entry.old, entry.path) for entry in dropped]
        run(place, ["update-index", "--replace", "-z", "--index-info"], stdin=b"".join(lines))


def _split(patch: bytes, entries: list[Entry]) -> dict[bytes, bytes]:
    """Return the part of the patch for each path: git prints them in the order in which it lists the entries."""
    starts = [0] if patch.startswith(_HEADER) else []
    at = 0
    # No line of a text begins so (it has a sign first), and none of base 85 (it has no blank).
    while (at := patch.find(b"\n" + _HEADER, at)) >= 0:
        at += 1
        starts.append(at)
    if len(starts) != sum(entry.sections for entry in entries):
        raise IncompleteError(f"git printed {len(starts)} parts of a patch for {len(entries)} changed files")
    starts.append(len(patch))
    found, number = {}, 0
    for entry in entries:
        found[entry.path] = patch[starts[number] : starts[number + entry.sections]]
        number += entry.sections
    return found


def _search(place: Place, entries: list[Entry], sections: dict[bytes, bytes], search: Search) -> set[Entry]:
    """Return the entries whose change shows a secret; of a binary file both contents are searched whole."""
    guilty = {entry for entry in entries if search.finds(sections[entry.path])}
    binary = [entry for entry in entries if entry not in guilty and _BINARY in sections[entry.path]]
    oids = {oid for entry in binary for oid in _blobs(entry)}
    bad = {oid for oid, content in read_objects(place, oids).items() if search.finds(content)}
    return guilty | {entry for entry in binary if not bad.isdisjoint(_blobs(entry))}


def read_objects(place: Place, oids: set[bytes]) -> dict[bytes, bytes]:
    """Return the contents of objects by name; raises LongError if they are more than can be searched."""
    if not oids:
        return {}
    said = run(place, ["cat-file", "--batch"], stdin=b"\n".join(sorted(oids)) + b"\n", limit=MAX_SEARCHED)
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(said):
        end = said.index(b"\n", at)
        facts = said[at:end].split(b" ")
        if len(facts) != 3:
            raise IncompleteError("an object of the git repository is missing")
        size = int(facts[2])
        found[facts[0]] = said[end + 1 : end + 1 + size]
        at = end + 1 + size + 1
    return found


def _squeeze(entries: list[Entry], sections: dict[bytes, bytes], room: int) -> set[Entry]:
    """Return the entries that do not fit: those of new files go first, large ones before small ones."""
    dropped = set()
    for entry in sorted(entries, key=lambda entry: (entry.letter == "A", len(sections[entry.path]), entry.path)):
        if len(sections[entry.path]) > room:
            dropped.add(entry)
        else:
            room -= len(sections[entry.path])
    return dropped


def _proves(place: Place, base: str, data: bytes, tree: str) -> bool:
    """Return whether the patch, applied to the commit, gives this tree."""
    second = place.using(GIT_INDEX_FILE=os.path.join(place.environ["GIT_DIR"], "proof"))
    try:
        run(second, ["read-tree", base])
        if data:
            run(second, ["apply", "--cached", "--whitespace=nowarn", "-"], stdin=data)
        return run(second, ["write-tree"]).decode().strip() == tree
    except IncompleteError:
        return False


def _size(place: Place, path: bytes) -> int | None:
    try:
        return os.lstat(os.path.join(os.fsencode(place.directory), path)).st_size
    except OSError:
        return None
