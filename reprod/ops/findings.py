"""What a scan found, beside the rows that it wrote: filled by the scan, read by the refresh that seals."""

from dataclasses import dataclass, field

from reprod.core.entry import Problem

#: Changed paths that are kept to compare with the hints; beyond, "was it announced" is a sample.
REMEMBERED_PATHS = 10_000


@dataclass(slots=True)
class Counts:
    """What a scan did. Files and bytes count entries of the set, whether read or not."""

    files: int = 0
    bytes: int = 0
    hashed_files: int = 0
    hashed_bytes: int = 0
    changed: int = 0
    touched: int = 0
    directories: int = 0


@dataclass(slots=True)
class Findings:
    """Deletions are only collected, as ids of rows: they count if the root is still the same at the end (law 4).

    ``doubtful`` are paths of which the index held a problem: whether they changed since then nobody can say.
    ``vanished`` counts what went between two looks: no ctime that was seen tells of it.
    """

    counts: Counts = field(default_factory=Counts)
    gone_files: list[int] = field(default_factory=list)
    gone_directories: list[int] = field(default_factory=list)
    changed_paths: list[bytes] = field(default_factory=list)
    changed_directories: list[bytes] = field(default_factory=list)
    lost_paths: list[bytes] = field(default_factory=list)
    problems: list[tuple[bytes, Problem]] = field(default_factory=list)
    doubtful: set[bytes] = field(default_factory=set)
    vanished: int = 0

    def change(self, path: bytes) -> None:
        """Remember a path that is another than it was."""
        if len(self.changed_paths) < REMEMBERED_PATHS:
            self.changed_paths.append(path)

    def change_directory(self, path: bytes) -> None:
        """Remember a directory whose stat is another."""
        if len(self.changed_directories) < REMEMBERED_PATHS:
            self.changed_directories.append(path)

    def lose_file(self, row: int, path: bytes) -> None:
        """Take note that an entry is gone."""
        self.gone_files.append(row)
        self._lose(path)

    def lose_directory(self, row: int, path: bytes) -> None:
        """Take note that a directory and all below it is gone."""
        self.gone_directories.append(row)
        self._lose(path)

    def _lose(self, path: bytes) -> None:
        self.change(path)
        if len(self.lost_paths) < REMEMBERED_PATHS:
            self.lost_paths.append(path)
