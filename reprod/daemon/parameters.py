"""What comes with a request on the control socket, taken for what it is or refused.

Parameters come from outside: what is missing, too long or of a wrong type is the caller's error, never the daemon's.
Lengths are characters.
"""

from typing import TYPE_CHECKING, Any

from reprod.core.process import MAX_PATH
from reprod.errors import NotFoundError, UsageError, did_you_mean

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon
    from reprod.daemon.work import DatasetWork

VERSIONS_DIFFER = "is the client older or newer than the daemon? restart it"


def text_of(params: dict[str, Any], key: str, longest: int = MAX_PATH) -> str | None:
    """Return an optional parameter that is text. Raises UsageError for another type or over ``longest`` characters."""
    value = params.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest:
        raise UsageError(f"{key} is a text of at most {longest} characters", hint=VERSIONS_DIFFER)
    return value


def name_of(params: dict[str, Any]) -> str:
    """Return the dataset's name in a request that needs one. Raises UsageError."""
    name = text_of(params, "name")
    if name is None:
        raise UsageError("name is missing", hint=VERSIONS_DIFFER)
    return name


def work_of(daemon: "Daemon", name: str) -> "DatasetWork":
    """Return the work on a dataset. Raises NotFoundError."""
    if name not in daemon.works:
        raise unknown(name, daemon.works)
    return daemon.works[name]


def unknown(name: str, known: Any) -> NotFoundError:
    """Return the error for a name that is none of the ``known``, with what may be meant."""
    return NotFoundError(
        f"no dataset named {name!r}", hint=did_you_mean(name, known) or "reprod dataset add NAME PATH adds one"
    )
