"""Reading reprod.toml and datasets.d: every wrong thing is named by file, line, key, value and what was expected.

A wrong reprod.toml raises ConfigError. A wrong datasets.d file disables that one dataset: it becomes a
``Misconfigured`` entry, so that one typing error never stops the recording of the others.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reprod.config import checks, places
from reprod.config.values import (
    Config,
    DaemonConfig,
    DatasetConfig,
    EnvironmentConfig,
    Misconfigured,
    MlflowConfig,
    Rule,
    ScanConfig,
    StoreConfig,
    UploadConfig,
    WatchConfig,
)
from reprod.core.run import DATASET_NAME
from reprod.errors import ConfigError, did_you_mean

# A configuration is a few kilobytes; more is a wrong file (a log, a data file) that would only be slow to refuse.
MAX_BYTES = 1024 * 1024

_DAY = 86400.0
_LONGEST_DAYS = 36_500  # a century: "for ever" in every practical sense, and no overflow in nanoseconds
# Below 0.2 s a poll would mostly load the tracking server; above a day or a month a mistyped unit is likelier.
_SECTIONS: Mapping[str, Mapping[str, checks.Check]] = {
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
_DATASET: Mapping[str, checks.Check] = {
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
_RULE: Mapping[str, checks.Check] = {"experiment": checks.experiment, "dataset": checks.named}


def load(explicit: str | None = None, *, tracking: bool = True) -> Config:
    """Read the configuration as it is on disk now.

    ``explicit`` (--config) must exist; the other places may be empty, then the defaults hold. An unset tracking_uri
    falls back to $MLFLOW_TRACKING_URI unless ``tracking`` is False (for commands that never talk to the server).
    Raises ConfigError; a wrong datasets.d file does not raise, see ``Config.misconfigured``.
    """
    file = places.config_file(explicit)
    state = places.state_dir()
    text = _read(file)
    if text is None and explicit:
        raise ConfigError(f"{file} does not exist", hint="create it (it may be empty), or leave --config out")
    tables = _sections(file, text or "")
    mlflow = MlflowConfig(**tables["mlflow"])
    if tracking and not mlflow.tracking_uri:
        mlflow = replace(mlflow, tracking_uri=_tracking_from_environment())
    folder = file.parent / "datasets.d"
    datasets, misconfigured = read_folder(folder, state)
    return Config(
        mlflow=mlflow,
        environment=EnvironmentConfig(**tables["environment"]),
        watch=WatchConfig(**tables["watch"]),
        scan=ScanConfig(**tables["scan"]),
        upload=UploadConfig(**tables["upload"]),
        store=StoreConfig(**tables["store"]),
        daemon=DaemonConfig(**tables["daemon"]),
        rules=_rules(file, text or "", tables["rule"]),
        datasets=datasets,
        misconfigured=misconfigured,
        file=file,
        folder=folder,
        state_dir=state,
        socket=places.listen_path(state),
    )


def read_folder(folder: Path, state: Path) -> tuple[tuple[DatasetConfig, ...], tuple[Misconfigured, ...]]:
    """Return the datasets of ``folder`` and the files that cannot be used, each sorted by name.

    Names that begin with a dot and names that do not end in ``.toml`` are not read (editors' and our own half-written
    files). Raises ConfigError only if the folder itself cannot be listed.
    """
    try:
        names = sorted(entry for entry in os.listdir(folder) if entry.endswith(".toml") and not entry.startswith("."))
    except FileNotFoundError:
        return (), ()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be listed: {error.strerror}", hint="make it a folder that the daemon's user can read"
        ) from error
    datasets: list[DatasetConfig] = []
    wrong: list[Misconfigured] = []
    for entry in names:
        file = folder / entry
        name = entry.removesuffix(".toml")
        try:
            text = _read(file)
            if text is None:
                raise ConfigError(f"{file} points to nothing", hint="remove the dangling link")
            datasets.append(parse_dataset(name, text, file, state))
        except ConfigError as error:
            wrong.append(Misconfigured(name, file, error.message, error.hint))
    return tuple(datasets), tuple(wrong)


def parse_dataset(name: str, text: str, file: Path, state: Path) -> DatasetConfig:
    """Return the dataset that ``text``, the content of ``file``, describes. Raises ConfigError."""
    if not DATASET_NAME.match(name):
        raise ConfigError(
            f"{file}: {name!r} cannot be a dataset's name",
            hint="a name is 1 to 128 of A-Z a-z 0-9 . _ - and begins with a letter or digit; rename the file",
        )
    values = _checked(file, text, "", _toml(file, text), _DATASET)
    if "path" not in values:
        raise ConfigError(f"{file}: there is no path", hint='add a line: path = "/where/the/data/is"')
    if is_inside(values["path"], state):
        raise ConfigError(
            f'{file}: path = "{values["path"]}" is inside the state directory {state}',
            hint="reprod changes its own state all the time; register another folder",
        )
    return DatasetConfig(name=name, file=file, **values)


def is_inside(path: str, folder: Path) -> bool:
    """Return whether ``path`` is ``folder`` or below it, symbolic links resolved."""
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _read(file: Path) -> str | None:
    """Return the text of ``file``, None if there is none. Raises ConfigError."""
    try:
        # O_NONBLOCK: a FIFO of this name must not hang the start; without it, open waits for a writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{file} is not a regular file", hint="put a TOML file there")
            content = stream.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", hint="make it a file that the daemon's user can read"
        ) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{file} is larger than {MAX_BYTES} bytes", hint="this is not a reprod configuration")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not UTF-8 (byte {error.start})", hint="TOML files are UTF-8; save it so"
        ) from error


def _toml(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(
            f"{file} is not TOML: {reason}", hint='strings need quotes, lists brackets: include = ["*.csv"]'
        ) from error


def _rules(file: Path, text: str, tables: object) -> tuple[Rule, ...]:
    """Return the checked ``[[rule]]`` tables, in their order: the first that fits an experiment counts."""
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ConfigError(
            f"{_where(file, text, '', 'rule')}: rule = {_shown(tables)}: expected [[rule]] tables",
            hint='[[rule]], and below it: experiment = "vision-*" and dataset = "imagenet"',
        )
    rules = []
    for table in tables:
        values = _checked(file, text, "rule", table, _RULE)
        missing = [key for key in _RULE if key not in values]
        if missing:
            raise ConfigError(
                f"{_where(file, text, '', 'rule')}: [[rule]] {_shown(table)} has no {missing[0]}",
                hint='a rule is experiment = "vision-*" and dataset = "imagenet"',
            )
        rules.append(Rule(**values))
    return tuple(rules)


def _sections(file: Path, text: str) -> dict[str, Any]:
    """Return the checked keyword arguments for each section's dataclass, and ``rule`` as it stands there."""
    result: dict[str, Any] = {section: {} for section in _SECTIONS} | {"rule": []}
    for section, table in _toml(file, text).items():
        if section == "rule":
            result[section] = table
            continue
        if section not in _SECTIONS:
            listed = ", ".join([*(f"[{known}]" for known in _SECTIONS), "[[rule]]"])
            hint = did_you_mean(section, [*_SECTIONS, "rule"]) or f"known: {listed}"
            if section in {"dataset", "datasets", "path"}:
                hint = "datasets are files of their own: reprod dataset add NAME PATH"
            raise ConfigError(f"{_where(file, text, '', section)}: unknown section or key {section!r}", hint=hint)
        if not isinstance(table, dict):
            raise ConfigError(
                f"{_where(file, text, '', section)}: {section} = {_shown(table)}: expected a section",
                hint=f"write [{section}] on a line of its own and its keys below it",
            )
        result[section] = _checked(file, text, section, table, _SECTIONS[section])
    return result


