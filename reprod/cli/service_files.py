"""The files of the service: what they say, where they belong, and whether somebody changed them since.

One source: the files of ``systemd/`` in the repository, which a wheel carries as ``reprod/systemd``. Rule: what is
written is that text with the interpreter put in, and a last line with the checksum of the rest. By that line a later
install or uninstall knows what reprod wrote and nobody touched; everything else is a person's.
"""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import reprod
from reprod.config import places
from reprod.errors import NotFoundError, StateError, UsageError

Scope = Literal["user", "system"]
Found = Literal["absent", "same", "ours", "changed"]

UNIT = "reprod.service"

_SEAL = "# Written by `reprod service install`. Checksum of the lines above: "
_SEALED = re.compile(rb"\A(.*\n|)" + re.escape(_SEAL.encode()) + rb"([0-9a-f]{64})\n\Z", re.DOTALL)
_COMMAND = re.compile(r"^(Exec\w+=[-@:+!]*)/usr/bin/env reprod\b", re.MULTILINE)

#: source in systemd/, and where it belongs
_SYSTEM = (
    ("reprod.service", f"/etc/systemd/system/{UNIT}"),
    ("reprod.sysusers.conf", "/etc/sysusers.d/reprod.conf"),
    ("reprod.tmpfiles.conf", "/etc/tmpfiles.d/reprod.conf"),
    ("60-reprod.sysctl.conf", "/etc/sysctl.d/60-reprod.conf"),
)


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """One file as it is to be: ``text`` ends with the line that says so. ``source`` is its name in systemd/."""

    source: str
    path: Path
    text: str

    def found(self) -> Found:
        """Return what is at the path now. Raises StateError if it cannot be read."""
        try:
            present = self.path.read_bytes()
        except FileNotFoundError:
            return "absent"
        except OSError as error:
            raise StateError(
                f"{self.path} cannot be read: {error.strerror}", hint="look at it; another file is in the way"
            ) from error
        if present == self.text.encode():
            return "same"
        return "ours" if is_untouched(present) else "changed"


def packaged(name: str) -> str:
    """Return the text of a file of ``systemd/``: of the package's data, in an editable install of the repository.

    :raises NotFoundError: neither has it, so the installation is not whole.
    """
    for folder in (resources.files("reprod") / "systemd", Path(reprod.__file__).parents[1] / "systemd"):
        try:
            return (folder / name).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue
    raise NotFoundError(f"this installation of reprod has no systemd/{name}", hint="install it again")


def files_of(scope: Scope, config: str | None = None) -> tuple[ServiceFile, ...]:
    """Return the files of a service, the unit first; ``config`` is a reprod.toml other than the usual one."""
    command = [_interpreter(), "-m", "reprod"]
    more = ["--config", os.path.abspath(os.path.expanduser(config))] if config else []
    if scope == "user":
        unit = render(packaged("reprod-user.service"), command, more)
        return (ServiceFile("reprod-user.service", user_units() / UNIT, sealed(unit)),)
    made = []
    for source, target in _SYSTEM:
        text = packaged(source)
        made.append(
            ServiceFile(source, Path(target), sealed(render(text, command, more) if target.endswith(UNIT) else text))
        )
    return tuple(made)


def paths_of(scope: Scope) -> tuple[Path, ...]:
    """Return where the files of a service are, without asking what they would say."""
    return (user_units() / UNIT,) if scope == "user" else tuple(Path(target) for _, target in _SYSTEM)


def user_units() -> Path:
    """Return the folder of this user's own units."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def render(unit: str, command: Sequence[str], config: Sequence[str] = ()) -> str:
    """Return a unit whose ``/usr/bin/env reprod`` is ``command``; ``config`` are further words of the daemon's."""
    text, count = _COMMAND.subn(lambda found: found[1] + command_line(command), unit)
    if not count:
        raise NotFoundError("the unit starts nothing that is called reprod", hint="install reprod again")
    if config:
        words = " ".join(quoted(word) for word in config)
        text = re.sub(r"(?m)^(Exec\w+=.* -m reprod daemon)\b", lambda found: f"{found[1]} {words}", text)
    return text


def command_line(words: Sequence[str]) -> str:
    """Return a command for ``ExecStart=``.

    systemd replaces variables in arguments and not in the path of the program, and takes no quotes there at all: a path
    with such characters is an argument of env(1).
    """
    program, *rest = words
    if any(character in program for character in "$\"'\\"):
        if "=" in program:
            raise UsageError(
                f"systemd cannot start {program}: its path has both of = and one of $ \" ' \\",
                hint="install reprod below another folder",
            )
        return " ".join(["/usr/bin/env", *map(quoted, words)])
    shown = program.replace("%", "%%")
    return " ".join([f'"{shown}"' if " " in shown else shown, *map(quoted, rest)])


def quoted(word: str) -> str:
    """Return an argument as systemd reads it back: % and $ doubled, quotes where it needs them."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return text if re.fullmatch(r"[\w%$./:=@+,-]+", text, re.ASCII) else f'"{text}"'


def sealed(text: str) -> str:
    """Return a file's text with the line by which it is known again."""
    text = text if not text or text.endswith("\n") else text + "\n"
    return f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n"


def is_untouched(content: bytes) -> bool:
    """Whether a file is as ``sealed`` made it once, this version or another."""
    found = _SEALED.match(content)
    return found is not None and hashlib.sha256(found[1]).hexdigest().encode() == found[2]


def is_ours(content: bytes) -> bool:
    """Whether ``sealed`` made a file once, changed since or not."""
    return _SEAL.encode() in content


def printed(files: Sequence[ServiceFile]) -> str:
    """Return the files as one text; several are each headed by their path, as ``systemctl cat`` shows them."""
    if len(files) == 1:
        return files[0].text
    return "\n".join(f"# {file.path}\n{file.text}" for file in files)


def service_home(scope: Scope) -> tuple[Path, Path]:
    """Return the folders of configuration and of state that a service of this scope has when nothing says otherwise."""
    if scope == "system":
        return places.SYSTEM_CONFIG.parent, places.SYSTEM_STATE
    return places.config_file().parent, places.state_dir()


def _interpreter() -> str:
    """Return the absolute path of this interpreter; a link in a virtual environment stays one."""
    path = os.path.abspath(sys.executable) if sys.executable else ""
    if not path:
        raise UsageError("this interpreter does not know where it is", hint="run reprod by the absolute path of python")
    if any(character < " " or character == "\x7f" for character in path):
        raise UsageError(f"systemd cannot start {path!r}: control characters", hint="install reprod elsewhere")
    return path
