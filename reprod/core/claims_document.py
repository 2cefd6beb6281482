"""What the members of ``data_manifest.json`` mean as claims, whether they come from a file or from memory.

A member is judged as soon as it is there, totals and the dataset digest at the end. The seed's documents have fewer
members; what they lack (``selection``, ``digest``, ``symlinks``) is not claimed. Unknown members are passed over.
"""

import re
from collections.abc import Mapping
from typing import Any

from reprod.core import digest
from reprod.core.claims import (
    DIGEST_SIZES,
    LARGEST,
    MAX_ENTRIES,
    Claims,
    ClaimsBuilder,
    Refused,
    check_path,
    parse_digest,
    shorten,
)
from reprod.core.claims_fields import parse_mode, parse_path, parse_time_ns
from reprod.core.claims_selection import parse_selection
from reprod.core.entry import Kind
from reprod.core.manifest import MANIFEST_VERSION
from reprod.core.ordered import digest_of
from reprod.core.pattern import Selection
from reprod.errors import DamagedError

#: Members that are lists of entries; they come element by element.
LISTS = frozenset({"files", "symlinks", "special", "unreadable", "unstable"})

HINT = "a manifest that cannot be trusted is not used; get the original, or make it anew"

#: Names of unknown algorithms in a warning.
_SHOWN = 5

_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")
_DATASET_DIGEST = re.compile(r"dt1:[0-9a-f]{64}")