def _checked(
    file: Path, text: str, section: str, table: Mapping[str, object], known: Mapping[str, checks.Check]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    label = f"[{section}] " if section else ""
    for key, value in table.items():
        where = _where(file, text, section, key)
        if key not in known:
            hint = did_you_mean(key, known) or f"known here: {', '.join(known)}"
            raise ConfigError(f"{where}: {label}unknown key {key!r}", hint=hint)
        try:
            values[key] = known[key](value)
        except checks.UnfitError as unfit:
            raise ConfigError(
                f"{where}: {label}{key} = {_shown(value)}: expected {unfit.expected}",
                hint=unfit.hint or f"correct {key} in {file}",
            ) from None
    return values


def _tracking_from_environment() -> str:
    """Return $MLFLOW_TRACKING_URI if the daemon can use it; a relative sqlite path is made absolute as MLflow does."""
    value = os.environ.get("MLFLOW_TRACKING_URI", "")
    relative = re.match(r"sqlite:///([^/].*)", value)
    if relative:
        value = f"sqlite:///{os.path.abspath(relative[1])}"
    try:
        return str(checks.tracking_uri(value))
    except checks.UnfitError as unfit:
        raise ConfigError(
            f"$MLFLOW_TRACKING_URI = {_shown(value)}: expected {unfit.expected}",
            hint=unfit.hint or "set tracking_uri under [mlflow] in reprod.toml, which goes first",
        ) from None


def _where(file: Path, text: str, section: str, key: str) -> str:
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


def _shown(value: object) -> str:
    """Return ``value`` for a message: as TOML shows it, without secrets, at most 100 characters."""
    from reprod.core.redact import redact_text

    text = redact_text(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 100 else text[:97] + "..."
