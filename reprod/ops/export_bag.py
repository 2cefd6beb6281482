"""A version as a bag (BagIt): the files themselves, with manifests that any BagIt tool checks.

The manifests come from the version, and each payload file is digested while it is placed: a bag holds what the version
says, or there is none. It is built beside its place under another name and renamed, so half a bag is never seen.

Files are copied unless links are asked for. A hard link is the same file: a later write into the dataset would change
the bag, and linking changes the file's ctime, which to reprod is a touch and may leave a run's drift unknown.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from reprod.core import bagit
from reprod.core.entry import Entry, Kind, display, named
from reprod.core.manifest import rfc3339
from reprod.errors import IncompleteError, StateError, UsageError
from reprod.fs.root import Root, open_root
from reprod.ops.export_payload import Placer
from reprod.ops.export_set import UNKNOWN, Progress, Source, Tally


@dataclass(slots=True)
class Bag:
    """What a bag holds; ``linked`` counts hard-linked files, ``special`` those that are left out."""

    version: str = ""
    files: int = 0
    size: int = 0
    linked: int = 0
    special: int = 0


def write_bag(source: Source, folder: Path, root: str, tally: Tally, *, link: bool, progress: Progress) -> Bag:
    """Make the bag ``folder``, which must not exist or be empty, from the files below ``root``.

    :param link: hard-link files where the file system allows it.
    :raises UsageError: ``folder`` is not empty or lies in the dataset, or a name cannot be in a bag.
    :raises DamagedError: the records are not what the version's digest says.
    :raises IncompleteError: a file is not what the version says. :raises StateError: the bag cannot be written.
    """
    target = _require_free(folder)
    source.prove()  # before a file is blamed for what only the records say
    with open_root(root) as data:
        _require_outside(data, target)
        temporary = target.parent / f".reprod-{secrets.token_hex(8)}.tmp"
        try:
            return _build(source, data, temporary, target, tally, link=link, progress=progress)
        except OSError as error:
            raise StateError(
                f"cannot write the bag {folder}: {error.strerror}", hint="check its folder, its permissions, its space"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # renamed away if all went well


def _build(
    source: Source, data: Root, temporary: Path, target: Path, tally: Tally, *, link: bool, progress: Progress
) -> Bag:
    bag = Bag()
    algorithms = ("sha256", *(name for name in source.more if name in bagit.ALGORITHMS))
    # As `cp -r` would: the payload's folder has the permissions of the dataset's root, less the umask.
    mode = os.fstat(data.fd).st_mode & 0o777 | 0o700
    temporary.mkdir(0o700)
    (temporary / "data").mkdir(mode)

    def tell() -> None:
        progress(
            {"phase": "copying", "files": placer.files, "total_files": bag.files, "bytes": placer.size,
             "total_bytes": source.size}
        )  # fmt: skip

    placer = Placer(data, temporary / "data", algorithms, partial(_refusal, source), tell, link=link)
    with placer:
        links = source.each(
            lambda entries: _write_manifests(
                temporary, algorithms, tally.watch(entries, source.files, lambda _: None), placer, bag
            )
        )
        with ExitStack() as stack:
            manifests = [stack.enter_context(open(_manifest(temporary, name), "rb")) for name in algorithms]
            for rows in zip(*(bagit.read_manifest(file) for file in manifests), strict=True):
                placer.place(rows[0][1], dict(zip(algorithms, (found for found, _ in rows), strict=True)))
        bag.size, bag.linked = placer.size, placer.linked
        _write_links(temporary, links, placer)
    _write_tags(temporary, source, bag, len(links))
    temporary.chmod((temporary / "data").stat().st_mode & 0o777)
    temporary.rename(target)
    return bag


def _refusal(source: Source, path: bytes, why: str) -> IncompleteError:
    if source.title == f"{source.name}@{source.seq}":
        check = f"reprod verify {source.title} lists all that differs; after reprod scan, export the version of now"
    else:
        check = f"reprod export {source.title} --format sha256sums, checked with sha256sum -c, lists all that differs"
    return IncompleteError(f"'{display(path)}' is not what {source.title} says: {why}; no bag was made", hint=check)


def _write_manifests(
    folder: Path, algorithms: tuple[str, ...], entries: Iterator[Entry], placer: Placer, bag: Bag
) -> list[tuple[bytes, bytes]]:
    """Write the payload manifests, count, look at every file; return the symlinks: path and sha256 of the target."""
    links: list[tuple[bytes, bytes]] = []
    check = bagit.PathCheck()
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(_manifest(folder, name), "wb")) for name in algorithms}
        for entry in entries:
            content = entry.content
            if content.kind is Kind.LINK:
                links.append((entry.path, content.sha256 or b""))
            elif content.kind is Kind.FILE:
                check.look(entry.path)
                placer.look(entry.path, None if content.size == UNKNOWN else content.size)
                bag.files += 1
                _write_row(files, entry)
            else:
                bag.special += 1
    bag.version = check.version()
    if check.count:
        rest = check.count - len(check.refused)
        listed = "; ".join(check.refused) + (f"; and {rest} more" if rest else "")
        raise UsageError(
            f"a bag cannot hold {check.count} of the names: {listed}",
            hint="rename these files, or export json, sha256sums or parquet, which hold any name",
        )
    return links


def _write_row(files: Mapping[str, BinaryIO], entry: Entry) -> None:
    for name, file in files.items():
        found = entry.content.sha256 if name == "sha256" else entry.content.more[name]
        file.write(bagit.manifest_line(found or b"", entry.path))


def _write_links(folder: Path, links: list[tuple[bytes, bytes]], placer: Placer) -> None:
    """Write where the symlinks lead, each proven by the digest in the version."""
    if links:
        with open(folder / bagit.LINKS_FILE, "w", encoding="ascii") as file:
            for path, sha256 in links:
                target = placer.target_of(path, sha256)
                json.dump({**named(path), **named(target, "target"), "sha256": sha256.hex()}, file)
                file.write("\n")


def _write_tags(folder: Path, source: Source, bag: Bag, links: int) -> None:
    known = source.name if source.seq is None else f"{source.name}, version {source.seq}"
    info = bagit.info(
        (
            ("Bag-Software-Agent", "reprod"),
            # When the version was sealed, not now: the same version makes the same bag.
            ("Bagging-Date", rfc3339(source.frozen_ns)[:10]),
            ("External-Description", f"Dataset {known}"),
            ("External-Identifier", source.digest),
            ("Payload-Oxum", f"{bag.size}.{bag.files}"),
            ("Reprod-Symlinks", f"{links}, listed in {bagit.LINKS_FILE}" if links else None),
            ("Reprod-Special-Files-Left-Out", bag.special or None),
        )
    )
    (folder / "bagit.txt").write_bytes(bagit.declaration(bag.version))
    (folder / "bag-info.txt").write_bytes(info)
    tags = sorted(path for path in folder.iterdir() if path.is_file())
    lines = []
    for path in tags:
        with open(path, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / "tagmanifest-sha256.txt").write_text("".join(lines), encoding="ascii")


def _manifest(folder: Path, algorithm: str) -> Path:
    return folder / f"manifest-{algorithm}.txt"


def _require_free(folder: Path) -> Path:
    """Return where the bag goes, symlinks followed."""
    target = Path(os.path.realpath(folder))
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", hint="make it first, or choose another --output")
    try:
        if any(target.iterdir()):
            raise UsageError(f"the folder {folder} is not empty", hint="--output names a new or empty folder")
    except FileNotFoundError:
        pass
    except NotADirectoryError as error:
        raise UsageError(f"{folder} is no folder", hint="--output names a new or empty folder") from error
    except OSError as error:
        raise StateError(f"cannot look into {folder}: {error.strerror}", hint="check its permissions") from error
    return target


def _require_outside(data: Root, target: Path) -> None:
    if data.only is not None:  # a single file: what lies beside it is no part of the set
        return
    root = os.fstat(data.fd)
    for folder in target.parents:
        if os.path.samestat(os.stat(folder), root):
            raise UsageError(
                f"{target} lies in the dataset itself",
                hint="a bag there would be part of the data: choose another place",
            )
