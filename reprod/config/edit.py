"""Changing what is registered: one file for each dataset in datasets.d, written whole or not at all.

The files are the one truth; a daemon learns of a change by ``reload``. Nothing is overwritten: a name that is taken is
refused, even if two people add it at the same moment (the file appears by link(2)).
"""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from reprod.config.parse import parse_dataset
from reprod.config.values import Config
from reprod.core.run import DATASET_NAME
from reprod.errors import (
    ConfigError,
    DatasetUnavailableError,
    NotFoundError,
    StateError,
    UsageError,
    did_you_mean,
)

#: Written into every new dataset, visibly: snapshots of file servers, NFS leftovers and what fsck found are not data.
DEFAULT_EXCLUDE = (".snapshot/", ".zfs/", ".nfs*", "lost+found/")


def add_dataset(
    config: Config,
    name: str,
    path: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    algorithms: Sequence[str] = (),
) -> Path:
    """Write datasets.d/NAME.toml and return its path; ``path`` is made absolute, ``exclude`` is added to the default.

    Raises UsageError (bad or taken name, a path inside STATE, a bad value), DatasetUnavailableError (no such path),
    StateError (the data or datasets.d may not be used).
    """
    if not DATASET_NAME.match(name):
        raise UsageError(
            f"{name!r} cannot be a dataset's name",
            hint="a name is 1 to 128 of A-Z a-z 0-9 . _ - and begins with a letter or digit",
        )
    target = config.folder / f"{name}.toml"
    _refuse_taken(name, target)
    absolute = os.path.abspath(os.path.expanduser(path))
    text = _text(absolute, include, (*DEFAULT_EXCLUDE, *exclude), algorithms)
    try:
        parse_dataset(name, text, target, config.state_dir)
    except ConfigError as error:
        raise UsageError(error.message.removeprefix(f"{target}: "), hint=error.hint) from error
    _check_root(absolute)
    _write_new(name, target, text)
    return target


def remove_dataset(config: Config, name: str) -> Path:
    """Remove datasets.d/NAME.toml and return the path it had; history is not touched.

    Raises NotFoundError, StateError.
    """
    target = config.folder / f"{name}.toml"
    known = [item.name for item in config.datasets] + [item.name for item in config.misconfigured]
    if name not in known:
        raise NotFoundError(
            f"there is no dataset {name!r} in {config.folder}",
            hint=did_you_mean(name, known) or "list them: reprod dataset list",
        )
    try:
        target.unlink()
    except OSError as error:
        raise StateError(f"{target} cannot be removed: {error.strerror}", hint=_who_may(config.folder)) from error
    return target


def nested_in(config: Config) -> list[tuple[str, str]]:
    """Return (name, outer) for each dataset whose root is inside, or the same as, another's: allowed, but worth saying.

    ``outer`` is the nearest one. Of two with the same root the later name is the inner one.
    """
    roots = sorted((os.path.realpath(item.path), item.name) for item in config.datasets)
    found: list[tuple[str, str]] = []
    for index, (root, name) in enumerate(roots):
        around = [(outer, other) for outer, other in roots[:index] if f"{root}/".startswith(outer.rstrip("/") + "/")]
        if around:
            found.append((name, around[-1][1]))
    return sorted(found)


def _refuse_taken(name: str, target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(
            f"the name {name} is taken: {target}", hint=f"choose another, or first: reprod dataset remove {name}"
        )


def _text(path: str, include: Sequence[str], exclude: Sequence[str], algorithms: Sequence[str]) -> str:
    lines = ["# Written by `reprod dataset add`. Edit it as you like, then: reprod reload", f"path = {_string(path)}"]
    for key, values in (("include", include), ("exclude", exclude), ("algorithms", algorithms)):
        if values:
            lines.append(f"{key} = [{', '.join(_string(value) for value in values)}]")
    return "\n".join(lines) + "\n"


def _string(text: str) -> str:
    """Return ``text`` as a TOML basic string. Raises UsageError for bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            f"{text!r} is not UTF-8, and a TOML file holds nothing else",
            hint="make a symbolic link with an ordinary name and register that",
        ) from None
    # JSON's escapes are TOML's, except that TOML also wants DEL escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _check_root(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
        elif stat.S_ISREG(mode):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        else:
            raise UsageError(f"{path} is neither a folder nor a regular file", hint="register a folder of files")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetUnavailableError(
            f"{path} does not exist", hint="check the spelling; if it is on a mount, mount it first"
        ) from error
    except OSError as error:
        raise StateError(
            f"{path} cannot be read: {error.strerror}", hint="the daemon's user needs to list and read it"
        ) from error


def _write_new(name: str, target: Path, text: str) -> None:
    """Create ``target`` with ``text``, durable and complete, only if it does not exist."""
    temporary = target.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, target)
        except FileExistsError:
            _refuse_taken(name, target)
            raise
        finally:
            temporary.unlink()
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StateError(f"{target} cannot be written: {error.strerror}", hint=_who_may(target.parent)) from error


def _who_may(folder: Path) -> str:
    return f"only a user who may write {folder} changes what is registered; on a system-wide daemon that is root"
