"""What the daemon is doing, in one line for a person who looks at ``systemctl status``.

Rule: what is being read comes first, then what is wrong; the rest is in ``reprod status``. For no program to
read: it may change.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from reprod.daemon.status import progress
from reprod.daemon.work import DatasetWork

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

#: A look at a few changed files is over before anybody has read that it began.
SHORT_S = 1.0

SHOWN_NAMES = 3


def headline(daemon: "Daemon") -> str:
    """Return such as "watching 3 datasets, 1,349,721 files" or "scanning imagenet 62 %; audio unavailable"."""
    works = sorted(daemon.works.values(), key=lambda work: work.dataset.name)
    parts = [_scanning(works) or _watching(works)]
    if daemon.stuck is not None:
        parts.append("nothing can be written down")
    parts += [f"{work.dataset.name} {work.state}" for work in works if work.state in {"unavailable", "failed"}]
    parts += [f"{wrong.name} misconfigured" for wrong in daemon.config.misconfigured]
    if daemon.tracking.state == "unreachable":
        parts.append("tracking server unreachable")
    return "; ".join(_cut(parts, SHOWN_NAMES + 1))


def _scanning(works: Iterable[DatasetWork]) -> str:
    shown = [_far(work) for work in works if work.progress is not None and work.elapsed_s() > SHORT_S]
    return f"scanning {', '.join(_cut(shown, SHOWN_NAMES))}" if shown else ""


def _far(work: DatasetWork) -> str:
    """Return how far one dataset is: in percent where the whole is known, else in files."""
    far = progress(work) or {}
    if far.get("percent") is not None:
        return f"{work.dataset.name} {far['percent']:.0f} %"
    return f"{work.dataset.name} {_count(far['files'], 'file')}" if far.get("files") else work.dataset.name


def _watching(works: list[DatasetWork]) -> str:
    if not works:
        return "no dataset is registered"
    files = sum(work.report.version.files for work in works if work.report is not None)
    return f"watching {_count(len(works), 'dataset')}, {_count(files, 'file')}"


def _cut(parts: list[str], most: int) -> list[str]:
    return parts if len(parts) <= most else [*parts[:most], f"{len(parts) - most} more"]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
