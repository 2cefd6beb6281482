"""Changing what is registered: one file for each dataset in datasets.d, written whole or not at all.

The files are the one truth; a daemon learns of a change by ``reload``. Nothing is overwritten: a name that is taken is
refused, even if two people add it at the same moment (the file appears by link(2)). Another place or another name is an
``Edit``: checked first, then made, and taken back if the daemon refuses it.
"""

import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
    if not DATASET_NAME.match(name):
        raise UsageError(
            f"{name!r} cannot be a dataset's name",
            hint="a name is 1 to 128 of A-Z a-z 0-9 . _ - and begins with a letter or digit",
        )
    target = config.folder / f"{name}.toml"
    _refuse_taken(name, target)
    absolute = _absolute(path)
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
    target = _known_file(config, name)
    try:
        target.unlink()
    except OSError as error:
        raise StateError(f"{target} cannot be removed: {error.strerror}", hint=_who_may(config.folder)) from error
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
            _rename(self.old, self.new)
        if self.text != self.text_before:
            _replace(self.new, self.text)

    def take_back(self) -> None:
        """Undo it. Raises UsageError, StateError."""
        if self.text != self.text_before:
            _replace(self.new, self.text_before)
        if self.new != self.old:
            _rename(self.new, self.old)


def move_dataset(config: Config, name: str, path: str) -> Edit:
    """Return the edit that gives a dataset another root; all else in its file stays as it is.

    Raises NotFoundError, UsageError (the same place, another dataset's, inside STATE), DatasetUnavailableError (no such
    path), StateError, ConfigError (a file in which the path cannot be told from the rest).
    """
    target, text = _read_known(config, name)
    absolute = _absolute(path)
    known = next((item for item in config.datasets if item.name == name), None)
    if known is not None and os.path.abspath(known.path) == absolute:
        raise UsageError(f"{name} is at {absolute} already", hint="reprod scan looks for changes there")
    for item in config.datasets:
        if item.name != name and os.path.realpath(item.path) == os.path.realpath(absolute):
            raise UsageError(f"{absolute} is the dataset {item.name}", hint="two names for one place are two histories")
    changed, count = _PATH_LINE.subn(lambda found: f"{found[1]}{_string(absolute)}{found[2]}", text, count=1)
    try:
        moved = parse_dataset(name, changed, target, config.state_dir)
    except ConfigError as error:
        raise UsageError(error.message.removeprefix(f"{target}: "), hint=error.hint) from error
    if not count or moved.path != absolute or (known is not None and not _same_but_path(known, moved)):
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
    target, text = _read_known(config, old)
    if not DATASET_NAME.match(new):
        raise UsageError(
            f"{new!r} cannot be a dataset's name",
            hint="a name is 1 to 128 of A-Z a-z 0-9 . _ - and begins with a letter or digit",
        )
    if new == old:
        raise UsageError(f"{old} is called that already", hint="reprod dataset list shows the names that are taken")
    renamed = config.folder / f"{new}.toml"
    _refuse_taken(new, renamed)
    return Edit(target, renamed, text, text)


# The value of the key `path` on one line: basic or literal string, and a comment after it.
_PATH_LINE = re.compile(
    r"""^([ \t]*["']?path["']?[ \t]*=[ \t]*)(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*')([ \t]*(?:\#.*)?)$""", re.MULTILINE
)


def _same_but_path(a: DatasetConfig, b: DatasetConfig) -> bool:
    return replace(a, path=b.path) == b


def _known_file(config: Config, name: str) -> Path:
    target = config.folder / f"{name}.toml"
    known = [item.name for item in config.datasets] + [item.name for item in config.misconfigured]
    if name not in known:
        raise NotFoundError(
            f"there is no dataset {name!r} in {config.folder}",
            hint=did_you_mean(name, known) or "list them: reprod dataset list",
        )
    return target


def _read_known(config: Config, name: str) -> tuple[Path, str]:
    target = _known_file(config, name)
    try:
        return target, target.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"{target} cannot be read: {error}", hint=_who_may(config.folder)) from error


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


def _absolute(path: str) -> str:
    """Return a path that stays right in other folders. Raises UsageError for none: that would be the current folder."""
    if not path:
        raise UsageError("the path is empty", hint="name the folder or the file; . is the current folder")
    return os.path.abspath(os.path.expanduser(path))


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


def _replace(target: Path, text: str) -> None:
    """Put ``text`` in the place of a file's content, whole or not at all; who may read it stays as it was."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StateError(f"{target} cannot be written: {error.strerror}", hint=_who_may(target.parent)) from error


def _rename(old: Path, new: Path) -> None:
    """Rename a file and overwrite none: the new name is taken by an empty file first, and then at once by ours."""
    try:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        _refuse_taken(new.stem, new)
        raise
    except OSError as error:
        raise StateError(f"{new} cannot be written: {error.strerror}", hint=_who_may(new.parent)) from error
    try:
        old.replace(new)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise StateError(f"{old} cannot be renamed: {error.strerror}", hint=_who_may(old.parent)) from error


def _who_may(folder: Path) -> str:
    return f"only a user who may write {folder} changes what is registered; on a system-wide daemon that is root"
