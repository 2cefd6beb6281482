"""What the service's sysctl file asks for, and what the kernel has now.

Decision: the file is always written and holds from the next boot on. Now it is applied only with --now, and only where
it raises a limit: an administrator's higher one stays.
"""

from collections.abc import Iterable
from pathlib import Path

from reprod.cli.screen import Screen
from reprod.cli.service_files import ServiceFile

_PROC = Path("/proc/sys")


def wanted(text: str) -> dict[str, int]:
    """Return the settings in a sysctl.d file."""
    lines = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))
    return {key.strip(): int(value) for key, equals, value in lines if equals and value.strip().isdecimal()}


def lower_now(settings: dict[str, int]) -> dict[str, int]:
    """Return those settings that the kernel has lower now."""
    found = {}
    for key, value in settings.items():
        try:
            if int((_PROC / key.replace(".", "/")).read_text("ascii")) < value:
                found[key] = value
        except (OSError, ValueError):
            continue
    return found


def say_limits(screen: Screen, files: Iterable[ServiceFile], *, apply: bool) -> None:
    """Raise the limits that are lower, if they are to be; say what they are else."""
    file = next((file for file in files if file.source.endswith("sysctl.conf")), None)
    lower = lower_now(wanted(file.text)) if file is not None else {}
    if file is None or not lower:
        return
    if apply:
        failed = [key for key, value in lower.items() if not _set(key, value)]
        for key in lower.keys() - failed:
            screen.line(f"set {key} = {lower[key]}")
        if not failed:
            return
        screen.line(
            f"this machine does not let {', '.join(sorted(failed))} be set (a container?): set them on its host"
        )
        return
    screen.line("limits of inotify that are lower than the service wants, until the next boot; now:")
    screen.line(f"  sudo sysctl --load {file.path}")


def _set(key: str, value: int) -> bool:
    try:
        (_PROC / key.replace(".", "/")).write_text(f"{value}\n", "ascii")
    except OSError:
        return False
    return True
