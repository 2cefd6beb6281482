"""Changing what is registered: one file for each dataset in datasets.d.

The files are the one truth; a daemon learns of a change by ``reload``. Another place or another name is an ``Edit``:
checked first, then made, and taken back if the daemon refuses it.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reprod.config import registration
from reprod.config.parse import parse_dataset
from reprod.config.values import Config, DatasetConfig
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
    _require_name(name)
    target = config.folder / f"{name}.toml"
    registration.refuse_taken(target)
    absolute = _absolute(path)
    text = registration.described(absolute, include, (*DEFAULT_EXCLUDE, *exclude), algorithms)
    _parsed(config, name, target, text)
    _check_root(absolute)
    registration.create(target, text)
    return target


def remove_dataset(config: Config, name: str) -> Path:
    """Remove datasets.d/NAME.toml and return the path it had; history is not touched.

    Raises NotFoundError, StateError.
    """
    target = _known_file(config, name)
    registration.remove(target)
    return target


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one file that was checked and not made yet: its new path and text, and what they were."""

    old: Path
    new: Path
    text_before: str
    text: str

    def make(self) -> None:
        """Make it. Raises UsageError if the new name was taken meanwhile, StateError."""
        if self.new != self.old:
            registration.rename(self.old, self.new)
        if self.text != self.text_before:
            registration.replace(self.new, self.text)

    def take_back(self) -> None:
        """Undo it. Raises UsageError, StateError."""
        if self.text != self.text_before:
            registration.replace(self.new, self.text_before)
        if self.new != self.old:
            registration.rename(self.new, self.old)


def move_dataset(config: Config, name: str, path: str) -> Edit:
    """Return the edit that gives a dataset another root; all else in its file stays as it is.

    Raises NotFoundError, UsageError (the same place, another dataset's, inside STATE), DatasetUnavailableError (no such
    path), StateError, ConfigError (a file in which the path cannot be told from the rest).
    """
    target = _known_file(config, name)
    text = registration.read(target)
    absolute = _absolute(path)
    known = next((item for item in config.datasets if item.name == name), None)
    if known is not None and os.path.abspath(known.path) == absolute:
        raise UsageError(f"{name} is at {absolute} already", hint="reprod scan looks for changes there")
    for item in config.datasets:
        if item.name != name and os.path.realpath(item.path) == os.path.realpath(absolute):
            raise UsageError(f"{absolute} is the dataset {item.name}", hint="two names for one place are two histories")
    changed = registration.with_path(text, absolute)
    moved = _parsed(config, name, target, text if changed is None else changed)
    if changed is None or moved.path != absolute or (known is not None and replace(known, path=moved.path) != moved):
        raise ConfigError(f"{target}: cannot tell which line is the path", hint='write it as one line: path = "..."')
    _check_root(absolute)
    if known is not None and os.path.exists(known.path) and os.path.isfile(known.path) != os.path.isfile(absolute):
        raise UsageError(
            f"{known.path} and {absolute} are not both folders or both files",
            hint="register the other one under a name of its own: reprod dataset add",
        )
    return Edit(target, target, text, changed)


def rename_dataset(config: Config, old: str, new: str) -> Edit:
    """Return the edit that gives a dataset another name. Raises NotFoundError, UsageError (a bad or taken name)."""
    target = _known_file(config, old)
    text = registration.read(target)
    _require_name(new)
    if new == old:
        raise UsageError(f"{old} is called that already", hint="reprod dataset list shows the names that are taken")
    renamed = config.folder / f"{new}.toml"
    registration.refuse_taken(renamed)
    return Edit(target, renamed, text, text)


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


def _require_name(name: str) -> None:
    if not DATASET_NAME.match(name):
        raise UsageError(
            f"{name!r} cannot be a dataset's name",
            hint="a name is 1 to 128 of A-Z a-z 0-9 . _ - and begins with a letter or digit",
        )


def _parsed(config: Config, name: str, target: Path, text: str) -> DatasetConfig:
    """Return what a file's text would say; what is wrong with it is the user's mistake and not yet the file's."""
    try:
        return parse_dataset(name, text, target, config.state_dir)
    except ConfigError as error:
        raise UsageError(error.message.removeprefix(f"{target}: "), hint=error.hint) from error


def _known_file(config: Config, name: str) -> Path:
    target = config.folder / f"{name}.toml"
    known = [item.name for item in config.datasets] + [item.name for item in config.misconfigured]
    if name not in known:
        raise NotFoundError(
            f"there is no dataset {name!r} in {config.folder}",
            hint=did_you_mean(name, known) or "list them: reprod dataset list",
        )
    return target


def _absolute(path: str) -> str:
    """Return a path that stays right in other folders. Raises UsageError for none: that would be the current folder."""
    if not path:
        raise UsageError("the path is empty", hint="name the folder or the file; . is the current folder")
    return os.path.abspath(os.path.expanduser(path))


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
