"""A daemon that answers as a test says, behind a real unix socket; and what its answers look like."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Answer = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class ScriptedDaemon:
    """Answers each method from ``answers``: {"result": ...} or {"error": ...}; ``progress`` is sent before each."""

    home: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    progress: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def says(self, method: str, **result: Any) -> None:
        """Answer ``method`` with ``result``."""
        self.answers[method] = {"result": result}

    def refuses(self, method: str, exit_code: int, message: str, hint: str = "") -> None:
        """Answer ``method`` with an error."""
        data = {"exit_code": exit_code, "hint": hint}
        self.answers[method] = {"error": {"code": -32000, "message": message, "data": data}}

    def talk(self, connection: socket.socket) -> None:
        """Answer one connection until it ends."""
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                method, params = request["method"], request["params"]
                self.calls.append((method, params))
                answer = self.answers.get(method, {"error": {"code": -32601, "message": "Method not found"}})
                said = answer(params) if callable(answer) else answer
                messages = [{"method": "progress", "params": each} for each in self.progress if method == "scan"]
                for message in [*messages, {"id": request["id"], **said}]:
                    connection.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Return standard output as the one JSON object that it must be."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


def dataset_row(name: str = "imagenet", state: str = "current", **changes: Any) -> dict[str, Any]:
    """Return one dataset of a status answer."""
    return {
        "name": name,
        "path": f"/data/{name}",
        "state": state,
        "reason": None,
        "hint": None,
        "watch": "watchfiles",
        "watch_reason": None,
        "files": 1331167,
        "bytes": 155800000000,
        "version": 41,
        "digest": "dt1:7f3a1c0e1234" + "0" * 52,
        "complete": True,
        "last_change_at": "2026-11-23T05:00:00Z",
        "confirmed_at": "2026-11-23T05:30:00Z",
        "progress": None,
        "problems": [],
        "problem_count": 0,
        **changes,
    }


def status_answer(*datasets: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a status answer in which everything is fine but for ``changes``."""
    return {
        "schema": "reprod.status/1",
        "live": True,
        "version": "0.1.0",
        "pid": 4242,
        "started_at": "2026-11-22T03:00:00Z",
        "uptime_seconds": 94000.0,
        "rss_bytes": 48_000_000,
        "config": "/etc/reprod/reprod.toml",
        "state": "/var/lib/reprod",
        "socket": "/run/reprod/control.sock",
        "tracking": {
            "uri": "http://127.0.0.1:5000",
            "state": "reachable",
            "last_poll_at": "2026-11-23T05:30:00Z",
            "error": None,
            "local": False,
        },
        "runs": {"waiting": 0, "incomplete": 0, "failed": 0, "oldest_waiting_seconds": None},
        "datasets": list(datasets),
        "environment": {"digest": "3f9a11c0" + "0" * 56, "taken_at": "2026-11-23T05:20:00Z", "interpreters": 2},
        "attention": [],
        **changes,
    }
