"""Whether the user that the service runs as can run this interpreter: found out by doing both parts of it.

Rule: first each folder on the way, opened as that user, so that the closed one is named with its cure; then the
interpreter itself, as that user, with nothing of this shell's. Seconds.
"""

import os
import shlex
import subprocess
import sys

from reprod.cli.service_files import Scope
from reprod.config.places import SERVICE_USER
from reprod.errors import NotFoundError, StateError
from reprod.ops.doctor_access import first_closed
from reprod.ops.doctor_probe import Person, anybody, ask_as, person_named

LOOK_S = 5.0
#: A first start compiles; on a disk that seeks that takes seconds.
RUN_S = 30.0


def require_reach(scope: Scope) -> None:
    """Raise StateError, with the cure, unless the service's user can run ``python -m reprod``."""
    user = _service_user() if scope == "system" else None
    python = os.path.abspath(sys.executable)
    if user is not None:
        for path in (python, os.path.realpath(python), *_import_folders()):
            _require_way(user, path)
    _require_run(user, python)


def _service_user() -> Person:
    try:
        return person_named(SERVICE_USER)
    except NotFoundError:  # systemd-sysusers makes it; it will own nothing and be in no other group
        return anybody()


def _import_folders() -> list[str]:
    """Return where the interpreter takes modules from: a venv's packages, the standard library, an editable install."""
    import reprod

    package = os.path.dirname(os.path.abspath(reprod.__file__))
    return list(dict.fromkeys([package, os.path.dirname(os.__file__), *(p for p in sys.path if os.path.isdir(p))]))


def _require_way(user: Person, path: str) -> None:
    def look() -> dict[str, object] | None:
        closed = first_closed(path)
        return None if closed is None or not closed.needs else {"path": closed.path, "described": closed.described}

    closed = ask_as(user, look, LOOK_S)
    if closed is not None:
        folder = str(closed["path"])
        raise StateError(
            f"the service's user {SERVICE_USER} cannot run {sys.executable}: no way through {closed['described']}",
            hint=f"install reprod where others may go, such as {_elsewhere()}"
            + ("" if folder == "/root" else f"; or open that folder: chmod o+x {shlex.quote(folder)}"),
        )


def _elsewhere() -> str:
    return "/opt/reprod: python3 -m venv /opt/reprod && /opt/reprod/bin/pip install WHEEL"


def _require_run(user: Person | None, python: str) -> None:
    """Run the interpreter as the service would: that user, no variables of this shell, from ``/``."""
    command = [python, "-m", "reprod", "--version"]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RUN_S,
            cwd="/",
            env=environment,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else list(user.groups),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StateError(f"{python} cannot be run by the service: {error}", hint=f"try: {' '.join(command)}") from error
    if done.returncode:
        who = "" if user is None else f" as {user.name}"
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"code {done.returncode}")
        raise StateError(
            f"`{' '.join(command)}` fails{who}, from / and without this shell's variables: {said}",
            hint="install reprod into this interpreter, not by PYTHONPATH; " + f"or into {_elsewhere()}",
        )
