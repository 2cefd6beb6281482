"""Which paths belong to a dataset: include and exclude patterns in gitignore syntax, on bytes, case-sensitive.

Exclude wins; no include means everything. Patterns and paths are compared byte by byte (through Latin-1, which maps
each byte to one character), so a name that is not UTF-8 is matched like any other, and ``?`` is one byte as in git.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from reprod.core.entry import display, named
from reprod.core.gitignore import Patterns, compile_lines

#: Read at the root of a dataset and part of its selection.
IGNORE_FILE = b".reprodignore"

Symlinks = Literal["record", "skip"]


@dataclass(frozen=True)
class Selection:
    """What a dataset takes from its root. Part of a version's record, never part of its digest.

    ``ignore`` are the lines of ``.reprodignore`` as they were when the walk began. ``only`` restricts the set to one
    direct child: a dataset that is a single file is a directory that holds only that file. ``until`` ends the set after
    this path, in the order of the paths' bytes: where ``max_files`` cut it, which a manifest says for itself.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ignore: tuple[bytes, ...] = ()
    symlinks: Symlinks = "record"
    only: bytes | None = None
    algorithms: tuple[str, ...] = ("sha256",)
    until: bytes | None = None

    def takes_file(self, path: bytes) -> bool:
        """Whether the file or link at ``path`` belongs to the set, its directories being selected."""
        if (self.only is not None and path != self.only) or (self.until is not None and path > self.until):
            return False
        name = path.decode("latin-1")
        if self._excluded is not None and self._excluded.match(name):
            return False
        return self._included is None or self._included.match(name)

    def takes_directory(self, path: bytes) -> bool:
        """Whether to descend into ``path``: an excluded directory is never listed, and nothing below it comes back."""
        if self.only is not None:
            return path == b""
        if self.until is not None and path + b"/" > self.until and path:
            return False
        return path == b"" or self._excluded is None or not self._excluded.match(path.decode("latin-1") + "/")

    @property
    def everything(self) -> bool:
        """Whether nothing is left out, so that no path needs a look."""
        return not (self.include or self.exclude or self.ignore or self.only or self.until)

    @cached_property
    def _included(self) -> Patterns | None:
        return _compiled(line.encode() for line in self.include)

    @cached_property
    def _excluded(self) -> Patterns | None:
        return _compiled([*(line.encode() for line in self.exclude), *self.ignore])

    def record(self) -> dict[str, object]:
        """Return the selection as JSON values: it stands beside a digest in manifests and in the log."""
        record: dict[str, Any] = {
            "include": list(self.include),
            "exclude": list(self.exclude),
            "ignore_file": [display(line) for line in self.ignore],
            "symlinks": self.symlinks,
        }
        whole = b"\n".join(self.ignore)
        if display(whole).encode() != whole:
            record["ignore_file_b64"] = b64encode(whole).decode()
        if self.only is not None:
            record.update(named(self.only, "only"))
        return record

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the selection that ``record`` wrote, but for the algorithms, which it does not hold."""
        lines = [line.encode() for line in record["ignore_file"]]
        if "ignore_file_b64" in record:
            lines = b64decode(record["ignore_file_b64"]).split(b"\n")
        only = record["only"].encode() if "only" in record else None
        return cls(
            include=tuple(record["include"]),
            exclude=tuple(record["exclude"]),
            ignore=tuple(lines),
            symlinks=record["symlinks"],
            only=b64decode(record["only_b64"]) if "only_b64" in record else only,
        )


def _compiled(lines: Iterable[bytes]) -> Patterns | None:
    """Compile gitignore lines; None when there is none."""
    lines = [line for line in lines if line.strip() and not line.startswith(b"#")]
    if not lines:
        return None
    try:
        return compile_lines(line.decode("latin-1") for line in lines)
    except ValueError as error:
        raise ValueError(f"{display(str(error).encode('latin-1'))!r} is no gitignore pattern") from None
