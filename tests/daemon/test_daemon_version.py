"""What a daemon says of itself to clients of other versions: the command that restarts it, where there is one."""

import pytest

from reprod.daemon import version

SYSTEM = "0::/system.slice/reprod.service\n"
HYBRID = "12:cpu,cpuacct:/system.slice/other.service\n1:name=systemd:/system.slice/reprod.service\n0::/\n"
USER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/reprod.service\n"
DELEGATED = "0::/system.slice/reprod.service/workers\n"
RENAMED = "0::/system.slice/data-watch@lab.service\n"
TERMINAL = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope\n"


@pytest.mark.parametrize(
    ("cgroups", "command"),
    [
        (SYSTEM, "systemctl restart reprod"),
        (HYBRID, "systemctl restart reprod"),
        (USER, "systemctl --user restart reprod"),
        (DELEGATED, "systemctl restart reprod"),
        (RENAMED, "systemctl restart data-watch@lab"),
        (TERMINAL, None),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/system.slice/x;reboot.service\n", None),
        ("0::/\n", None),
        ("garbage\n:\n\n", None),
        ("", None),
    ],
)
def test_the_unit_is_named_by_the_control_group(cgroups: str, command: str | None) -> None:
    """The system's unit, a user's, one of another name; never a user's manager, nor what is no unit's name."""
    assert version._command(cgroups) == command


def test_only_what_the_manager_started_itself_is_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon started by hand in a terminal inherits the variables of the terminal's unit."""
    for name in ("SYSTEMD_EXEC_PID", "INVOCATION_ID", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    assert not version._is_service(42)
    monkeypatch.setenv("INVOCATION_ID", "0" * 32)
    assert not version._is_service(42)
    monkeypatch.setenv("SYSTEMD_EXEC_PID", "41")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    assert not version._is_service(42)
    monkeypatch.setenv("SYSTEMD_EXEC_PID", "42")
    assert version._is_service(42)
    monkeypatch.delenv("SYSTEMD_EXEC_PID")  # systemd before 248
    assert version._is_service(42)
