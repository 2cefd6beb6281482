"""One file of datasets.d: its text, and how it is created, replaced, renamed and removed: whole or not at all.

Nothing is overwritten: a name that is taken is refused, even if two people take it at the same moment (the file appears
by link(2)). Functions raise UsageError for a name that is taken, StateError for what the system refuses.
"""

import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from reprod.errors import StateError, UsageError

# The value of the key `path` on one line: basic or literal string, and a comment after it.
_PATH_LINE = re.compile(
    r"""^([ \t]*["']?path["']?[ \t]*=[ \t]*)(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*')([ \t]*(?:\#.*)?)$""", re.MULTILINE
)


def described(path: str, include: Sequence[str], exclude: Sequence[str], algorithms: Sequence[str]) -> str:
    """Return the text of a new file; lists that are empty are left out."""
    lines = ["# Written by `reprod dataset add`. Edit it as you like, then: reprod reload", f"path = {_string(path)}"]
    for key, values in (("include", include), ("exclude", exclude), ("algorithms", algorithms)):
        if values:
            lines.append(f"{key} = [{', '.join(_string(value) for value in values)}]")
    return "\n".join(lines) + "\n"


def with_path(text: str, path: str) -> str | None:
    """Return the text with another path; None if no line of it is plainly the path."""
    changed, count = _PATH_LINE.subn(lambda found: f"{found[1]}{_string(path)}{found[2]}", text, count=1)
    return changed if count else None


def refuse_taken(target: Path) -> None:
    """Raise UsageError if there is anything of this name."""
    if os.path.lexists(target):
        name = target.stem
        raise UsageError(
            f"the name {name} is taken: {target}", hint=f"choose another, or first: reprod dataset remove {name}"
        )


def read(target: Path) -> str:
    """Return the text of a file."""
    try:
        return target.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"{target} cannot be read: {error}", hint=_who_may(target.parent)) from error


def create(target: Path, text: str) -> None:
    """Create ``target`` with ``text``, durable and complete, only if it does not exist."""
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, target)
        except FileExistsError:
            refuse_taken(target)
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


def replace(target: Path, text: str) -> None:
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


def rename(old: Path, new: Path) -> None:
    """Rename a file and overwrite none: the new name is taken by an empty file first, and then at once by ours."""
    try:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        refuse_taken(new)
        raise
    except OSError as error:
        raise StateError(f"{new} cannot be written: {error.strerror}", hint=_who_may(new.parent)) from error
    try:
        old.replace(new)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise StateError(f"{old} cannot be renamed: {error.strerror}", hint=_who_may(old.parent)) from error


def remove(target: Path) -> None:
    """Remove a file."""
    try:
        target.unlink()
    except OSError as error:
        raise StateError(f"{target} cannot be removed: {error.strerror}", hint=_who_may(target.parent)) from error


def _who_may(folder: Path) -> str:
    return f"only a user who may write {folder} changes what is registered; on a system-wide daemon that is root"


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
