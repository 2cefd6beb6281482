"""Where the configuration, the state and the control socket are.

Rule: an explicit place (flag, then environment variable) is the only one that counts; otherwise root and the service
user share the system's places and everybody else has their own by XDG. Nothing here creates or opens anything, and
nothing but ``os`` and ``pathlib`` is imported: ``reprod status`` pays for this module on every call.
"""

import os
from pathlib import Path

from reprod.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/reprod/reprod.toml")
SYSTEM_STATE = Path("/var/lib/reprod")
SYSTEM_SOCKET = Path("/run/reprod/control.sock")
SERVICE_USER = "reprod"

# sockaddr_un.sun_path has 108 bytes, the last of which is the terminating NUL (unix(7)).
MAX_SOCKET_BYTES = 107


def is_system_account() -> bool:
    """Return whether this process is root or the service user, who share the system's places."""
    uid = os.geteuid()
    if uid == 0:
        return True
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name == SERVICE_USER
    except KeyError:  # a container may run as an uid that nobody has named
        return False


def config_file(explicit: str | None = None) -> Path:
    """Return the path of reprod.toml: ``explicit`` (--config), $REPROD_CONFIG, else the account's own place."""
    chosen = explicit or os.environ.get("REPROD_CONFIG", "")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    if is_system_account():
        return SYSTEM_CONFIG
    return _xdg("XDG_CONFIG_HOME", ".config") / "reprod" / "reprod.toml"


def state_dir() -> Path:
    """Return the state directory: $REPROD_STATE_DIR, else the account's own place."""
    chosen = os.environ.get("REPROD_STATE_DIR", "")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    if is_system_account():
        return SYSTEM_STATE
    return _xdg("XDG_STATE_HOME", ".local/state") / "reprod"


def known_state_dir() -> Path:
    """Return the state directory to read from when no daemon answers: one's own, else the system's if only that exists.

    The system's daemon may be down while a member of its group asks what it last knew.
    """
    own = state_dir()
    # Without a daemon of one's own the directory may be there all the same: trainings leave their environments in it.
    try:
        known = (own / "registry.sqlite").exists()
    except OSError:  # it may not be entered: whoever opens it says so
        known = True
    if not os.environ.get("REPROD_STATE_DIR", "") and not known and SYSTEM_STATE.is_dir():
        return SYSTEM_STATE
    return own


def socket_candidates(state: Path) -> list[Path]:
    """Return the sockets at which a client looks for the daemon, in order.

    A set $REPROD_SOCKET or $REPROD_STATE_DIR leaves one: whoever names a state must never be answered by a daemon
    that has another one.
    """
    chosen = os.environ.get("REPROD_SOCKET", "")
    if chosen:
        return [checked_socket(Path(os.path.abspath(os.path.expanduser(chosen))))]
    if os.environ.get("REPROD_STATE_DIR", ""):
        return [checked_socket(state / "control.sock")]
    runtime = _runtime_socket()
    return [*([runtime] if runtime else []), state / "control.sock", SYSTEM_SOCKET]


def listen_path(state: Path) -> Path:
    """Return the socket at which a daemon with this state listens: the first candidate that it can use.

    The system's daemon prefers /run/reprod where the service manager made it, because other users cannot reach STATE.
    Raises ConfigError for a path that is too long for a socket.
    """
    if os.environ.get("REPROD_SOCKET", "") or os.environ.get("REPROD_STATE_DIR", ""):
        return socket_candidates(state)[0]
    if is_system_account() and SYSTEM_SOCKET.parent.is_dir():
        return SYSTEM_SOCKET
    runtime = _runtime_socket()
    if runtime is not None and runtime.parent.parent.is_dir():
        return checked_socket(runtime)
    return checked_socket(state / "control.sock")


def checked_socket(path: Path) -> Path:
    """Return ``path`` unless it is longer than a unix socket's address may be (ConfigError)."""
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_BYTES:
        raise ConfigError(
            f"socket path {path} has {length} bytes; the system allows {MAX_SOCKET_BYTES}",
            hint=f"set a shorter one, for example: export REPROD_SOCKET=/tmp/reprod-{os.geteuid()}/control.sock",
        )
    return path


def _runtime_socket() -> Path | None:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "reprod" / "control.sock" if runtime.startswith("/") else None


def _xdg(variable: str, below_home: str) -> Path:
    base = os.environ.get(variable, "")
    if base.startswith("/"):  # the XDG specification: a relative value is to be ignored
        return Path(base)
    home = os.path.expanduser("~")
    if not home.startswith("/"):
        raise ConfigError(
            "this account has no home directory to keep configuration and state in",
            hint="set REPROD_CONFIG and REPROD_STATE_DIR to absolute paths",
        )
    return Path(home) / below_home
