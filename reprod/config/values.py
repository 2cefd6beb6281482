"""What the configuration says, as plain frozen values; their defaults are those that config/reprod.toml documents.

Only keys that work today exist. Seconds are floats on the monotonic clock unless a key says otherwise; paths of
datasets are absolute text as the user wrote them (a symlink stays a symlink).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Backend = Literal["auto", "inotify", "watchfiles", "poll"]
SymlinkPolicy = Literal["record", "skip"]
Barrier = Literal["walk", "events"]
Scope = Literal["host", "shared"]
GitDiff = Literal["patch", "names", "off"]
Publish = Literal["full", "summary", "digest"]


@dataclass(frozen=True, slots=True)
class MlflowConfig:
    """The tracking server and how runs are noticed.

    ``tracking_uri`` is resolved: "" (none), "local" (the daemon supervises one), or an http, https or absolute sqlite
    URI. ``clock_slack_seconds`` is how far the clock of another machine may be off.
    """

    tracking_uri: str = ""
    poll_seconds: float = 10.0
    max_inline_files: int = 1000
    clock_slack_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class EnvironmentConfig:
    """The timer that samples environments: the host, and each prefix in ``interpreters`` (by reading its files)."""

    interval_seconds: float = 900.0
    interpreters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """How changes are noticed, and how often a full walk looks for what the watch missed."""

    backend: Backend = "auto"
    reconcile_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """How files are walked and hashed; 0: as many workers as help, as much as the disks give."""

    workers: int = 0
    read_mb_per_second: float = 0.0
    stats_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class UploadConfig:
    """What goes to runs. ``git_diff``: uncommitted changes and unpushed commits, only names of files, or nothing."""

    git_diff: GitDiff = "patch"


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """How long history is kept: every version for ``keep_days``, then one a UTC day for ``keep_daily_days``.

    ``max_gb`` (10^9 bytes a dataset's file; 0: no cap) lets the daily ones go earlier. What a run used stays for ever.
    """

    keep_days: float = 7.0
    keep_daily_days: float = 90.0
    max_gb: float = 0.0


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """The daemon itself. ``listen`` is ``HOST:PORT`` of the read-only HTTP over TCP, "" for none."""

    listen: str = ""

    @property
    def address(self) -> tuple[str, int] | None:
        """Host (of an IPv6 address without its brackets) and port of ``listen``, None for none."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port)) if self.listen else None


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """One registered dataset; ``file`` is its datasets.d file, None for one made in code.

    ``barrier``: whether a run is bound after a full walk, or after all that the watch told of is taken in. Walks for
    runs begin at least ``walk_at_most_every`` seconds apart, and answer all that wait. ``scope``: whether the data is
    this host's alone, so that only runs of this host can have used it, or the same wherever it is mounted.
    ``publish`` is how much of it goes to a run; None: all where every user can reach and read the root, else totals.
    ``until`` is for the generator alone: the last path of the set, in byte order, where ``max_files`` cuts it.
    """

    name: str
    path: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ("sha256",)
    symlinks: SymlinkPolicy = "record"
    barrier: Barrier = "walk"
    walk_at_most_every: float = 0.0
    scope: Scope = "host"
    publish: Publish | None = None
    file: Path | None = None
    until: bytes | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Runs in experiments whose name fits the pattern ``experiment`` use ``dataset``, if nobody says otherwise."""

    experiment: str
    dataset: str


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A datasets.d file that cannot be used: this dataset alone is disabled, and this says why."""

    name: str
    file: Path
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that was read at one moment.

    ``file`` is the reprod.toml (it need not exist), ``folder`` the datasets.d beside it, ``socket`` where a daemon
    listens. ``datasets`` and ``misconfigured`` are sorted by name.
    """

    mlflow: MlflowConfig
    environment: EnvironmentConfig
    watch: WatchConfig
    scan: ScanConfig
    datasets: tuple[DatasetConfig, ...]
    misconfigured: tuple[Misconfigured, ...]
    file: Path | None
    folder: Path
    state_dir: Path
    socket: Path
    upload: UploadConfig = UploadConfig()
    store: StoreConfig = StoreConfig()
    daemon: DaemonConfig = DaemonConfig()
    rules: tuple[Rule, ...] = ()
