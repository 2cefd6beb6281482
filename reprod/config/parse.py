"""Reading reprod.toml and datasets.d: every wrong thing is named by file, line, key, value and what was expected.

A wrong reprod.toml raises ConfigError. A wrong datasets.d file disables that one dataset: it becomes a
``Misconfigured`` entry, so that one typing error never stops the recording of the others.
"""

import os
import re
import stat
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from reprod.config import checks, places
from reprod.config.keys import DATASET, RULE, SECTIONS, check_table, shown, where
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
    values = check_table(file, text, "", _toml(file, text), DATASET)
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
            f"{where(file, text, '', 'rule')}: rule = {shown(tables)}: expected [[rule]] tables",
            hint='[[rule]], and below it: experiment = "vision-*" and dataset = "imagenet"',
        )
    rules = []
    for table in tables:
        values = check_table(file, text, "rule", table, RULE)
        missing = [key for key in RULE if key not in values]
        if missing:
            raise ConfigError(
                f"{where(file, text, '', 'rule')}: [[rule]] {shown(table)} has no {missing[0]}",
                hint='a rule is experiment = "vision-*" and dataset = "imagenet"',
            )
        rules.append(Rule(**values))
    return tuple(rules)


def _sections(file: Path, text: str) -> dict[str, Any]:
    """Return the checked keyword arguments for each section's dataclass, and ``rule`` as it stands there."""
    result: dict[str, Any] = {section: {} for section in SECTIONS} | {"rule": []}
    for section, table in _toml(file, text).items():
        if section == "rule":
            result[section] = table
            continue
        if section not in SECTIONS:
            listed = ", ".join([*(f"[{known}]" for known in SECTIONS), "[[rule]]"])
            hint = did_you_mean(section, [*SECTIONS, "rule"]) or f"known: {listed}"
            if section in {"dataset", "datasets", "path"}:
                hint = "datasets are files of their own: reprod dataset add NAME PATH"
            raise ConfigError(f"{where(file, text, '', section)}: unknown section or key {section!r}", hint=hint)
        if not isinstance(table, dict):
            raise ConfigError(
                f"{where(file, text, '', section)}: {section} = {shown(table)}: expected a section",
                hint=f"write [{section}] on a line of its own and its keys below it",
            )
        result[section] = check_table(file, text, section, table, SECTIONS[section])
    return result


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
            f"$MLFLOW_TRACKING_URI = {shown(value)}: expected {unfit.expected}",
            hint=unfit.hint or "set tracking_uri under [mlflow] in reprod.toml, which goes first",
        ) from None
