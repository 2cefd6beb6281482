"""What of the service's rights and secrets its own child processes get, in real systemd."""

import json
from pathlib import Path

import pytest
from bed import UNITS, Bed, eventually
from service_place import PYTHON, Service

pytestmark = [pytest.mark.systemd, pytest.mark.mlflow]

TOKEN = "s3cret-of-the-test"

#: A tracking server that only writes down who asks.
STUB = """
import http.server, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        pathlib.Path("/tmp/asked").open("a").write(str(self.headers.get("Authorization")) + "\\n")
        self.send_error(503)
    do_POST = do_GET
http.server.HTTPServer(("127.0.0.1", 5599), Handler).serve_forever()
"""


def test_the_token_is_the_childs_alone(service: Service, bed: Bed) -> None:
    """46: a token that systemd hands over reaches the tracking server, and stands in no environment, command line or
    journal."""
    bed.write("/etc/stub.py", STUB)
    bed.write("/etc/reprod/mlflow.token", TOKEN + "\n", 0o600)
    bed.run("systemd-run", "--unit=stub", PYTHON, "/etc/stub.py")
    service.configure('[mlflow]\ntracking_uri = "http://127.0.0.1:5599"\npoll_seconds = 0.5\n')
    service.drop_in((UNITS / "drop-ins" / "40-token.conf").read_text(), "40-token.conf")
    service.start()
    try:
        asked = bed.path("/tmp/asked")
        eventually(lambda: asked.exists() and f"Bearer {TOKEN}" in asked.read_text(), 60, service.said)
        for pid in service.processes():
            for name in ("environ", "cmdline"):
                assert TOKEN.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        assert TOKEN not in json.dumps(service.messages())
    finally:
        bed.systemctl("stop", "stub.service")


def test_the_embedded_server_may_not_read_everything(service: Service, bed: Bed) -> None:
    """12: where the daemon may read everybody's files, the tracking server that it starts may not: it answers any local
    user."""
    service.configure('[mlflow]\ntracking_uri = "local"\n')
    service.drop_in((UNITS / "drop-ins" / "10-read-all.conf").read_text(), "10-read-all.conf")
    service.start()

    def servers() -> list[int]:
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in service.processes()}
        return [pid for pid, line in lines.items() if line[1:4] == ["-m", "mlflow", "server"]]

    server = eventually(servers, 20, service.said)[0]
    status = dict(line.partition(":\t")[::2] for line in Path(f"/proc/{server}/status").read_text().splitlines())
    assert (status["CapEff"], status["CapPrm"], status["CapAmb"]) == (f"{0:016x}",) * 3
