"""Which host this is: the file ``STATE/host.json``.

The id is a random UUID, minted at the first start and kept beside a keyed hash of the machine's id (never the id
itself). If that hash no longer fits, the state was copied to another machine (a cloned VM, an image): then it is
another host, gets another id, and forgets the boots of the first. A machine without an id (many containers) keeps what
the state says.
"""

import hashlib
import hmac
import json
import uuid
from pathlib import Path

from reprod.capture.process.identity import host_name
from reprod.core.hosts import HOST_ID, Host
from reprod.core.plain import plain
from reprod.errors import StateError
from reprod.fs.atomic import write_atomic
from reprod.store import hosts as stored
from reprod.store.connection import Database

FILE = "host.json"

#: systemd's, and D-Bus's where there is no systemd. Both are the same for every program, hence the keyed hash.
MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def identify(state_dir: Path, records: Database, places: tuple[Path, ...] = MACHINE_ID) -> Host:
    """Return which host this is, minted now if it is a new one. Call before this boot is taken in.

    :raises StateError: the file cannot be written.
    """
    machine = machine_id(places)
    kept, mark = _read(state_dir / FILE)
    if kept is not None and (machine is None or mark is None or hmac.compare_digest(mark, _mark(kept, machine))):
        if machine is not None and mark is None:  # until now the machine had no id
            _write(state_dir / FILE, kept, machine)
        return Host(kept, plain(host_name()))
    if kept is not None:
        records.write(stored.forget_boots)
    minted = str(uuid.uuid4())
    _write(state_dir / FILE, minted, machine)
    return Host(minted, plain(host_name()))


def machine_id(places: tuple[Path, ...] = MACHINE_ID) -> str | None:
    """Return the id of this machine, None where it has none (a container, an image before its first boot)."""
    for place in places:
        try:
            text = place.read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        if len(text) == 32 and all(c in "0123456789abcdef" for c in text) and text.strip("0"):
            return text
    return None


def machine_mark(machine: str | None) -> str | None:
    """Return what tells machines apart and says nothing of their ids; the same from every state directory of one."""
    return None if machine is None else _mark("machine", machine)[:16]


def _read(path: Path) -> tuple[str | None, str | None]:
    """Return the id and the mark of the machine in the file; None for what is not there, or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None, None
    if not isinstance(value, dict):
        return None, None
    host, mark = value.get("id"), value.get("machine")
    if not isinstance(host, str) or not HOST_ID.match(host):
        return None, None
    return host, mark if isinstance(mark, str) and mark.isascii() else None


def _write(path: Path, host_id: str, machine: str | None) -> None:
    mark = None if machine is None else _mark(host_id, machine)
    text = json.dumps({"schema": "reprod.host/1", "id": host_id, "machine": mark}, indent=2) + "\n"
    try:
        write_atomic(path, text.encode(), 0o600)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror}", hint="is there space, and is it ours?"
        ) from error


def _mark(host_id: str, machine: str) -> str:
    """Return a hash of the machine's id that says nothing of it, and is another for each host id."""
    return hmac.new(f"reprod {host_id}".encode(), machine.encode(), hashlib.sha256).hexdigest()