class DocumentReader:
    """Takes members and elements in any order and makes Claims of them. All faults are raised as DamagedError."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.builder = ClaimsBuilder()
        self.files_in: str | None = None
        self._members: dict[str, Any] = {}
        self._listed: set[str] = set()
        self._unknown: list[bytes] = []
        self._strange: dict[str, None] = {}
        self._selection: Selection | None = None

    def member(self, key: str, value: Any) -> None:
        """Take a member of the document that is no list of entries."""
        try:
            if key in LISTS:
                raise Refused("it is no list")
            check = getattr(self, f"_take_{key}", None) if key in _CHECKED else None
            if check is not None:
                check(value)
                self._members[key] = value
        except Refused as error:
            raise self.damaged(f"{shorten(key)}: {error}") from None

    def element(self, key: str, number: int, value: Any) -> None:
        """Take the element ``number`` of one of the LISTS."""
        try:
            if not isinstance(value, dict):
                raise Refused("it is no object")
            if key == "files":
                self._file(value)
            elif key == "symlinks":
                self._link(value)
            elif key == "special":  # they are in no set: nothing to verify
                check_path(parse_path(value), exact="path_b64" in value)
            else:
                self._problem(value)
        except Refused as error:
            raise self.damaged(f"{key}[{number}]: {error}") from None

    def begin(self, key: str) -> None:
        """Note that one of the LISTS is there, even if it is empty."""
        self._listed.add(key)

    @property
    def files_omitted(self) -> bool:
        """Whether this is only the head of a manifest whose files are listed elsewhere."""
        return self._members.get("files_omitted") is True

    @property
    def _partial(self) -> bool:
        return bool(self._members.get("complete") is False or self._members.get("cut") or self._unknown)

    def finish(self) -> Claims:
        """Judge totals and digest, and return the claims."""
        if "manifest_version" not in self._members:
            raise self.damaged("it has no manifest_version, so it is no data manifest")
        if "files" not in self._listed:
            raise self.damaged("it has no list of files")
        self._check_totals()
        try:
            self.builder.check_parents()
        except Refused as error:
            raise self.damaged(str(error)) from None
        warnings = self._warnings()
        found = self._members.get("digest")
        if found is not None and self._partial:
            found = None
            warnings.append("it says itself that the set is not complete, so its dataset digest was passed over")
        elif found is not None:
            warnings += self._check_digest(found)
        builder = self.builder
        return Claims(
            builder.entries(),
            builder.algorithms(),
            digest=found,
            proven=found is not None and builder.everywhere("sha256"),
            selection=self._selection,
            cut=bool(self._members.get("cut")),
            unknown=tuple(self._unknown),
            weak=builder.is_weak(),
            links=builder.links(),
            size=builder.size,
            warnings=tuple(warnings),
        )

    def damaged(self, message: str, hint: str = HINT) -> DamagedError:
        """Return the error for a fault in this document."""
        return DamagedError(f"{self.name}: {message}", hint=hint)

    # --- elements ----------------------------------------------------------------------------------------------------

    def _file(self, entry: dict[str, Any]) -> None:
        size = entry.get("size_bytes")
        if type(size) is not int or not 0 <= size <= LARGEST:
            raise Refused(f"size_bytes is {shorten(repr(size), 30)}, not a size in bytes")
        self.builder.add(
            parse_path(entry),
            Kind.FILE,
            size,
            self._hashes(entry.get("hashes")),
            parse_mode(entry.get("permissions")),
            parse_time_ns(entry.get("modified_time")),
            exact="path_b64" in entry,
        )

    def _hashes(self, found: object) -> dict[str, bytes]:
        if not isinstance(found, dict) or not found:
            raise Refused("it has no hashes")
        known = {name: parse_digest(name, text) for name, text in found.items() if name in DIGEST_SIZES}
        if len(known) != len(found):
            strange = [name for name in found if name not in DIGEST_SIZES]
            if not known:
                raise Refused(f"none of its hash algorithms is known: {', '.join(map(shorten, strange[:_SHOWN]))}")
            for name in strange:
                if len(self._strange) <= _SHOWN:
                    self._strange[name] = None
        return known

    def _link(self, entry: dict[str, Any]) -> None:
        path = parse_path(entry)
        target = entry.get("target_sha256")
        if target == "":  # could not be read when the manifest was made
            self._unknown_path(path, exact="path_b64" in entry)
        else:
            hashes = {"sha256": parse_digest("sha256", target)}
            self.builder.add(path, Kind.LINK, None, hashes, exact="path_b64" in entry)

    def _problem(self, entry: dict[str, Any]) -> None:
        directory = entry.get("kind") == "directory"
        if directory and entry.get("relative_path") == ".":
            self._unknown.append(b"/")
        else:
            self._unknown_path(parse_path(entry), exact="path_b64" in entry, end=b"/" if directory else b"")

    def _unknown_path(self, path: bytes, *, exact: bool, end: bytes = b"") -> None:
        if len(self._unknown) >= MAX_ENTRIES:
            raise Refused(f"there are more than {MAX_ENTRIES:,} entries")
        self._unknown.append(check_path(path, exact=exact) + end)

    # --- members -----------------------------------------------------------------------------------------------------

    def _take_manifest_version(self, value: object) -> None:
        if not isinstance(value, str) or not _VERSION.fullmatch(value):
            raise Refused(f"{shorten(repr(value), 30)} is no version of this format")
        if tuple(map(int, value.split("."))) > tuple(map(int, MANIFEST_VERSION.split("."))):
            raise self.damaged(
                f"manifest_version {value}: made by a newer reprod (this one reads up to {MANIFEST_VERSION})",
                hint="upgrade reprod, or make the manifest with this version",
            )

    def _take_digest(self, value: object) -> None:
        if value is not None and not (isinstance(value, str) and _DATASET_DIGEST.fullmatch(value)):
            raise Refused(f"{shorten(str(value))} is no dataset digest (dt1: and 64 lower-case hex digits)")

    def _take_complete(self, value: object) -> None:
        if not isinstance(value, bool):
            raise Refused("it is neither true nor false")

    def _take_files_omitted(self, value: object) -> None:
        self._take_complete(value)
        if value:
            self._listed.add("files")

    def _take_files_in(self, value: object) -> None:
        if not isinstance(value, str):
            raise Refused("it is no text")
        self.files_in = value

    def _take_selection(self, value: object) -> None:
        self._selection = None if value is None else parse_selection(value)

    def _take_cut(self, value: object) -> None:
        if value is not None and not isinstance(value, (bool, dict)):
            raise Refused("it is neither an object nor null")

    def _take_hash_algorithms(self, value: object) -> None:
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise Refused("it is no list of names")

    def _take_summary(self, value: object) -> None:
        if not isinstance(value, Mapping):
            raise Refused("it is no object")
        for key in ("total_files", "total_size_bytes"):
            if key in value and (type(value[key]) is not int or value[key] < 0):
                raise Refused(f"{key} is {shorten(repr(value[key]), 30)}, not a number")

    # --- the end -----------------------------------------------------------------------------------------------------

    def _check_totals(self) -> None:
        summary = self._members.get("summary", {})
        for key, found in (("total_files", self.builder.files), ("total_size_bytes", self.builder.size)):
            stated = summary.get(key)
            if stated is not None and found is not None and stated != found:
                raise self.damaged(
                    f"summary.{key} is {stated:,}, but the list has {found:,}: entries were lost, added or changed"
                )

    def _check_digest(self, stated: str) -> list[str]:
        """Recompute the dataset digest from the list; another one means that one of the two was changed."""
        entries = self.builder.entries()
        if not self.builder.everywhere("sha256"):
            return ["the dataset digest could not be checked: not every entry has a sha256"]
        found = digest_of(entries)
        if found != stated:
            raise self.damaged(
                f"its entries give the digest {digest.short(found)}, it says {digest.short(stated)}: it was altered"
            )
        return []

    def _warnings(self) -> list[str]:
        warnings = []
        if self._strange:
            names = ", ".join(shorten(name) for name in list(self._strange)[:_SHOWN])
            warnings.append(f"hash algorithms that are not known here were passed over: {names}")
        named = self._members.get("hash_algorithms", ())
        lacking = [name for name in DIGEST_SIZES if name in named and not self.builder.everywhere(name)]
        if lacking:
            warnings.append(f"not every entry has the hash that hash_algorithms names: {', '.join(lacking)}")
        if self._members.get("cut"):
            warnings.append("the manifest lists only the first files of the set (max_files)")
        return warnings


_CHECKED = frozenset(name.removeprefix("_take_") for name in vars(DocumentReader) if name.startswith("_take_"))
