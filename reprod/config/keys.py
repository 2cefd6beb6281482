"""Which keys the configuration has and what each may hold; what is wrong is named by file, line, key and value."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprod.config import checks
from reprod.errors import ConfigError, did_you_mean

_DAY = 86400.0
_LONGEST_DAYS = 36_500  # a century: "for ever" in every practical sense, and no overflow in nanoseconds
# Below 0.2 s a poll would mostly load the tracking server; above a day or a month a mistyped unit is likelier.
SECTIONS: Mapping[str, Mapping[str, checks.Check]] = {
    "mlflow": {
        "tracking_uri": checks.tracking_uri,
        "poll_seconds": checks.number(0.2, _DAY, "seconds"),
        "max_inline_files": checks.integer(0, 100_000, "a count of files"),
        "clock_slack_seconds": checks.number(0, 3600, "seconds"),
    },
    "environment": {
        "interval_seconds": checks.number(0.2, 30 * _DAY, "seconds"),
        "interpreters": checks.paths,
    },
    "watch": {
        "backend": checks.choice("auto", "inotify", "watchfiles", "poll"),
        "reconcile_seconds": checks.number(0.2, 30 * _DAY, "seconds"),
    },
    "scan": {
        "workers": checks.integer(0, 64, "a count of workers, 0 for as many as help"),
        "read_mb_per_second": checks.number(0, 1_000_000, "megabytes (10^6 bytes) a second, 0 for no limit,"),
        "stats_per_second": checks.number(0, 100_000_000, "files a second, 0 for no limit,"),
    },
    "upload": {
        "git_diff": checks.choice("patch", "names", "off"),
    },
    "store": {
        "keep_days": checks.number(0, _LONGEST_DAYS, "days"),
        "keep_daily_days": checks.number(0, _LONGEST_DAYS, "days"),
        "max_gb": checks.number(0, 1_000_000, "gigabytes (10^9 bytes), 0 for no cap,"),
    },
    "daemon": {
        "listen": checks.listen,
    },
}
DATASET: Mapping[str, checks.Check] = {
    "path": checks.path,
    "include": checks.patterns,
    "exclude": checks.patterns,
    "algorithms": checks.algorithms,
    "symlinks": checks.choice("record", "skip"),
    "barrier": checks.choice("walk", "events"),
    "walk_at_most_every": checks.number(0, _DAY, "seconds"),
    "scope": checks.choice("host", "shared"),
    "publish": checks.choice("full", "summary", "digest"),
}
RULE: Mapping[str, checks.Check] = {"experiment": checks.experiment, "dataset": checks.named}


def check_table(
    file: Path, text: str, section: str, table: Mapping[str, object], known: Mapping[str, checks.Check]
) -> dict[str, Any]:
    """Return the values of a table of the file, each as its key's check gives it; ``section`` is "" at the top level.

    Raises ConfigError for a key that is not in ``known``, and for a value that does not fit.
    """
    values: dict[str, Any] = {}
    label = f"[{section}] " if section else ""
    for key, value in table.items():
        place = where(file, text, section, key)
        if key not in known:
            hint = did_you_mean(key, known) or f"known here: {', '.join(known)}"
            raise ConfigError(f"{place}: {label}unknown key {key!r}", hint=hint)
        try:
            values[key] = known[key](value)
        except checks.UnfitError as unfit:
            raise ConfigError(
                f"{place}: {label}{key} = {shown(value)}: expected {unfit.expected}",
                hint=unfit.hint or f"correct {key} in {file}",
            ) from None
    return values


def where(file: Path, text: str, section: str, key: str) -> str:
    """Return ``FILE:LINE`` for a key; the line is searched for, because tomllib keeps none."""
    current = ""
    for index, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*\"?([\w.-]+)", line)
        if header:
            current = header[1]
            if not section and current == key:
                return f"{file}:{index}"
        elif current == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return f"{file}:{index}"
    return str(file)


def shown(value: object) -> str:
    """Return ``value`` for a message: as TOML shows it, without secrets, at most 100 characters."""
    from reprod.core.redact import redact_text

    text = redact_text(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 100 else text[:97] + "..."
