"""Whether the running daemon can see and read a path, asked before a dataset is added there.

Rule: what the daemon cannot read is refused while the person who could mend it is there: with the closed folder,
for whom, and three cures; or with the directive of the unit that hides the path, also where the daemon sees an empty
place instead (its own /tmp). A daemon that does not know the question, or a mount that hangs, refuses nothing.
"""

import os

from reprod.client import Client
from reprod.errors import ReprodError, StateError
from reprod.ops.doctor_access import Closed, cures
from reprod.ops.doctor_finding import sudo
from reprod.ops.doctor_probe import user_name
from reprod.ops.doctor_service import capability_lines, find_service, hiding, showing_lines

#: The daemon itself gives up after two seconds.
ASK_S = 5.0


def require_visible(client: Client, pid: int | None, path: str) -> None:
    """Raise StateError if the daemon ``pid`` cannot reach or read ``path``, which is there for this user."""
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.lexists(path):
        return  # what is nowhere is said elsewhere
    service = find_service(pid) if pid is not None else None
    hidden = next(hiding(service.properties, os.path.realpath(path)), None) if service else None
    if hidden is not None and service is not None:  # also where it sees something: another, empty place
        raise StateError(
            f"the daemon does not see {path}: {hidden} in {service.unit} hides it",
            hint="   or: ".join(showing_lines(service, hidden, os.path.realpath(path))),
        )
    try:
        told = client.call("look", {"path": path}, timeout_s=ASK_S)
    except ReprodError:  # an older daemon; or adding will meet it too
        return
    found = told.get("closed")
    if not isinstance(found, dict):
        return
    closed = Closed(**{name: found[name] for name in Closed.__slots__ if name in found})
    user, uid = user_name(int(told.get("uid", -1))), told.get("uid")
    if not closed.needs:
        raise StateError(f"{user} (uid {uid}) does not see {closed.path}: {closed.reason}", hint="reprod doctor")
    verb = "go through" if closed.needs == "x" else "read"
    lines = [*cures(closed, path, user, sudo=sudo()), *capability_lines(service)]
    raise StateError(
        f"the daemon's user {user} (uid {uid}) may not {verb} {closed.described}", hint="   or: ".join(lines)
    )
