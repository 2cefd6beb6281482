"""A version as Croissant 1.1 metadata (JSON-LD): which files there are and what their bytes hash to.

Croissant also asks for a license, a creator, a web page and a date of publication. reprod does not know them, so they
are left out, never guessed: mlcroissant warns of that and loads the rest. URLs are relative to the metadata file,
which belongs beside ``SHA256SUMS`` in the dataset's root; times are RFC 3339 UTC.
"""

import mimetypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from reprod.core.entry import Entry, display

VERSION = "http://mlcommons.org/croissant/1.1"

#: Above this many files only their manifest is listed: a reader takes seconds for each 10,000 objects.
MAX_LISTED = 10_000

#: The context that mlcroissant calls standard for 1.1.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

#: Python's own table only: the one of the machine would make the same export differ from host to host.
_TYPES = mimetypes.MimeTypes(filenames=())


@dataclass(frozen=True, slots=True)
class Described:
    """What the metadata says of the set as a whole; ``sealed_at`` is RFC 3339. ``size`` is in bytes."""

    name: str
    version: int | None
    digest: str | None
    sealed_at: str | None
    files: int
    size: int | None


@dataclass(frozen=True, slots=True)
class Sums:
    """The manifest ``SHA256SUMS`` that stands for all files: its own digest and size in bytes."""

    sha256: str
    size: int


def document(described: Described, sums: Sums, entries: Iterable[Entry] | None) -> dict[str, Any]:
    """Return the JSON-LD values. ``entries`` are the regular files, None where they are too many to list."""
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": described.name,
        "description": _description(described),
        "conformsTo": VERSION,
        **({"version": f"{described.version}.0.0"} if described.version is not None else {}),
        **({"identifier": described.digest} if described.digest else {}),
        **({"dateModified": described.sealed_at} if described.sealed_at else {}),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "SHA256SUMS",
                "name": "SHA256SUMS",
                "description": "The sha256 of every file of the dataset, as sha256sum writes and checks it.",
                "contentUrl": "SHA256SUMS",
                "contentSize": f"{sums.size} B",
                "encodingFormat": "text/plain",
                "sha256": sums.sha256,
            },
            {
                "@type": "cr:FileSet",
                "@id": "files",
                "name": "files",
                "description": "All files of the dataset.",
                "encodingFormat": "application/octet-stream",
                "includes": "**",
            },
            *(_object(entry) for entry in entries or ()),
        ],
    }


def _description(described: Described) -> str:
    """Say what is known: what the set is about is not."""
    said = [f"Version {described.version} of the dataset {described.name}" if described.version else described.name]
    if described.sealed_at:
        said.append(f"as recorded at {described.sealed_at}")
    size = f", {described.size} bytes" if described.size is not None else ""
    said.append(f"{described.files} {'file' if described.files == 1 else 'files'}{size}")
    if described.digest:
        said.append(f"digest {described.digest}")
    return ", ".join(said) + "."


def _object(entry: Entry) -> dict[str, Any]:
    # Percent-encoded, a name of any bytes is a valid relative URL and identifier. A colon in the first part would
    # make it an absolute one.
    url = quote(entry.path, safe="/-._~!$&'()*+,;=@")
    content = entry.content
    return {
        "@type": "cr:FileObject",
        "@id": f"files/{url}",
        "name": display(entry.path),
        "contentUrl": url,
        **({"contentSize": f"{content.size} B"} if content.size >= 0 else {}),
        "encodingFormat": _TYPES.guess_type(f"x/{url}")[0] or "application/octet-stream",
        "sha256": (content.sha256 or b"").hex(),
    }
