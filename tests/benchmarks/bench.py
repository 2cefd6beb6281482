"""What every row is given: how much of everything, where, and the table that takes the figures."""

from dataclasses import dataclass
from pathlib import Path

from table import Table


@dataclass(slots=True)
class Bench:
    """The options of one run.

    ``folder`` is the run's own and removed at its end; ``kept`` is the user's, for what is slow to make.
    """

    folder: Path
    kept: Path | None
    files: int
    large_mib: int
    million: int
    history_files: int
    versions: int
    manifest_files: int
    stream_seconds: int
    rounds: int
    peers: bool
    peer_files: int
    idle_s: float
    table: Table
