"""What ``reprod demo`` asks of its MLflow server: over REST, past reprod's own client.

So what the demo shows and judges is what the server holds, as any other program would find it there.
"""

import http.client
import json
from typing import Any
from urllib.parse import urlencode

from reprod.errors import TrackingError

HOST = "127.0.0.1"

#: On two cores it answers in 0.05 s; a busy one may let it wait.
ANSWER_S = 20.0


class Server:
    """The MLflow server at ``url``. Every call raises TrackingError if no answer came or it was a refusal."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def port(self) -> int:
        """Return its TCP port on loopback."""
        return int(self.url.rpartition(":")[2])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run: its info, with ``tags``, ``params`` and ``metrics`` as plain mappings.

        ``datasets`` are the names of its dataset inputs.
        """
        found = self._get("runs/get", run_id=run_id)["run"]
        data = found.get("data", {})
        kinds = ("tags", "params", "metrics")
        pairs = {kind: {item["key"]: item["value"] for item in data.get(kind, [])} for kind in kinds}
        inputs = found.get("inputs", {}).get("dataset_inputs", [])
        return {**found["info"], **pairs, "datasets": [item["dataset"]["name"] for item in inputs]}

    def artifacts(self, run_id: str) -> list[str]:
        """Return the paths of the files among a run's artifacts, two levels deep."""
        top = self._get("artifacts/list", run_id=run_id).get("files", [])
        below = [
            self._get("artifacts/list", run_id=run_id, path=item["path"]).get("files", [])
            for item in top
            if item.get("is_dir")
        ]
        found = [item for items in [top, *below] for item in items]
        return sorted(str(item["path"]) for item in found if not item.get("is_dir"))

    def artifact(self, run_id: str, path: str) -> bytes:
        """Return the content of one artifact."""
        return self._ask("GET", f"/get-artifact?{urlencode({'path': path, 'run_uuid': run_id})}")

    def tag_experiment(self, run_id: str, key: str, value: str) -> None:
        """Set a tag on the experiment that a run is in, as ``mlflow.set_experiment_tag`` does."""
        tag = {"experiment_id": self.run(run_id)["experiment_id"], "key": key, "value": value}
        self._ask("POST", "/api/2.0/mlflow/experiments/set-experiment-tag", json.dumps(tag).encode())

    def page(self, run_id: str, below: str = "") -> str:
        """Return the address of a run's page in MLflow's UI, or of what is ``below`` it."""
        experiment = self.run(run_id)["experiment_id"]
        return f"{self.url}/#/experiments/{experiment}/runs/{run_id}{below}"

    def _get(self, call: str, **parameters: str) -> dict[str, Any]:
        body = self._ask("GET", f"/api/2.0/mlflow/{call}?{urlencode(parameters)}")
        try:
            return dict(json.loads(body))
        except ValueError as error:
            raise TrackingError(f"MLflow answered no JSON to {call}: {body[:200]!r}") from error

    def _ask(self, verb: str, path: str, body: bytes | None = None) -> bytes:
        """Ask it directly: no proxy of the environment can reach loopback."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_S)
        try:
            connection.request(verb, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise TrackingError(f"the MLflow server at {self.url} does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise TrackingError(f"MLflow answered {response.status} to {path.partition('?')[0]}: {said[:200]!r}")
        return said
