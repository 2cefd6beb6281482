"""Which paths belong to a dataset: include and exclude patterns in gitignore syntax, on bytes, case-sensitive.

Exclude wins; no include means everything. Patterns and paths are compared byte by byte (through Latin-1, which maps
each byte to one character), so a name that is not UTF-8 is matched like any other, and ``?`` is one byte as in git.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

#: Read at the root of a dataset and part of its selection.
IGNORE_FILE = b".reprodignore"

Symlinks = Literal["record", "skip"]


@dataclass(frozen=True)
class Selection:
    """What a dataset takes from its root. Part of a version's record, never part of its digest.

    ``ignore`` are the lines of ``.reprodignore`` as they were when the walk began. ``only`` restricts the set to one
    direct child: a dataset that is a single file is a directory that holds only that file.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ignore: tuple[bytes, ...] = ()
    symlinks: Symlinks = "record"
    only: bytes | None = None
    algorithms: tuple[str, ...] = ("sha256",)

    def takes_file(self, path: bytes) -> bool:
        """Whether the file or link at ``path`` belongs to the set, its directories being selected."""
        if self.only is not None and path != self.only:
            return False
        name = path.decode("latin-1")
        if self._excluded is not None and self._excluded.match_file(name):
            return False
        return self._included is None or bool(self._included.match_file(name))

    def takes_directory(self, path: bytes) -> bool:
        """Whether to descend into ``path``: an excluded directory is never listed, and nothing below it comes back."""
        if self.only is not None:
            return path == b""
        return path == b"" or self._excluded is None or not self._excluded.match_file(path.decode("latin-1") + "/")

    @property
    def everything(self) -> bool:
        """Whether nothing is left out, so that no path needs a look."""
        return not (self.include or self.exclude or self.ignore or self.only)

    @cached_property
    def _included(self) -> Any:
        return _spec(line.encode() for line in self.include)

    @cached_property
    def _excluded(self) -> Any:
        return _spec([*(line.encode() for line in self.exclude), *self.ignore])

    def record(self) -> dict[str, object]:
        """Return the selection as JSON values: it stands beside a digest in manifests and in the log."""
        return {
            "include": list(self.include),
            "exclude": list(self.exclude),
            "ignore_file": [line.decode("utf-8", "backslashreplace") for line in self.ignore],
            "symlinks": self.symlinks,
            **({"only": self.only.decode("utf-8", "backslashreplace")} if self.only is not None else {}),
        }


def _spec(lines: Iterable[bytes]) -> Any:
    """Compile gitignore lines; None when there is none. pathspec costs 20 ms to import, so only on first use."""
    lines = [line for line in lines if line.strip() and not line.startswith(b"#")]
    if not lines:
        return None
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(line.decode("latin-1") for line in lines)
