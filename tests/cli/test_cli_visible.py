"""Before a dataset is added: what the daemon says it sees of the path becomes a refusal that names place and cure."""

from pathlib import Path
from typing import Any

import pytest
from scripted_daemon import ScriptedDaemon

from reprod.cli.visible import require_visible
from reprod.client import Client
from reprod.errors import StateError


def ask(daemon: ScriptedDaemon, path: Path, closed: dict[str, Any] | None) -> None:
    """Ask whether a daemon that says ``closed`` sees ``path``."""
    daemon.says("look", path=str(path), uid=4321, closed=closed, answered=True)
    with Client() as client:
        require_visible(client, None, str(path))


def closed_at(path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "path": str(path),
        "needs": "x",
        "reason": "Permission denied",
        "owner": "alice",
        "mode": 0o750,
        "group": "lab",
        "folder": True,
        **changes,
    }


def test_what_the_daemon_sees_is_let_through(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    """An open path, one that is nowhere, and a daemon that does not know the question refuse nothing."""
    ask(daemon, tmp_path, None)
    ask(daemon, tmp_path / "nowhere", closed_at(tmp_path))
    del daemon.answers["look"]
    with Client() as client:
        require_visible(client, None, str(tmp_path))
        assert client.call("hello")["version"]


def test_a_closed_folder_is_refused_with_who_and_how(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    """77: the folder with mode and owner, the uid, and the cures by group and by ACL (14)."""
    with pytest.raises(StateError) as raised:
        ask(daemon, tmp_path, closed_at(tmp_path.parent))

    assert raised.value.exit_code == 77
    assert raised.value.message == (
        f"the daemon's user 4321 (uid 4321) may not go through {tmp_path.parent} (mode 0750, alice:lab)"
    )
    assert "usermod -aG lab 4321   or: " in raised.value.hint
    assert f"setfacl -m u:4321:x {tmp_path.parent}" in raised.value.hint
    with pytest.raises(StateError, match="may not read"):
        ask(daemon, tmp_path, closed_at(tmp_path, needs="r", mode=0o700))


def test_what_the_daemon_alone_does_not_see_is_refused(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    """A path that is there for this user and not for the daemon, and no unit to blame."""
    with pytest.raises(StateError, match=r"does not see .*No such file or directory"):
        ask(daemon, tmp_path, closed_at(tmp_path, needs="", reason="No such file or directory", owner=""))
