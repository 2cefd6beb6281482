"""A token that the service manager hands over reaches the tracking server, and nothing else that can be read."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reprod.sinks.child import MlflowChild
from reprod.sinks.environment import take_credential
from reprod.sinks.protocol import SinkError

TOKEN = "s3cret-of-the-service"


class AskedWho(BaseHTTPRequestHandler):
    """Remembers who asked, and refuses everybody."""

    def do_GET(self) -> None:
        self.server.seen.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str | None]]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), AskedWho) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", server.seen  # type: ignore[attr-defined]
        server.shutdown()
        thread.join(30)


@pytest.mark.mlflow
def test_the_token_of_the_service(
    server: tuple[str, list[str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child sends the credential; it is in no process's environment or command line."""
    (tmp_path / "mlflow.token").write_text(TOKEN + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    url, seen = server
    child = MlflowChild(url)
    try:
        with pytest.raises(SinkError) as refused:
            child.poll()
        assert refused.value.kind == "denied"
        assert set(seen) == {f"Bearer {TOKEN}"}
        for file in ("environ", "cmdline"):
            assert TOKEN.encode() not in Path(f"/proc/{child.pid}/{file}").read_bytes()
        assert TOKEN not in f"{refused.value.message} {refused.value.hint} {refused.value.detail}"
    finally:
        child.close()


def test_what_the_environment_says_goes_first(tmp_path: Path) -> None:
    """A token that is set stays; where nothing was handed over there is none."""
    (tmp_path / "mlflow.token").write_text(TOKEN)
    given = {"CREDENTIALS_DIRECTORY": str(tmp_path), "MLFLOW_TRACKING_TOKEN": "mine"}
    take_credential(given)
    assert given["MLFLOW_TRACKING_TOKEN"] == "mine"
    none = {"CREDENTIALS_DIRECTORY": str(tmp_path / "nowhere")}
    take_credential(none)
    assert "MLFLOW_TRACKING_TOKEN" not in none
